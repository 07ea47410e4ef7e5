"""Kinds of values that several commands take."""

import argparse
import math
from collections.abc import Callable


def at_least(low: int) -> Callable[[str], int]:
    """A whole number of at least `low`, as argparse's `type`."""

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = low - 1
        if value < low:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least {low}")
        return value

    return parse


def add_networks(parser: argparse.ArgumentParser) -> None:
    """The plug-ins that a checkpoint may hold."""
    parser.add_argument(
        "--model",
        action="append",
        default=[],
        metavar="MODULE:NAME",
        help="a network of your own that a checkpoint holds: its code is imported and runs",
    )


def seconds(text: str) -> float:
    """A time above 0, as argparse's `type`."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds above 0")
    return value


def add_threads(parser: argparse.ArgumentParser) -> None:
    """The threads of a command that may train several models side by side."""
    parser.add_argument(
        "--threads",
        type=at_least(1),
        help="processor threads in all (2, or 1 on one core); two or more train side by side",
    )
