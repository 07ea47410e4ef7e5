"""`asycmst info`."""

import argparse

from asycmst import info


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command's options."""
    parser = commands.add_parser(
        "info",
        help="versions, kernels and missing packages; what a model costs",
        description="Prints versions, the kernel that serves each device and what is missing, or, "
        "with --config, the parameters, arithmetic and memory of a model.",
    )
    parser.add_argument(
        "--config", choices=("paper", "authors", "demo"), help="the model to take apart"
    )


def run(options: argparse.Namespace) -> None:
    """Run the command."""
    if options.config is None:
        print(info.report())
        return
    from rich.console import Console

    from asycmst.analysis.complexity import complexity_table
    from asycmst.config import AsyCMSTConfig

    preset = getattr(AsyCMSTConfig, options.config)
    Console(width=100).print(complexity_table(options.config, preset()))
