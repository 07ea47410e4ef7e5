"""Train the model and its twin without cross attention on a phantom, and show what comes out."""

import csv
import json
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from asycmst import info
from asycmst.analysis.complexity import cross_interactions
from asycmst.analysis.figures import cam_figure, plumbing_figure, roc_figure
from asycmst.analysis.gradcam import gradcam_plus_plus
from asycmst.analysis.metrics import bootstrap_auc_ci, classification_metrics
from asycmst.config import AsyCMSTConfig
from asycmst.data.ideal_observer import ideal_observer_auc
from asycmst.data.phantom import PhantomConfig
from asycmst.data.samples import PhantomDataset, split_seed
from asycmst.experiments.console import run_display
from asycmst.experiments.machine import describe, thread_plan
from asycmst.experiments.ops_check import STRATEGIES, OpsCheck, Shape, check_ops
from asycmst.experiments.real_clip import RealClipCheck, check_real_clip
from asycmst.experiments.results_folder import staged_results
from asycmst.experiments.study import Outcome, Run, Sizes, execute
from asycmst.jobs import run_jobs
from asycmst.model import AsyCMST
from asycmst.training.checkpoint import load_checkpoint
from asycmst.training.recipe import Recipe

COMMAND = "asycmst demo"
FILES = ("roc.png", "cam.png", "plumbing.png", "metrics.json", "predictions.csv", "best.ckpt")

# How the ideal observers combine the two streams.
_READERS = {
    "bus": "BUS alone",
    "ceus": "CEUS alone",
    "late": "added up",
    "gated": "BUS as guide",
}


class Scores(NamedTuple):
    """Test figures of one design."""

    parameters: int
    auc: float
    auc_low: float
    auc_high: float
    accuracy: float
    f1: float
    dice: float
    best_epoch: int
    train_seconds: float


class Settings(NamedTuple):
    """What a demo trains on and for how long."""

    config: AsyCMSTConfig
    phantom: PhantomConfig
    sizes: Sizes
    recipe: Recipe


def settings(fast: bool) -> Settings:
    """The demo's settings; `fast` is enough for a look, not for a claim."""
    return Settings(
        AsyCMSTConfig.demo(),
        PhantomConfig.demo(),
        Sizes.fast() if fast else Sizes(),
        replace(Recipe.demo(), epochs=8) if fast else Recipe.demo(),
    )


def run_demo(
    out: Path,
    chosen: Settings,
    *,
    seed: int = 0,
    threads: int | None = None,
    rounds: int = 30,
    console: Console | None = None,
) -> dict[str, Scores]:
    """Train two designs side by side, test them, check the kernels, read a real clip.

    Args:
        out: folder for the results, made when missing; all files appear at the end or none. The
            results of an earlier demo are replaced.
        chosen: models, data and training; see :func:`settings`.
        seed: of data, initial weights and order of samples.
        threads: processor threads in all; None is two, or one on a single core.
        rounds: timed rounds of the kernel check.
        console: where the report goes; None is standard output.

    Returns:
        Test figures by design.

    Raises:
        ValueError: `out` holds something that is not a demo's, or `threads` is below 1.
        JobError: a training failed.
    """
    console = Console(highlight=False) if console is None else console
    start = time.perf_counter()
    plan = thread_plan(threads)
    with staged_results(out, COMMAND) as staging:
        checkpoint = staging / "best.ckpt"
        runs = [
            Run("full", *chosen, seed, checkpoint),
            Run("no cross-attention", *chosen, seed),
        ]
        machine = describe()
        _print_header(console, chosen, seed, machine, plan.processes, plan.threads_each)
        outcomes = _train(console, runs, plan.processes, plan.threads_each)
        torch.set_num_threads(plan.processes * plan.threads_each)

        scores: dict[str, Scores] = {outcome.design: _score(outcome) for outcome in outcomes}
        observer = ideal_observer_auc(chosen.phantom)
        _print_scores(console, scores, observer)
        ops = check_ops(rounds=rounds)
        _print_ops(console, ops)

        model, _ = load_checkpoint(checkpoint)
        assert isinstance(model, AsyCMST)
        _draw_roc(staging / "roc.png", outcomes, observer)
        _draw_cam(staging / "cam.png", model, chosen.phantom, seed, outcomes[0])
        real = check_real_clip(model)
        plumbing_figure(
            staging / "plumbing.png",
            real.frames,
            real.frames,
            real.cam,
            real.attention,
            frame_scores=real.frame_scores,
        )
        _print_real(console, real)
        _write_predictions(staging / "predictions.csv", outcomes)
        content = {
            "command": COMMAND,
            "version": info.version(),
            "data": "synthetic phantom, not clinical evidence",
            "seed": seed,
            "machine": machine,
            "processes": plan.processes,
            "threads_each": plan.threads_each,
            "settings": {
                "config": chosen.config.to_dict(),
                "phantom": asdict(chosen.phantom),
                "sizes": asdict(chosen.sizes),
                "recipe": asdict(chosen.recipe),
            },
            "test": {name: score._asdict() for name, score in scores.items()},
            "ideal_observer_auc": observer,
            "ops": _ops_facts(ops),
            "real_clip": {"source": real.source, "probability_malignant": real.probability},
            "seconds": round(time.perf_counter() - start, 1),
        }
        (staging / "metrics.json").write_text(json.dumps(content, indent=1) + "\n", "utf-8")
    _print_paths(console, out, time.perf_counter() - start)
    return scores


