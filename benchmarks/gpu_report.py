"""What `make gpu` found, as JSON and as a table to read, both named after the card."""

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

GPU_GOALS_NOTE = "Goals were set before any card was at hand; they are not results."


def slug(card: str) -> str:
    """A file name of a card's name: NVIDIA H100 80GB HBM3 -> gpu-nvidia-h100-80gb-hbm3."""
    return "gpu-" + re.sub(r"[^a-z0-9]+", "-", card.lower()).strip("-")


def family(card: str) -> str | None:
    """Which column of goals is a card's: "hopper", "geforce", or none at all."""
    if re.search(r"\bG?H[12]00\b", card):
        return "hopper"
    return "geforce" if re.search(r"\b[345]090\b", card) else None


class Goal(NamedTuple):
    """One goal and what became of it."""

    name: str
    wanted: str
    measured: float | None
    met: bool | None

    def verdict(self) -> str:
        return {None: "open", True: "met", False: "missed"}[self.met]


# Shares of the copy bandwidth at B=32: geforce, hopper.
_SHARES = {
    ("time", "forward"): (0.80, 0.75),
    ("time", "backward"): (0.75, 0.65),
    ("space", "forward"): (0.70, 0.70),
    ("space", "backward"): (0.60, 0.60),
}
_REPLAY = {"forward": (5.0, 4.0), "backward": (10.0, 7.0)}  # us at B=1
_HOST = {"forward": 20.0, "backward": 30.0}  # us at B=1
# Peers over ours at B=32: the best SDPA backend, FlexAttention, einsum.
_RATIOS = {
    ("time", "forward"): (3.0, 5.0, 3.0),
    ("time", "backward"): (3.0, 5.0, 3.0),
    ("space", "forward"): (1.3, 2.0, 3.0),
    ("space", "backward"): (1.5, 2.0, 3.0),
}
_RANKING_US, _RANKING_RATIO = 5.0, 8.0


def goals(result: dict[str, Any]) -> list[Goal]:
    """Every goal beside what was measured; open where it was not, or where none is set."""
    of_family = {"geforce": 0, "hopper": 1, None: None}[family(result["card"])]
    return [*_speed_goals(result, of_family), *_ratio_goals(result)]


def _speed_goals(result: dict[str, Any], column: int | None) -> Iterator[Goal]:
    for (op, mode), targets in _SHARES.items():
        row = _row(result, op, mode, 32)
        measured = None if row is None else share(row, result["facts"])
        if column is not None:
            target = targets[column]
            if (op, mode) == ("space", "backward") and "3090" in result["card"]:
                target = 0.5
            yield _at_least(f"{op} {mode}, B=32, share of copy bandwidth", target, measured)
    for op in ("time", "space"):
        for mode, host in _HOST.items():
            row = _row(result, op, mode, 1) or {}
            if column is not None:
                limit = _REPLAY[mode][column]
                yield _at_most(f"{op} {mode}, B=1, graph, us", limit, row.get("replay_us"))
            measured = row.get("host_us", {}).get("ours")
            yield _at_most(f"{op} {mode}, B=1, host, us", host, measured)
    row = _row(result, "ranking", "forward-backward", 32) or {}
    name = "ranking loss and gradient, B=32"
    yield _at_most(f"{name}, us", _RANKING_US, median(row, "ours"))
    host = row.get("host_us", {})
    wall = host["eager"] / host["ours"] if {"eager", "ours"} <= host.keys() else None
    yield _at_least(f"{name}, eager autograd over ours by the host's clock", _RANKING_RATIO, wall)


def _ratio_goals(result: dict[str, Any]) -> Iterator[Goal]:
    for (op, mode), (sdpa, flex, einsum) in _RATIOS.items():
        row = _row(result, op, mode, 32) or {}
        best = min((r for n, r in ratios(row).items() if n.startswith("sdpa")), default=None)
        name = f"{op} {mode}, B=32"
        yield _at_least(f"{name}, best SDPA backend over ours", sdpa, best)
        built = _row(result, op, mode, 32, "compiled") or {}
        yield _at_least(f"{name}, FlexAttention over ours", flex, ratios(built).get("flex"))
        yield _at_least(f"{name}, einsum over ours", einsum, ratios(row).get("einsum"))


def _at_least(name: str, target: float, measured: float | None) -> Goal:
    met = None if measured is None else measured >= target
    return Goal(name, f">= {target:g}", measured, met)


def _at_most(name: str, target: float, measured: float | None) -> Goal:
    met = None if measured is None else measured <= target
    return Goal(name, f"<= {target:g}", measured, met)


def _row(
    result: dict[str, Any], op: str, mode: str, batch: int, peers: str = "eager"
) -> dict[str, Any] | None:
    """The paper-sized row, if it was measured."""
    wanted = (op, mode, batch, peers, 49)
    for row in result["rows"]:
        if tuple(row[x] for x in ("op", "mode", "batch", "peers", "places")) == wanted:
            return row
    return None


