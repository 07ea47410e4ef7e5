"""The demo, run for real at a tiny size; its parts by themselves."""

import csv
import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from rich.console import Console

import asycmst_ops
from asycmst.analysis.predict_dataset import predict_dataset
from asycmst.config import AsyCMSTConfig
from asycmst.data.phantom import PhantomConfig
from asycmst.data.samples import PhantomDataset
from asycmst.experiments.demo import FILES, Settings, run_demo, settings
from asycmst.experiments.machine import thread_plan
from asycmst.experiments.ops_check import Shape, check_ops, sdpa_attention
from asycmst.experiments.results_folder import staged_results
from asycmst.experiments.study import Sizes, build_model, split_seed
from asycmst.training.checkpoint import load_checkpoint
from asycmst.training.recipe import Recipe

CONFIG = replace(
    AsyCMSTConfig.demo(),
    frames=2,
    image_size=32,
    dim=8,
    layers=1,
    heads=1,
    ffn_dim=8,
    decoder_channels=(4, 4),
)
TINY = Settings(
    CONFIG,
    PhantomConfig(frames=2, size=32),
    Sizes(8, 4, 8),
    replace(Recipe.demo(), epochs=1, batch_size=4),
)


def plain() -> tuple[Console, io.StringIO]:
    text = io.StringIO()
    return Console(file=text, width=100, highlight=False), text


def test_the_demo_from_phantom_to_files(tmp_path: Path) -> None:
    out = tmp_path / "new" / "demo"
    console, text = plain()
    scores = run_demo(out, TINY, seed=0, threads=2, rounds=1, console=console)

    assert sorted(entry.name for entry in out.iterdir()) == sorted(FILES)
    for name in FILES[:3]:
        with Image.open(out / name) as picture:
            picture.load()
            assert min(picture.size) > 300
    printed = text.getvalue()
    order = [
        "Synthetic breast phantom, seed 0: 8 training, 4 validation, 8 test",
        "Not clinical evidence",
        "CPU kernel:",
        "epoch 1/1",
        "Test set",
        "ideal, BUS alone",
        "einsum reference",
        "global 1,229,312, symmetric 100,352, asymmetric 50,960, spatial 76,832, temporal 25,088",
        "Plumbing check, no diagnosis: read frames 0 to 29 of the real examples_ybr_color.dcm",
        str(out / "best.ckpt"),
    ]
    places = [printed.find(words) for words in order]
    assert -1 not in places and places == sorted(places), dict(zip(order, places, strict=True))

    model, meta = load_checkpoint(out / "best.ckpt")
    assert model.config == CONFIG
    assert meta["design"] == "full" and meta["trained_on"].startswith("synthetic")
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["test"]["full"]["auc"] == scores["full"].auc
    assert set(metrics["test"]) == set(scores) == {"full", "no cross-attention"}
    assert scores["full"].parameters > scores["no cross-attention"].parameters
    assert set(metrics["ideal_observer_auc"]) == {"bus", "ceus", "late", "gated"}

    with (out / "predictions.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    mine = [row for row in rows if row["model"] == "full"]
    test = PhantomDataset(TINY.phantom, split_seed(0, "test"), 8)
    again = predict_dataset(model, test)
    assert len(rows) == 16 and [row["id"] for row in mine] == again.ids
    assert [int(row["label"]) for row in mine] == test.labels().tolist()
    assert [float(row["probability_malignant"]) for row in mine] == pytest.approx(
        again.probabilities, abs=1e-5
    )


class Stop(BaseException):
    """Stands for KeyboardInterrupt."""


@pytest.mark.parametrize("failure", [Stop, ValueError], ids=["interrupt", "error"])
@pytest.mark.parametrize("old", [False, True], ids=["new folder", "earlier results"])
def test_a_stopped_run_changes_nothing(
    tmp_path: Path, failure: type[BaseException], old: bool
) -> None:
    out = tmp_path / "a" / "b"
    if old:
        with staged_results(out, "me") as staging:
            (staging / "metrics.json").write_text('{"command": "me"}')
    with pytest.raises(failure), staged_results(out, "me") as staging:
        (staging / "metrics.json").write_text("half")
        (staging / "roc.png").write_text("half")
        raise failure
    if old:
        assert [entry.name for entry in out.iterdir()] == ["metrics.json"]
        assert (out / "metrics.json").read_text() == '{"command": "me"}'
    else:
        assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "content",
    [{"notes.txt": "mine"}, {"metrics.json": '{"command": "other"}'}, {"metrics.json": "["}],
    ids=["other file", "other command", "no JSON"],
)
def test_foreign_folders_are_refused(tmp_path: Path, content: dict[str, str]) -> None:
    for name, text in content.items():
        (tmp_path / name).write_text(text)
    with (
        pytest.raises(ValueError, match="not results of `me`; give --out a new folder"),
        staged_results(tmp_path, "me"),
    ):
        pytest.fail("the block must not run")
    assert {entry.name: entry.read_text() for entry in tmp_path.iterdir()} == content


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with (
        pytest.raises(ValueError, match="is a file; give --out a folder"),
        staged_results(tmp_path / "file", "me"),
    ):
        pytest.fail("the block must not run")


@pytest.mark.parametrize("axis", ["bus", "ceus"])
def test_sdpa_on_views_is_the_same_attention(axis: str) -> None:
    inputs = [torch.randn(1, 3, 5, 2, 4, dtype=torch.float64) for _ in range(6)]
    place = ("bus", "ceus").index(axis)
    expected = asycmst_ops.reference.acmst_attention(*inputs)[place]
    torch.testing.assert_close(sdpa_attention(*inputs)[place], expected)


def test_the_kernel_check_measures_ours_against_the_definition(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shape = Shape(frames=3, positions=5, heads=2, channels=4)
    good = check_ops(shape, rounds=1)
    assert good.forward_difference < 1e-5 and good.gradient_difference < 1e-5
    assert [timing.provider for timing in good.timings] == [
        "asycmst_ops",
        "einsum reference",
        "SDPA on views",
    ]
    assert all(t.forward_ms > 0 and t.forward_backward_ms > 0 for t in good.timings)

    def wrong(*tensors: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        one, other = asycmst_ops.reference.acmst_attention(*tensors)
        return one + 0.25, 2 * other

    monkeypatch.setattr(asycmst_ops, "acmst_attention", wrong)
    bad = check_ops(shape, rounds=1)
    assert bad.forward_difference >= 0.25 and bad.gradient_difference > 0.01
    with pytest.raises(ValueError, match="batch=2"):
        check_ops(Shape(batch=2))


@pytest.mark.parametrize(
    ("threads", "cores", "plan"),
    [(None, 1, (1, 1)), (None, 8, (2, 1)), (1, 8, (1, 1)), (3, 8, (2, 1)), (8, 8, (2, 4))],
)
def test_threads_are_shared_by_two_trainings(
    monkeypatch: pytest.MonkeyPatch, threads: int | None, cores: int, plan: tuple[int, int]
) -> None:
    monkeypatch.setattr("asycmst.experiments.machine.usable_cores", lambda: cores)
    assert thread_plan(threads) == plan
    with pytest.raises(ValueError, match="threads=0"):
        thread_plan(0)


def test_designs_and_splits() -> None:
    twin = build_model("no cross-attention", CONFIG)
    assert twin.config == replace(CONFIG, cross_attention=None)
    seeds = [split_seed(s, split) for s in range(4) for split in ("train", "validation", "test")]
    assert len(set(seeds)) == 12
    assert settings(fast=True).sizes == Sizes(120, 40, 40)
    assert settings(fast=False).sizes == Sizes(1600, 200, 400)
