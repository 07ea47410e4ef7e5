"""The report of a run on a GPU, from made-up times: shares, ratios, losses, goals, files."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))

import gpu_cases
import gpu_report


def timed(row: gpu_cases.Row, **times: float) -> dict[str, Any]:
    return {
        "row": row.key,
        **row._asdict(),
        "traffic": row.traffic(),
        "times": {name.replace("_", "-"): {"median_us": us} for name, us in times.items()},
        "host_us": {name.replace("_", "-"): 12.0 for name in times},
        "failed": {},
        "ungraphed": [],
    }


def made_up(card: str = "NVIDIA H100 80GB HBM3", *rows: dict[str, Any]) -> dict[str, Any]:
    return {
        "card": card,
        "machine": {"torch": "2.11"},
        "facts": {"copy_gb_per_s": 2000.0, "launch_us": 1.5},
        "notes": ["a note"],
        "checks": [{"name": "x", "passed": 3, "failed": 0, "skipped": 1, "remark": ""}],
        "rows": list(rows),
        "dropped": [],
        "lost": [],
    }


COLUMN = gpu_cases.Row("time", "forward", 32)


@pytest.mark.parametrize(
    ("card", "slug", "family"),
    [
        ("NVIDIA H100 80GB HBM3", "gpu-nvidia-h100-80gb-hbm3", "hopper"),
        ("NVIDIA H200", "gpu-nvidia-h200", "hopper"),
        ("NVIDIA GeForce RTX 4090", "gpu-nvidia-geforce-rtx-4090", "geforce"),
        ("NVIDIA A100-SXM4-40GB", "gpu-nvidia-a100-sxm4-40gb", None),
    ],
)
def test_files_are_named_after_the_card(card: str, slug: str, family: str | None) -> None:
    assert gpu_report.slug(card) == slug
    assert gpu_report.family(card) == family


def test_a_share_counts_the_bytes_that_must_move() -> None:
    """4 grids of 32 x 16 x 49 x 6 x 64 bfloat16 numbers are 77.07 MB: 38.5 us at 2 TB/s."""
    assert COLUMN.traffic() == 4 * 32 * 16 * 49 * 6 * 64 * 2
    row = timed(COLUMN, ours=COLUMN.traffic() / 2000e9 * 1e6 * 2)
    assert gpu_report.share(row, {"copy_gb_per_s": 2000.0}) == pytest.approx(0.5)
    assert gpu_report.share(row, {}) is None
    assert gpu_cases.Row("joint", "backward", 32).traffic() == 14 * COLUMN.traffic() // 4


def test_a_ratio_is_the_peer_over_ours_and_losses_are_told() -> None:
    row = timed(COLUMN, ours=50.0, einsum=200.0, sdpa_views_flash=40.0)
    assert gpu_report.ratios(row) == {"einsum": 4.0, "sdpa-views-flash": 0.8}
    text = gpu_report.text(made_up("NVIDIA H200", row))
    assert f"- {COLUMN.key}: sdpa-views-flash takes 0.80 of our time" in text
    assert "einsum takes" not in text
    assert "None among the rows" in gpu_report.text(made_up("NVIDIA H200"))


def test_goals_are_met_missed_or_open() -> None:
    row = timed(COLUMN, ours=50.0, einsum=160.0, sdpa_views_flash=140.0, sdpa_copies_math=900.0)
    found = {g.name: g for g in gpu_report.goals(made_up("NVIDIA H100 80GB HBM3", row))}
    share = found["time forward, B=32, share of copy bandwidth"]
    assert share.wanted == ">= 0.75" and share.verdict() == "met"
    best = found["time forward, B=32, best SDPA backend over ours"]
    assert best.measured == pytest.approx(2.8) and best.verdict() == "missed"
    assert found["time forward, B=32, einsum over ours"].verdict() == "met"
    assert found["time forward, B=32, FlexAttention over ours"].verdict() == "open"
    assert found["space backward, B=32, share of copy bandwidth"].verdict() == "open"


def test_goals_depend_on_the_card() -> None:
    def names(card: str) -> dict[str, str]:
        return {g.name: g.wanted for g in gpu_report.goals(made_up(card))}

    share = "space backward, B=32, share of copy bandwidth"
    assert names("NVIDIA GeForce RTX 3090")[share] == ">= 0.5"
    assert names("NVIDIA GeForce RTX 4090")[share] == ">= 0.6"
    assert share not in names("NVIDIA A100-SXM4-40GB")
    replay = "time forward, B=1, graph, us"
    assert names("NVIDIA H200")[replay] == "<= 4"
    assert names("NVIDIA GeForce RTX 5090")[replay] == "<= 5"


def test_small_rows_and_the_loss_have_goals_too() -> None:
    small = timed(gpu_cases.Row("time", "forward", 1), ours=3.0) | {"replay_us": 4.5}
    loss = timed(gpu_cases.Row("ranking", "forward-backward", 32), ours=4.0, eager=90.0)
    loss["host_us"] = {"ours": 20.0, "eager": 240.0}
    found = {g.name: g for g in gpu_report.goals(made_up("NVIDIA H200", small, loss))}
    assert found["time forward, B=1, graph, us"].verdict() == "missed"
    assert found["time forward, B=1, host, us"].verdict() == "met"
    assert found["ranking loss and gradient, B=32, us"].verdict() == "met"
    wall = "ranking loss and gradient, B=32, eager autograd over ours by the host's clock"
    assert found[wall].measured == pytest.approx(12.0)


def test_the_text_has_every_peer_and_says_what_is_missing() -> None:
    row = timed(COLUMN, ours=50.0, einsum=160.0)
    row["failed"] = {"sdpa-views-cudnn": "RuntimeError: no | kernel"}
    row["ungraphed"] = ["einsum"]
    broken = {"row": "symmetric forward", **COLUMN._asdict(), "error": "OutOfMemoryError: 80 GB"}
    result = made_up("NVIDIA H200", row, broken) | {
        "dropped": ["joint forward B=8"],
        "lost": ["x"],
    }
    text = gpu_report.text(result)
    (titles,) = [x for x in text.splitlines() if x.startswith("| row | ours us")]
    assert titles.split(" | ")[5:] == ["einsum", "sdpa-views-cudnn |"]
    (line,) = [x for x in text.splitlines() if x.startswith(f"| {COLUMN.key} | 50 |")]
    assert line.endswith(" | 3.2 | - |")
    assert f"- {COLUMN.key}, sdpa-views-cudnn: RuntimeError: no | kernel" in text
    assert f"- {COLUMN.key}: without a graph einsum" in text
    assert "- symmetric forward: OutOfMemoryError: 80 GB" in text
    assert "- x: lost with the process" in text
    assert "- joint forward B=8: dropped, the time was up" in text
    assert "a note" in text and "copy_gb_per_s: 2000.0" in text and "| x | 3 | 0 | 1 |" in text


def test_both_files_appear_and_replace_older_ones(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "folder"
    for einsum in (160.0, 20.0):
        row = timed(COLUMN, ours=50.0, einsum=einsum)
        stored, table = gpu_report.write(made_up("NVIDIA H200", row), folder)
    assert sorted(x.name for x in folder.iterdir()) == [
        "gpu-nvidia-h200.json",
        "gpu-nvidia-h200.md",
    ]
    found = json.loads(stored.read_text())
    assert found["rows"][0]["times"]["einsum"]["median_us"] == 20.0
    assert {g["verdict"] for g in found["goals"]} == {"met", "missed", "open"}
    assert "0.40 of our time" in table.read_text()
