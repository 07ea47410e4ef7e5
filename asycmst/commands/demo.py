"""`asycmst demo`."""

import argparse
from pathlib import Path

from asycmst.commands.arguments import add_threads, at_least


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command's options."""
    parser = commands.add_parser(
        "demo",
        help="train and test on a synthetic phantom, no data needed",
        description="Trains the full model and its twin without cross attention on a synthetic "
        "phantom, tests both, checks the kernels, and writes figures, tables and a checkpoint.",
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for the results")
    parser.add_argument(
        "--fast", action="store_true", help="fewer samples and epochs: a look, not a result"
    )
    parser.add_argument("--seed", type=at_least(0), default=0, help="of data and training (0)")
    add_threads(parser)


def run(options: argparse.Namespace) -> None:
    """Run the command."""
    from asycmst.experiments.demo import run_demo, settings

    run_demo(options.out, settings(options.fast), seed=options.seed, threads=options.threads)