def _train(
    console: Console, runs: Sequence[Run], processes: int, threads_each: int
) -> list[Outcome]:
    finished: dict[int, Outcome] = {}
    with run_display(console, [run.design for run in runs]) as display:

        def finish(index: int, outcome: Outcome) -> None:
            finished[index] = outcome
            display.done(index)

        run_jobs(
            execute,
            runs,
            processes=processes,
            threads=threads_each,
            on_message=display.show,
            on_result=finish,
        )
    return [finished[index] for index in range(len(runs))]


def _score(outcome: Outcome) -> Scores:
    test = outcome.test
    measured = classification_metrics(test.labels, test.probabilities)
    low, high = bootstrap_auc_ci(test.labels, test.probabilities)
    return Scores(
        parameters=outcome.parameters,
        auc=measured["auc"],
        auc_low=low,
        auc_high=high,
        accuracy=measured["accuracy"],
        f1=measured["f1"],
        dice=statistics.fmean(test.dice),
        best_epoch=outcome.best_epoch,
        train_seconds=round(outcome.seconds, 1),
    )


def _draw_roc(path: Path, outcomes: Sequence[Outcome], observer: Mapping[str, float]) -> None:
    curves: dict[str, tuple[list[int], list[float]]] = {
        outcome.design: (outcome.test.labels, outcome.test.probabilities) for outcome in outcomes
    }
    roc_figure(path, curves, {_READERS[name]: value for name, value in observer.items()})


def _draw_cam(
    path: Path, model: AsyCMST, phantom: PhantomConfig, seed: int, outcome: Outcome
) -> None:
    """The test sample that the full model calls malignant with the median confidence."""
    test = outcome.test
    order = sorted(range(len(test.labels)), key=test.probabilities.__getitem__)
    called = [i for i in order if test.labels[i] == 1 and test.probabilities[i] > 0.5]
    index = called[len(called) // 2] if called else order[-1]
    dataset = PhantomDataset(phantom, split_seed(seed, "test"), index + 1)
    item, sample = dataset[index], dataset.sample(index)
    cam = gradcam_plus_plus(model, item["bus"][None], item["ceus"][None])
    truth = ("benign", "malignant")[test.labels[index]]
    cam_figure(
        path,
        sample.bus,
        sample.ceus,
        cam,
        sample.mask,
        sample.times,
        decoy_mask=sample.decoy_mask,
        title=f"Synthetic phantom {item['id']}: {truth}, "
        f"probability of malignancy {test.probabilities[index]:.2f}",
    )


def _write_predictions(path: Path, outcomes: Sequence[Outcome]) -> None:
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["model", "id", "label", "probability_malignant", "dice"])
        for outcome in outcomes:
            test = outcome.test
            for name, label, probability, overlap in zip(
                test.ids, test.labels, test.probabilities, test.dice, strict=True
            ):
                writer.writerow(
                    [outcome.design, name, label, f"{probability:.6f}", f"{overlap:.4f}"]
                )


