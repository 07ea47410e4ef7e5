"""`asycmst predict`."""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from asycmst.commands.arguments import add_networks, seconds

if TYPE_CHECKING:
    from asycmst.training.networks import Network


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command's options."""
    parser = commands.add_parser(
        "predict",
        help="a trained model on one pair of clips",
        description="Prints the prediction as JSON. Clips: multi-frame DICOM, video, a folder of "
        "images or a .npy file. With --follow the updates go to the standard error.",
    )
    parser.add_argument(
        "--checkpoint", type=Path, required=True, help="such as the best.ckpt of a demo"
    )
    add_networks(parser)
    parser.add_argument("--bus", type=Path, required=True, help="the B-mode clip")
    parser.add_argument(
        "--ceus", type=Path, help="the contrast clip; leave it out for a model of B-mode images"
    )
    for name in ("bus", "ceus"):
        parser.add_argument(
            f"--{name}-view",
            choices=("left", "right"),
            help=f"where the {name.upper()} image is in a clip that shows both side by side",
        )
    parser.add_argument("--out", type=Path, help="folder for prediction.json and attention.png")
    parser.add_argument(
        "--follow",
        action="store_true",
        help="watch clips that are still being written: folders that gain images, or videos in "
        "MPEG-TS, Matroska, AVI or fragmented MP4; Ctrl-C ends it with the prediction so far",
    )
    parser.add_argument(
        "--interval", type=seconds, metavar="SECONDS", help="from update to update (1)"
    )
    parser.add_argument(
        "--until",
        type=seconds,
        metavar="SECONDS",
        help="without a new frame, after which the clips have ended (10)",
    )


def run(options: argparse.Namespace) -> None:
    """Run the command."""
    from asycmst.analysis.predict import predict
    from asycmst.training.networks import known

    networks = known(*options.model)
    if options.follow:
        _follow(options, networks)
        return
    if options.interval or options.until:
        raise ValueError("--interval and --until belong to --follow: add it or leave them out")
    prediction = predict(
        options.checkpoint,
        options.bus,
        options.ceus,
        options.out,
        bus_view=options.bus_view,
        ceus_view=options.ceus_view,
        networks=networks,
    )
    print(prediction.to_json())


def _follow(options: argparse.Namespace, networks: "Mapping[str, Network]") -> None:
    from asycmst.analysis.follow import follow
    from asycmst.commands.following import following

    if options.ceus is None:
        raise ValueError("--follow watches both clips: give --ceus as well")
    with following() as (show, stop):
        prediction = follow(
            options.checkpoint,
            options.bus,
            options.ceus,
            options.out,
            bus_view=options.bus_view,
            ceus_view=options.ceus_view,
            networks=networks,
            interval=options.interval or 1.0,
            until=options.until or 10.0,
            stop=stop,
            show=show,
        )
    print(prediction.to_json())
