"""The command line. Nothing heavy is imported before a command is chosen."""

import argparse
import sys
import warnings
from collections.abc import Sequence
from typing import NoReturn, TextIO

from asycmst import info
from asycmst.commands import (
    check,
    demo,
    evaluate,
    experiment,
    explain,
    export,
    fit,
    phantom,
    predict,
    prepare,
    split,
)
from asycmst.commands import info as info_command
from asycmst.jobs import JobError

# In the order of the help.
_MODULES = (
    demo,
    phantom,
    check,
    prepare,
    split,
    fit,
    evaluate,
    explain,
    predict,
    export,
    experiment,
    info_command,
)

_EXAMPLES = """\
examples:
  asycmst demo --out demo/                     train and test on a synthetic phantom
  asycmst phantom --out clips/                 synthetic clips as files, to try what follows
  asycmst check clips/manifest.csv             what is wrong with the data
  asycmst prepare clips/manifest.csv --out cache/
  asycmst split cache/ --out splits/           who is trained on, watched and tested
  asycmst fit demo data.cache=cache data.splits=splits data.fold=1 --out run/
  asycmst evaluate --checkpoint run/best.ckpt --data cache/ --splits splits/ --out report/
  asycmst explain --checkpoint run/best.ckpt --bus bus.mp4 --ceus ceus.mp4 --out look/
  asycmst predict --checkpoint demo/best.ckpt --bus bus.mp4 --ceus ceus.mp4
  asycmst export --checkpoint demo/best.ckpt --format onnx --out model/
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


_COMMANDS = {module.__name__.rpartition(".")[2]: module.run for module in _MODULES}


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="asycmst",
        description="Diagnosis of nodules from paired BUS and CEUS clips, after AsyCMST.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"asycmst {info.version()}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for module in _MODULES:
        module.add(commands)
    return parser


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
