"""What misregistration between BUS and CEUS costs designs that fuse early, late or by attention.

Each seed draws its own data and initial weights; within a seed all designs see the same samples,
and misregistration changes nothing but the offset between the clips. Training and test share the
misregistration. The ideal observer reads latents, so its figures hold for any registration.
"""

import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console

from asycmst.analysis.metrics import bootstrap_auc_ci, classification_metrics
from asycmst.config import AsyCMSTConfig
from asycmst.data.ideal_observer import ideal_observer_auc
from asycmst.data.phantom import PhantomConfig
from asycmst.experiments.console import run_display
from asycmst.experiments.machine import describe, thread_plan
from asycmst.experiments.study import Design, Outcome, Run, Sizes, execute, facts
from asycmst.files import write_text
from asycmst.jobs import run_jobs
from asycmst.training.recipe import Recipe

DESIGNS: tuple[Design, ...] = ("full", "no cross-attention", "early fusion")
SLIGHT_PIXELS = 2.0
"""Standard deviation of the offset along each axis, in pixels of a frame of 64."""


class Cell(NamedTuple):
    """Test AUC of a design at a misregistration, over seeds."""

    design: Design
    misregistration: float
    aucs: list[float]

    def __str__(self) -> str:
        mean = statistics.fmean(self.aucs)
        if len(self.aucs) == 1:
            return f"{mean:.3f}"
        return f"{mean:.3f} ± {statistics.stdev(self.aucs):.3f}"


def run_registration(
    out: Path,
    *,
    seeds: int = 3,
    threads: int | None = None,
    config: AsyCMSTConfig | None = None,
    sizes: Sizes | None = None,
    recipe: Recipe | None = None,
    console: Console | None = None,
) -> list[Cell]:
    """Train and test every design for every seed and misregistration.

    Each finished training leaves a JSON file under `out`/runs; one that is there with the same
    settings is not repeated. At the end results.json and table.md appear in `out`.

    Args:
        out: folder for the results; made when missing.
        seeds: seeds 0 to `seeds` - 1.
        threads: processor threads in all, None for two, or one on a single core.
        config: the full model; None is the demo's.
        sizes: of the splits; None is 1600, 200 and 400 samples.
        recipe: of the training; None is 7 epochs.
        console: where progress goes; None is standard output.

    Raises:
        JobError: a training failed.
        ValueError: a finished run in `out` has other settings, or is damaged.
    """
    console = Console() if console is None else console
    config = AsyCMSTConfig.demo() if config is None else config
    sizes = Sizes() if sizes is None else sizes
    recipe = Recipe.demo() if recipe is None else recipe
    plan = thread_plan(threads)
    runs = [
        Run(design, config, _phantom(config, pixels), sizes, recipe, seed)
        for seed in range(seeds)
        for pixels in (0.0, SLIGHT_PIXELS * config.frame_size[0] / 64)
        for design in DESIGNS
    ]
    folder = out / "runs"
    folder.mkdir(parents=True, exist_ok=True)
    open_runs = [run for run in runs if not _is_finished(folder, run)]
    console.print(
        f"{len(runs)} trainings, {len(runs) - len(open_runs)} of them finished before; "
        f"{plan.processes} side by side, {plan.threads_each} thread(s) each; synthetic phantom, "
        "not clinical evidence",
        soft_wrap=True,
        highlight=False,
    )
    if open_runs:
        with run_display(console, [_name(run) for run in open_runs]) as display:

            def finish(index: int, outcome: Outcome) -> None:
                _store(folder, open_runs[index], outcome)
                display.done(index)

            run_jobs(
                execute,
                open_runs,
                processes=plan.processes,
                threads=plan.threads_each,
                on_message=display.show,
                on_result=finish,
            )
    results = [json.loads(_file(folder, run).read_text(encoding="utf-8")) for run in runs]
    cells = _cells(runs, results)
    observer = ideal_observer_auc(runs[0].phantom)
    command = f"asycmst experiment registration --seeds {seeds} --out {out}"
    content = {
        "command": command,
        "machine": describe(),
        "processes": plan.processes,
        "threads_each": plan.threads_each,
        "ideal_observer_auc": observer,
        "cells": [cell._asdict() for cell in cells],
        "runs": results,
    }
    write_text(out / "results.json", json.dumps(content, indent=1) + "\n")
    table = _table(cells, runs[0], results, observer, command, seeds)
    write_text(out / "table.md", table)
    console.print(table, soft_wrap=True, highlight=False, markup=False)
    console.print(f"{out / 'results.json'}\n{out / 'table.md'}", soft_wrap=True, highlight=False)
    return cells


