"""`asycmst prepare`."""

import argparse
from pathlib import Path

from asycmst.commands.arguments import at_least

_MANIFEST = (
    "CSV with the columns id, bus, ceus, label and optionally patient, split, mask, bus_view, "
    "ceus_view (paths relative to it), or the folder of the paper's released data"
)


def add_manifest(parser: argparse.ArgumentParser) -> None:
    """The manifest, as every command on source data takes it."""
    parser.add_argument("manifest", type=Path, metavar="MANIFEST", help=_MANIFEST)


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command's options."""
    parser = commands.add_parser(
        "prepare",
        help="decode, sample and resize the clips of a study into a cache",
        description="Fills a cache that training reads from. It can be interrupted and called "
        "again: what is done is kept, changed sources are read anew. Cases that cannot be read "
        "are listed at the end.",
    )
    add_manifest(parser)
    parser.add_argument("--out", type=Path, required=True, help="folder for the cache")
    parser.add_argument(
        "--preset", choices=("paper", "demo"), default="paper", help="frames and size of a model"
    )
    parser.add_argument("--frames", type=at_least(1), help="frames of every clip (16)")
    parser.add_argument("--size", type=at_least(1), help="side of every frame in pixels (224)")
    parser.add_argument(
        "--sampling",
        choices=("time", "released"),
        default="time",
        help="the same moments of both clips (time), or as the paper's released code does: about "
        "two frames per second of video, then by count",
    )
    parser.add_argument(
        "--workers", type=at_least(1), default=2, help="processes that read side by side (2)"
    )


def run(options: argparse.Namespace) -> None:
    """Run the command."""
    from asycmst.commands.counting import counting
    from asycmst.config import AsyCMSTConfig
    from asycmst.data.cache import Step, prepare
    from asycmst.data.check import leaks
    from asycmst.data.manifest import read_manifest
    from asycmst.jobs import JobError

    config = getattr(AsyCMSTConfig, options.preset)()
    cases = read_manifest(options.manifest)
    leaking = list(leaks(cases))
    if leaking:
        raise ValueError(f"{leaking[0]} ({len(leaking)} such cases)")
    with counting("prepared", len(cases)) as show:

        def report(step: Step | str) -> None:
            if isinstance(step, str):
                print(step, flush=True)
            else:
                show(step.done)

        prepared = prepare(
            cases,
            options.out,
            frames=options.frames or config.frames,
            size=options.size or config.frame_size,
            sampling=options.sampling,
            workers=options.workers,
            report=report,
        )
    for problem in prepared.problems:
        print(f"{'error' if problem.error else 'note'}: {problem}")
    print(
        f"{options.out}: {prepared.made + prepared.kept} cases, {prepared.made} of them new, "
        f"{prepared.bytes / 1e6:.1f} MB"
    )
    broken = sum(problem.error for problem in prepared.problems)
    if broken:
        raise JobError(
            f"{broken} of {len(cases)} cases could not be read and are left out; see above"
        )
