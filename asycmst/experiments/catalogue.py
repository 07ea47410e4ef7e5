"""The experiments by name, and what runs one or several of them."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from rich.console import Console

from asycmst.experiments import (
    ablation,
    centres,
    comparison,
    datasets,
    features,
    gradcam,
    noise,
    placement,
    registration,
    strategies,
    swap,
    timing,
    transfer,
    weights,
    without_masks,
)
from asycmst.experiments.grid import Grid, Place, Study, Trial, run_name, tasks_of
from asycmst.experiments.grid_console import grid_display
from asycmst.experiments.records import Outcome, outcome
from asycmst.experiments.runner import End, Step, run_tasks
from asycmst.experiments.scores import Results
from asycmst.jobs import JobError


class Experiment(NamedTuple):
    """A grid of runs and what is made of their results."""

    grid: Callable[[Study], dict[Place, Trial]]
    report: Callable[[Study, Results, Path], list[Path]]


EXPERIMENTS = {
    "dataset": Experiment(datasets.grid, datasets.report),
    "comparison": Experiment(comparison.grid, comparison.report),
    "transfer": Experiment(transfer.grid, transfer.report),
    "ablation": Experiment(ablation.grid, ablation.report),
    "tsne": Experiment(features.grid, features.report),
    "swap": Experiment(swap.grid, swap.report),
    "gradcam": Experiment(gradcam.grid, gradcam.report),
    "strategies": Experiment(strategies.grid, strategies.report),
    "noise": Experiment(noise.grid, noise.report),
    "placement": Experiment(placement.grid, placement.report),
    "weights": Experiment(weights.grid, weights.report),
    "timing": Experiment(timing.grid, timing.report),
    "centres": Experiment(centres.grid, centres.report),
    "without-masks": Experiment(without_masks.grid, without_masks.report),
    "registration": Experiment(registration.grid, registration.report),
}


def run_experiments(
    names: Sequence[str], study: Study, *, jobs: int = 1, console: Console | None = None
) -> list[Path]:
    """Train and test all runs of some experiments, then write their tables and figures.

    Runs are shared between experiments, and with other processes that work in the same folder.
    A run that diverges is shown as failed, and the others go on.

    Args:
        names: of `EXPERIMENTS`.
        study: sizes, data and the folder.
        jobs: processes side by side.
        console: where progress goes; None is standard output.

    Returns:
        The files written.

    Raises:
        JobError: runs could not be worked on, such as one whose files are damaged; the tables
            are there without them.
        ValueError: the folder is a file, or an experiment does not fit the data.
    """
    console = Console(highlight=False) if console is None else console
    out = study.out
    if out.exists() and not out.is_dir():
        raise ValueError(f"{out} is a file; give --out a folder")
    grids = {name: EXPERIMENTS[name].grid(study) for name in names}
    tasks = tasks_of(grids.values(), out)
    _say(console, f"{len(tasks)} runs in {out / 'runs'}; size {study.size}")
    problems: dict[str, str] = {}
    run_names = list(tasks)
    with grid_display(console, run_names) as display:

        def tell(message: Step | End) -> None:
            if isinstance(message, End) and message.repairable:
                problems[run_names[message.run]] = message.reason or ""
            display(message)

        run_tasks(list(tasks.values()), jobs, tell)
    files = []
    for name, grid in grids.items():
        folder = out / name
        folder.mkdir(parents=True, exist_ok=True)
        results = Results(_outcomes(grid, out, problems))
        written = EXPERIMENTS[name].report(study, results, folder)
        for file in written:
            if file.suffix == ".txt":
                _say(console, "", file.read_text(encoding="utf-8"))
        files += written
    _say(console, *map(str, files))
    if problems:
        first = next(iter(problems.values()))
        more = f" (and {len(problems) - 1} more such runs)" if len(problems) > 1 else ""
        raise JobError(f"{len(problems)} of {len(tasks)} runs have no result: {first}{more}")
    return files


def _outcomes(grid: Grid, out: Path, problems: dict[str, str]) -> dict[Place, Outcome | None]:
    found: dict[Place, Outcome | None] = {}
    for place, trial in grid.items():
        name = run_name(trial.settings)
        is_open = name in problems
        found[place] = None if is_open else outcome(out / "runs" / name, trial.test.key)
    return found


def _say(console: Console, *lines: str) -> None:
    for line in lines:
        console.print(line, soft_wrap=True, markup=False, highlight=False)