def _phantom(config: AsyCMSTConfig, pixels: float) -> PhantomConfig:
    return PhantomConfig(frames=config.frames, size=config.frame_size[0], misregistration=pixels)


def _name(run: Run) -> str:
    return f"{run.design}, {run.phantom.misregistration:g} px, seed {run.seed}"


def _file(folder: Path, run: Run) -> Path:
    design = run.design.replace(" ", "-")
    return folder / f"{design}_{run.phantom.misregistration:g}px_seed{run.seed}.json"


def _is_finished(folder: Path, run: Run) -> bool:
    file = _file(folder, run)
    if not file.is_file():
        return False
    try:
        settings = json.loads(file.read_text(encoding="utf-8"))["settings"]
        # A run of an older version lacks newer fields, whose defaults are what it did.
        settings["config"] = AsyCMSTConfig.from_dict(settings["config"]).to_dict()
        settings["recipe"] = asdict(Recipe.demo()) | settings["recipe"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{file} is damaged; delete it to repeat that training") from error
    if settings != facts(run):
        raise ValueError(
            f"{file} was trained with other settings; give --out a new folder or delete it"
        )
    return True


def _store(folder: Path, run: Run, outcome: Outcome) -> None:
    test = outcome.test
    low, high = bootstrap_auc_ci(test.labels, test.probabilities)
    content = {
        "settings": facts(run),
        "parameters": outcome.parameters,
        "best_epoch": outcome.best_epoch,
        "validation_auc": outcome.validation_auc,
        "seconds": round(outcome.total_seconds, 1),
        "test": classification_metrics(test.labels, test.probabilities)
        | {"auc_ci95": [low, high], "dice": statistics.fmean(test.dice)},
    }
    write_text(_file(folder, run), json.dumps(content, indent=1) + "\n")


def _cells(runs: Sequence[Run], results: Sequence[dict[str, Any]]) -> list[Cell]:
    found: dict[tuple[Design, float], list[float]] = {}
    for run, result in zip(runs, results, strict=True):
        found.setdefault((run.design, run.phantom.misregistration), []).append(
            result["test"]["auc"]
        )
    return [Cell(design, pixels, aucs) for (design, pixels), aucs in found.items()]


def _table(
    cells: Sequence[Cell],
    run: Run,
    results: Sequence[dict[str, Any]],
    observer: dict[str, float],
    command: str,
    seeds: int,
) -> str:
    pixels = sorted({cell.misregistration for cell in cells})
    by_place = {(cell.design, cell.misregistration): cell for cell in cells}
    parameters = {result["settings"]["design"]: result["parameters"] for result in results}
    machine = describe()
    lines = [
        f"Test AUC on the synthetic {run.phantom.domain} phantom, mean ± standard deviation "
        f"(n - 1) over {seeds} seed(s) of data and training; {run.sizes.train} training, "
        f"{run.sizes.validation} validation, {run.sizes.test} test samples, "
        f"{run.recipe.epochs} epochs. Not clinical evidence.",
        "",
        "| design | parameters | " + " | ".join(_heading(value) for value in pixels) + " |",
        "|---|---|" + "---|" * len(pixels),
    ]
    for design in DESIGNS:
        values = " | ".join(str(by_place[design, value]) for value in pixels)
        lines.append(f"| {design} | {parameters[design]:,} | {values} |")
    lines += [
        "",
        "Ideal observer (reads the latents, any registration): "
        + ", ".join(f"{name} {value:.3f}" for name, value in observer.items())
        + ".",
        "",
        f"`{command}` on {machine['processor']}, {machine['cores']} cores, torch "
        f"{machine['torch']}, CPU kernel {machine['cpu_kernel']}.",
        "",
    ]
    return "\n".join(lines)


def _heading(pixels: float) -> str:
    return "registered" if pixels == 0 else f"offset sd {pixels:g} px"
