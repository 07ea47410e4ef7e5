"""`asycmst experiment`."""

import argparse
from pathlib import Path

from asycmst.commands.arguments import add_threads, at_least


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command's options."""
    parser = commands.add_parser(
        "experiment",
        help="run a study of several trainings",
        description="Runs a study; finished trainings in --out are kept, so it can be resumed.",
    )
    studies = parser.add_subparsers(dest="study", required=True, metavar="STUDY")
    registration = studies.add_parser(
        "registration",
        help="the full model, its twin and early fusion, with and without misregistration",
        description="Trains the full model, its twin without cross attention and an early-fusion "
        "model of the same size on registered and on slightly misregistered phantoms.",
    )
    registration.add_argument("--out", type=Path, required=True, help="folder for the results")
    registration.add_argument(
        "--seeds", type=at_least(1), default=3, help="seeds 0 to N-1 of data and training (3)"
    )
    add_threads(registration)


def run(options: argparse.Namespace) -> None:
    """Run the command."""
    from asycmst.experiments.registration import run_registration

    run_registration(options.out, seeds=options.seeds, threads=options.threads)