def median(row: dict[str, Any], provider: str) -> float | None:
    """Microseconds of a provider's call, if it was timed."""
    found = row.get("times", {}).get(provider)
    return None if found is None else float(found["median_us"])


def ratios(row: dict[str, Any]) -> dict[str, float]:
    """Each peer's time over ours: above 1 ours is faster."""
    ours = median(row, "ours")
    times = {name: median(row, name) for name in row.get("times", {}) if name != "ours"}
    return {n: t / ours for n, t in times.items() if t is not None} if ours else {}


def share(row: dict[str, Any], facts: dict[str, float]) -> float | None:
    """Bytes that must move over the time of ours, as a share of the measured copy bandwidth."""
    ours, copy = median(row, "ours"), facts.get("copy_gb_per_s")
    return row["traffic"] / ours / 1e3 / copy if ours and copy else None


def text(result: dict[str, Any]) -> str:
    """The report in Markdown."""
    lines = [f"# {result['card']}", ""]
    lines += [f"- {name}: {value}" for name, value in result["machine"].items()]
    lines += [f"- {name}: {value}" for name, value in result["facts"].items()]
    lines += [f"- note: {note}" for note in result["notes"]]
    lines += ["", "## Correctness", ""]
    lines += _table(
        ["check", "passed", "failed", "skipped", "remark"],
        [
            [c[x] for x in ("name", "passed", "failed", "skipped", "remark")]
            for c in result["checks"]
        ],
    )
    lines += [
        "",
        "## Time",
        "",
        "Ours in microseconds of one call on the device, median of one interleaved run inside a",
        "CUDA graph whose buffers exceed twice the L2 cache; bytes that must move over that time",
        "as a share of the measured copy bandwidth; then each peer's time over ours: **below 1 we",
        "lose**. `host` is what a call of ours costs the processor outside a graph, `replay` the",
        "time of a graph of one call.",
        "",
    ]
    lines += _times(result)
    losses = [
        f"- {row['row']}: {name} takes {ratio:.2f} of our time"
        for row in result["rows"]
        for name, ratio in ratios(row).items()
        if ratio < 1
    ]
    lines += ["## Losses", "", *(losses or ["None among the rows that were measured."]), ""]
    lines += ["## Not timed", "", *(_untimed(result) or ["Nothing."]), ""]
    lines += ["## Goals", "", GPU_GOALS_NOTE, ""]
    lines += _table(
        ["goal", "wanted", "measured", ""],
        [[g.name, g.wanted, _number(g.measured), g.verdict()] for g in goals(result)],
    )
    return "\n".join(lines) + "\n"


def _times(result: dict[str, Any]) -> list[str]:
    """One table for all rows that have the same peers."""
    groups: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for row in result["rows"]:
        if row.get("times"):
            names = {**row["times"], **row["failed"]}
            groups.setdefault(tuple(n for n in names if n != "ours"), []).append(row)
    lines: list[str] = []
    for peers, rows in sorted(groups.items(), key=lambda group: -len(group[1])):
        body = []
        for row in rows:
            found = ratios(row)
            ours = [
                row["row"],
                _number(median(row, "ours")),
                _percent(share(row, result["facts"])),
                _number(row["host_us"].get("ours")),
                _number(row.get("replay_us")),
            ]
            body.append(ours + [_number(found.get(peer)) for peer in peers])
        lines += [*_table(["row", "ours us", "share", "host us", "replay us", *peers], body), ""]
    return lines


def _untimed(result: dict[str, Any]) -> list[str]:
    lines = []
    for row in result["rows"]:
        if "error" in row:
            lines.append(f"- {row['row']}: {row['error']}")
        lines += [f"- {row['row']}, {n}: {why}" for n, why in row.get("failed", {}).items()]
        if row.get("ungraphed"):
            lines.append(f"- {row['row']}: without a graph {', '.join(row['ungraphed'])}")
    lines += [f"- {key}: lost with the process that measured it" for key in result["lost"]]
    return lines + [f"- {key}: dropped, the time was up" for key in result["dropped"]]


def _table(titles: list[str], body: list[list[Any]]) -> list[str]:
    rows = [titles, ["---"] * len(titles), *body]
    return ["| " + " | ".join(str(x).replace("|", "/") for x in row) + " |" for row in rows]


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.0f} %"


def write(result: dict[str, Any], folder: Path) -> tuple[Path, Path]:
    """Both files, whole or not at all; they replace those of an earlier run."""
    folder.mkdir(parents=True, exist_ok=True)
    stored = {**result, "goals": [{**g._asdict(), "verdict": g.verdict()} for g in goals(result)]}
    written = []
    for suffix, content in ((".json", json.dumps(stored, indent=1) + "\n"), (".md", text(result))):
        path = folder / (slug(result["card"]) + suffix)
        part = path.with_suffix(suffix + ".part")
        part.write_text(content)
        os.replace(part, path)
        written.append(path)
    return written[0], written[1]
