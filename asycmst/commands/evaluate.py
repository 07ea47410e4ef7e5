"""`asycmst evaluate`."""

import argparse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from asycmst.commands.arguments import add_networks, at_least

if TYPE_CHECKING:
    from asycmst.analysis.evaluate import Study

COMMAND = "asycmst evaluate"


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command's options."""
    parser = commands.add_parser(
        "evaluate",
        help="test trained models, write an HTML report",
        description="Scores models on the test part of their split, with intervals by patient and "
        "thresholds from the validation part. Writes report.html, metrics.json and "
        "predictions.csv. A model is never scored on a patient that it was trained on.",
    )
    parser.add_argument(
        "--checkpoint",
        type=Path,
        nargs="+",
        required=True,
        help="the best.ckpt of a run, or one for each fold, in order",
    )
    parser.add_argument("--name", help="what to call this model (the folder of the checkpoint)")
    parser.add_argument(
        "--compare",
        action="append",
        default=[],
        metavar="NAME=CKPT[,CKPT]",
        help="another model, with as many checkpoints; may be given several times",
    )
    add_networks(parser)
    parser.add_argument(
        "--data",
        type=Path,
        required=True,
        help="a cache of `asycmst prepare`, or a CSV of images as data.images of `asycmst fit`",
    )
    parser.add_argument(
        "--splits",
        type=Path,
        help="folder of `asycmst split`; without it the split column of the data decides",
    )
    parser.add_argument(
        "--fold",
        type=at_least(1),
        nargs="+",
        help="the split of each checkpoint (1, 2, ... in order)",
    )
    parser.add_argument(
        "--threshold",
        choices=("youden", "f1", "sensitivity"),
        default="youden",
        help="how to choose the threshold on validation that is reported beside 0.5 (youden)",
    )
    parser.add_argument(
        "--sensitivity",
        type=float,
        default=0.9,
        help="least sensitivity on validation of that operating point (0.9)",
    )
    parser.add_argument(
        "--average",
        choices=("binary", "macro"),
        default="binary",
        help="recall, precision and F1 of malignant, or the mean of both classes (binary)",
    )
    parser.add_argument(
        "--transfer",
        action="store_true",
        help="the models were trained on another data set, in which equal ids are other cases",
    )
    parser.add_argument("--device", default="cpu", help="such as cpu or cuda (cpu)")
    parser.add_argument("--out", type=Path, required=True, help="folder for the report")


def run(options: argparse.Namespace) -> None:
    """Run the command."""
    from asycmst.analysis.evaluate import evaluate
    from asycmst.analysis.report import write_report
    from asycmst.analysis.summary import summarise
    from asycmst.commands.study_data import open_cache, open_images
    from asycmst.data.splits import read_split, split_of_column
    from asycmst.experiments.results_folder import staged_results
    from asycmst.training.checkpoint import load_checkpoint
    from asycmst.training.networks import config_of, known

    studies = _studies(options)
    networks = known(*options.model)
    if options.data.is_file():
        trained = [path for study in studies for path in study.checkpoints]
        configs = [config_of(load_checkpoint(path, networks)[0]) for path in trained]
        for path, config in zip(trained, configs, strict=True):
            if config.reads_ceus:
                raise ValueError(
                    f"{options.data} lists B-mode images, and the network of {path} reads the "
                    "contrast clip too; give --data a cache of paired clips"
                )
        cases, open_cases = open_images(options.data, configs[0].frame_size)
    else:
        cases, open_cases = open_cache(options.data)
    number = len(options.checkpoint)
    if options.splits is None:
        if options.fold is not None:
            raise ValueError("--fold is a split of a folder: give --splits as well")
        splits = [split_of_column(cases)] * number
    else:
        folds = options.fold or list(range(1, number + 1))
        if len(folds) != number:
            raise ValueError(
                f"{number} checkpoint(s) and {len(folds)} fold(s): give one --fold for each "
                "--checkpoint"
            )
        splits = [read_split(options.splits, fold) for fold in folds]
    with staged_results(options.out, COMMAND) as staging:
        with _progress() as report:
            evaluated = evaluate(
                studies,
                splits,
                cases,
                open_cases,
                sensitivity=options.sensitivity,
                transfer=options.transfer,
                device=options.device,
                networks=networks,
                report=report,
            )
        summary = summarise(evaluated, rule=options.threshold, average=options.average)
        write_report(staging, evaluated, summary, command=COMMAND)
    for file in ("report.html", "metrics.json", "predictions.csv"):
        print(options.out / file)


@contextmanager
def _progress() -> Iterator[Callable[[str, int, int], None]]:
    """A bar for each part that is predicted, where somebody watches."""
    from rich.console import Console
    from rich.progress import Progress, TaskID

    console = Console(stderr=True)
    with Progress(console=console, disable=not console.is_terminal) as bars:
        tasks: dict[str, TaskID] = {}

        def report(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(what, total=total)
            bars.update(tasks[what], completed=done)

        yield report


def _studies(options: argparse.Namespace) -> "list[Study]":
    from asycmst.analysis.evaluate import Study

    name = options.name or options.checkpoint[0].resolve().parent.name or "model"
    studies = [Study(name, tuple(options.checkpoint))]
    for text in options.compare:
        name, _, files = text.partition("=")
        if not name or not files:
            raise ValueError(f"--compare {text}: give NAME=CHECKPOINT, several joined by commas")
        studies.append(Study(name, tuple(map(Path, files.split(",")))))
    return studies
