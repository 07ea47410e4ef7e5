"""`asycmst check`."""

import argparse
import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from asycmst.commands.prepare import add_manifest

if TYPE_CHECKING:
    from asycmst.data.check import Checked


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command's options."""
    parser = commands.add_parser(
        "check",
        help="what is wrong with the clips of a study, before anyone trains",
        description="Looks at a manifest and all its files and lists every problem: missing and "
        "broken files, labels, leaks between splits, clips used twice, masks without a frame. "
        "Exit status 1 if there is an error.",
    )
    add_manifest(parser)
    parser.add_argument("--deep", action="store_true", help="decode every frame of every clip")
    parser.add_argument("--json", type=Path, metavar="OUT", help="also write what was found")


def run(options: argparse.Namespace) -> None:
    """Run the command."""
    from rich.console import Console

    from asycmst.commands.counting import counting
    from asycmst.data.check import check
    from asycmst.data.manifest import parse_manifest
    from asycmst.files import write_text
    from asycmst.jobs import JobError

    total = len(parse_manifest(options.manifest)[0])
    with counting("checked", total) as show:
        found = check(options.manifest, deep=options.deep, report=lambda done, _: show(done))
    summary = _summary(found)
    console = Console(soft_wrap=True)
    console.print(_table(summary))
    for problem in found.problems:
        # Not as markup: an id may hold square brackets.
        console.print(f"{'error' if problem.error else 'note'}: {problem}", markup=False)
    if options.json is not None:
        problems = [problem._asdict() for problem in found.problems]
        write_text(options.json, json.dumps({**summary, "problems": problems}, indent=2) + "\n")
    if found.errors:
        raise JobError(f"{found.errors} errors in {len(found.cases)} cases; see above")


def _summary(found: "Checked") -> dict[str, Any]:
    sources = list(found.sources.values())
    labels = Counter(case.label for case in found.cases)
    splits = Counter(case.split or "not given" for case in found.cases)
    patients = {case.patient for case in found.cases} - {None}
    summary: dict[str, Any] = {
        "cases": len(found.cases),
        "benign": labels[0],
        "malignant": labels[1],
        "patients": len(patients) or None,
        "splits": dict(sorted(splits.items())),
        "cases_with_masks": len(found.annotated),
        "annotated_frames": sum(found.annotated.values()),
    }
    for place, name in enumerate(("bus", "ceus")):
        clips = [pair[place] for pair in sources]
        sizes = Counter(f"{clip.size[1]} x {clip.size[0]}" for clip in clips)
        summary[f"{name}_frames"] = _range(clip.frames for clip in clips)
        summary[f"{name}_seconds"] = _range(
            round(clip.duration, 3) for clip in clips if clip.duration is not None
        )
        summary[f"{name}_sizes"] = dict(sizes.most_common())
    return summary


def _range(values: Iterable[float]) -> dict[str, float] | None:
    ordered = sorted(values)
    if not ordered:
        return None
    return {"min": ordered[0], "median": ordered[len(ordered) // 2], "max": ordered[-1]}


def _table(summary: dict[str, Any]) -> Any:
    from rich.table import Table

    table = Table(show_header=False)
    for name, value in summary.items():
        shown = value
        if value is None:
            shown = "unknown"
        elif isinstance(value, dict):
            shown = ", ".join(f"{key} {number}" for key, number in value.items()) or "unknown"
        table.add_row(name.replace("_", " "), str(shown))
    return table