def _ops_facts(ops: OpsCheck) -> dict[str, Any]:
    shape = ops.shape
    return {
        "shape": shape._asdict(),
        "threads": ops.threads,
        "forward_difference": ops.forward_difference,
        "gradient_difference": ops.gradient_difference,
        "median_ms": {timing.provider: timing._asdict() for timing in ops.timings},
        "interactions": {
            strategy: cross_interactions(strategy, shape.frames, shape.positions)
            for strategy in STRATEGIES
        },
    }


def _print_header(
    console: Console,
    chosen: Settings,
    seed: int,
    machine: Mapping[str, Any],
    processes: int,
    threads_each: int,
) -> None:
    sizes, phantom = chosen.sizes, chosen.phantom
    _say(
        console,
        f"Synthetic {phantom.domain} phantom, seed {seed}: {sizes.train} training, "
        f"{sizes.validation} validation, {sizes.test} test samples of {phantom.frames} frames, "
        f"{phantom.size} x {phantom.size}; {chosen.recipe.epochs} epochs. "
        "Not clinical evidence.",
        f"Machine: {machine['processor']}, {machine['cores']} usable cores; {processes} "
        f"training process(es), {threads_each} thread(s) each; torch {machine['torch']}.",
        f"CPU kernel: {machine['cpu_kernel']} ({machine['cpu_kernel_why']}).",
        "Designs: full (AsyCMST), and its twin without cross attention; loss, fss and dice below "
        "are training losses.",
    )


def _print_scores(
    console: Console, scores: Mapping[str, Scores], observer: Mapping[str, float]
) -> None:
    table = Table(title="Test set", title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    for heading in ("design", "weights", "AUC (95 % CI)", "acc", "F1", "Dice"):
        justify: Literal["left", "right"] = "left" if heading == "design" else "right"
        table.add_column(heading, justify=justify, no_wrap=True)
    for name, score in scores.items():
        table.add_row(
            name,
            f"{score.parameters:,}",
            f"{score.auc:.3f} ({score.auc_low:.3f}-{score.auc_high:.3f})",
            f"{score.accuracy:.3f}",
            f"{score.f1:.3f}",
            f"{score.dice:.3f}",
        )
    for name, value in observer.items():
        table.add_row(f"ideal, {_READERS[name]}", "", f"{value:.3f}", "", "", "")
    console.print(table)
    if scores["full"].auc_low <= 0.5:
        _say(
            console,
            "The interval of the full model includes 0.5: this run is too short to have learnt "
            "the task, as --fast is by design.",
        )


def _print_ops(console: Console, ops: OpsCheck) -> None:
    shape = ops.shape
    title = f"Cross attention, {_words(shape)}, float32"
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("median wall time")
    table.add_column("forward", justify="right")
    table.add_column("forward + backward", justify="right")
    for timing in ops.timings:
        table.add_row(
            timing.provider,
            f"{timing.forward_ms:.2f} ms",
            f"{timing.forward_backward_ms:.2f} ms",
        )
    table.min_width = len(title)
    console.print(table)
    counts = ", ".join(
        f"{strategy} {cross_interactions(strategy, shape.frames, shape.positions):,}"
        for strategy in STRATEGIES
    )
    _say(
        console,
        f"Against the einsum reference: largest difference {ops.forward_difference:.1e} forward, "
        f"{ops.gradient_difference:.1e} in gradients; {ops.threads} thread(s).",
        f"Query-key pairs per head and layer: {counts}.",
    )


def _words(shape: Shape) -> str:
    return (
        f"{shape.frames} frames x {shape.positions} positions, {shape.heads} heads of "
        f"{shape.channels}"
    )


def _print_real(console: Console, real: RealClipCheck) -> None:
    _say(
        console,
        f"Plumbing check, no diagnosis: read frames 0 to {real.last_frame} of the real "
        f"{real.source} from disk, used as both clips; the model answers {real.probability:.2f}.",
    )


def _print_paths(console: Console, out: Path, seconds: float) -> None:
    _say(
        console,
        *(str(out / name) for name in FILES),
        f"Done in {seconds:.0f} s. Next: asycmst predict --checkpoint {out / 'best.ckpt'} "
        "--bus BUS_CLIP --ceus CEUS_CLIP",
    )


def _say(console: Console, *lines: str) -> None:
    for line in lines:
        console.print(line, soft_wrap=True, markup=False)
