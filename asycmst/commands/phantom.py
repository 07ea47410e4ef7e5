"""`asycmst phantom`."""

import argparse
from pathlib import Path

from asycmst.commands.arguments import at_least


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command's options."""
    parser = commands.add_parser(
        "phantom",
        help="write synthetic paired clips as files, to try everything else on",
        description="Writes synthetic patients as paired clips of 48 seconds with a manifest, to "
        "walk the whole way from files to results without data. Nothing in them is clinical.",
    )
    parser.add_argument("--out", type=Path, required=True, help="a new folder")
    parser.add_argument("--cases", type=at_least(1), default=40, help="number of patients (40)")
    parser.add_argument(
        "--format",
        choices=("mp4", "dicom", "frames", "xjtu"),
        default="mp4",
        help="kind of clips; xjtu is the folder layout of the paper's released data (mp4)",
    )
    parser.add_argument("--seed", type=at_least(0), default=0, help="of the patients (0)")
    parser.add_argument("--domain", choices=("breast", "thyroid"), default="breast", help="organ")
    parser.add_argument("--size", type=at_least(32), default=96, help="side in pixels (96)")
    parser.add_argument("--frames", type=at_least(2), default=49, help="frames per clip (49)")
    parser.add_argument("--masks", action="store_true", help="also masks of the nodule")
    parser.add_argument(
        "--demographics", action="store_true", help="also made-up ages and sexes in the manifest"
    )


def run(options: argparse.Namespace) -> None:
    """Run the command."""
    from asycmst.commands.counting import counting
    from asycmst.data.phantom import PhantomConfig
    from asycmst.data.phantom_files import write_phantom

    config = PhantomConfig(frames=options.frames, size=options.size, domain=options.domain)
    with counting("written", options.cases) as show:
        write_phantom(
            options.out,
            options.cases,
            options.format,
            config,
            seed=options.seed,
            masks=options.masks,
            demographics=options.demographics,
            report=show,
        )
    manifest = options.out if options.format == "xjtu" else options.out / "manifest.csv"
    print(f"next: asycmst check {manifest}")
