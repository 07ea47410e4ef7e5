"""The command line. Nothing heavy is imported before a command is chosen."""

import argparse
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn, TextIO

from asycmst import info
from asycmst.experiments.jobs import JobError

_EXAMPLES = """\
examples:
  asycmst demo --out demo/                     train and test on a synthetic phantom
  asycmst predict --checkpoint demo/best.ckpt --bus bus.mp4 --ceus ceus.mp4
  asycmst experiment registration --out reg/   what misregistration costs each design
  asycmst info                                 versions, kernels, missing packages
  asycmst info --config paper                  what the paper's model costs, part by part
"""


class _Parser(argparse.ArgumentParser):
    """Reports a wrong call in one line."""

    def error(self, message: str) -> NoReturn:
        text = " ".join(message.split())
        self.exit(2, f"asycmst: error: {text}; see {self.prog} --help\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns:
        The exit status: 0 done, 1 a run failed on its way, 2 a wrong call or input, 130
        interrupted.
    """
    options = _parser().parse_args(arguments)
    with warnings.catch_warnings():
        warnings.showwarning = _show_note
        try:
            _COMMANDS[options.command](options)
        except KeyboardInterrupt:
            return _fail("interrupted", 130)
        except ImportError as error:
            extra = info.extra_of(error.name)
            if error.name is not None and extra is None:
                raise
            what = str(error)
            if extra is not None:
                command = info.install_command(extra)
                what = f"`asycmst {options.command}` needs {error.name}, not installed: {command}"
            return _fail(what, 2)
        except (ValueError, TypeError, OSError) as error:
            return _fail(str(error), 2)
        except JobError as error:
            return _fail(str(error), 1)
    return 0


def _demo(options: argparse.Namespace) -> None:
    from asycmst.experiments.demo import run_demo, settings

    run_demo(options.out, settings(options.fast), seed=options.seed, threads=options.threads)


def _predict(options: argparse.Namespace) -> None:
    from asycmst.analysis.predict import predict

    prediction = predict(
        options.checkpoint,
        options.bus,
        options.ceus,
        options.out,
        bus_view=options.bus_view,
        ceus_view=options.ceus_view,
    )
    print(prediction.to_json())


def _experiment(options: argparse.Namespace) -> None:
    from asycmst.experiments.registration import run_registration

    run_registration(options.out, seeds=options.seeds, threads=options.threads)


def _info(options: argparse.Namespace) -> None:
    if options.config is None:
        print(info.report())
        return
    from rich.console import Console

    from asycmst.analysis.complexity import complexity_table
    from asycmst.config import AsyCMSTConfig

    preset = getattr(AsyCMSTConfig, options.config)
    Console(width=100).print(complexity_table(options.config, preset()))


_COMMANDS = {"demo": _demo, "predict": _predict, "experiment": _experiment, "info": _info}


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="asycmst",
        description="Diagnosis of nodules from paired BUS and CEUS clips, after AsyCMST.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"asycmst {info.version()}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    demo = commands.add_parser(
        "demo",
        help="train and test on a synthetic phantom, no data needed",
        description="Trains the full model and its twin without cross attention on a synthetic "
        "phantom, tests both, checks the kernels, and writes figures, tables and a checkpoint.",
    )
    demo.add_argument("--out", type=Path, required=True, help="folder for the results")
    demo.add_argument(
        "--fast", action="store_true", help="fewer samples and epochs: a look, not a result"
    )
    demo.add_argument("--seed", type=_at_least(0), default=0, help="of data and training (0)")
    _add_threads(demo)

    predict = commands.add_parser(
        "predict",
        help="a trained model on one pair of clips",
        description="Prints the prediction as JSON. Clips: multi-frame DICOM, video, a folder of "
        "images or a .npy file.",
    )
    predict.add_argument(
        "--checkpoint", type=Path, required=True, help="such as the best.ckpt of a demo"
    )
    predict.add_argument("--bus", type=Path, required=True, help="the B-mode clip")
    predict.add_argument("--ceus", type=Path, required=True, help="the contrast clip")
    for name in ("bus", "ceus"):
        predict.add_argument(
            f"--{name}-view",
            choices=("left", "right"),
            help=f"where the {name.upper()} image is in a clip that shows both side by side",
        )
    predict.add_argument("--out", type=Path, help="folder for prediction.json and attention.png")

    experiment = commands.add_parser(
        "experiment",
        help="run a study of several trainings",
        description="Runs a study; finished trainings in --out are kept, so it can be resumed.",
    )
    studies = experiment.add_subparsers(dest="study", required=True, metavar="STUDY")
    registration = studies.add_parser(
        "registration",
        help="the full model, its twin and early fusion, with and without misregistration",
        description="Trains the full model, its twin without cross attention and an early-fusion "
        "model of the same size on registered and on slightly misregistered phantoms.",
    )
    registration.add_argument("--out", type=Path, required=True, help="folder for the results")
    registration.add_argument(
        "--seeds", type=_at_least(1), default=3, help="seeds 0 to N-1 of data and training (3)"
    )
    _add_threads(registration)

    information = commands.add_parser(
        "info",
        help="versions, kernels and missing packages; what a model costs",
        description="Prints versions, the kernel that serves each device and what is missing, or, "
        "with --config, the parameters, arithmetic and memory of a model.",
    )
    information.add_argument(
        "--config", choices=("paper", "authors", "demo"), help="the model to take apart"
    )
    return parser


def _add_threads(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--threads",
        type=_at_least(1),
        help="processor threads in all (2, or 1 on one core); two or more train side by side",
    )


def _at_least(low: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = low - 1
        if value < low:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least {low}")
        return value

    return parse


def _show_note(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    print(f"asycmst: note: {' '.join(str(message).split())}", file=sys.stderr)


def _fail(text: str, status: int) -> int:
    print(f"asycmst: error: {' '.join(text.split())}", file=sys.stderr)
    return status
