"""`asycmst predict`."""

import argparse
from pathlib import Path

from asycmst.commands.arguments import add_networks


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command's options."""
    parser = commands.add_parser(
        "predict",
        help="a trained model on one pair of clips",
        description="Prints the prediction as JSON. Clips: multi-frame DICOM, video, a folder of "
        "images or a .npy file.",
    )
    parser.add_argument(
        "--checkpoint", type=Path, required=True, help="such as the best.ckpt of a demo"
    )
    add_networks(parser)
    parser.add_argument("--bus", type=Path, required=True, help="the B-mode clip")
    parser.add_argument("--ceus", type=Path, required=True, help="the contrast clip")
    for name in ("bus", "ceus"):
        parser.add_argument(
            f"--{name}-view",
            choices=("left", "right"),
            help=f"where the {name.upper()} image is in a clip that shows both side by side",
        )
    parser.add_argument("--out", type=Path, help="folder for prediction.json and attention.png")


def run(options: argparse.Namespace) -> None:
    """Run the command."""
    from asycmst.analysis.predict import predict
    from asycmst.training.networks import known

    prediction = predict(
        options.checkpoint,
        options.bus,
        options.ceus,
        options.out,
        bus_view=options.bus_view,
        ceus_view=options.ceus_view,
        networks=known(*options.model),
    )
    print(prediction.to_json())
