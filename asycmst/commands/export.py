"""`asycmst export`."""

import argparse
import sys
from pathlib import Path

from asycmst.commands.arguments import add_networks


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command's options."""
    parser = commands.add_parser(
        "export",
        help="a trained model as files that run without this package",
        description="Writes model.pt2 (torch-export), model.aoti.pt2 (aoti: AOTInductor, compiled "
        "for processors such as this one) and model.onnx (onnx), and model.json, which describes "
        "inputs, outputs and preprocessing. Each file is loaded back and compared with the model "
        "on random clips before it appears.",
    )
    parser.add_argument(
        "--checkpoint", type=Path, required=True, help="such as the best.ckpt of a demo"
    )
    add_networks(parser)
    parser.add_argument("--out", type=Path, required=True, help="folder for the files")
    parser.add_argument(
        "--format",
        nargs="+",
        required=True,
        choices=("torch-export", "aoti", "onnx"),
        help="one or several",
    )
    parser.add_argument(
        "--frame-lengths",
        action="store_true",
        help="a third input: how many frames of each clip are no padding",
    )


def run(options: argparse.Namespace) -> None:
    """Run the command."""
    from asycmst.export.export import export
    from asycmst.training.networks import known

    written = export(
        options.checkpoint,
        options.out,
        list(dict.fromkeys(options.format)),
        lengths=options.frame_lengths,
        networks=known(*options.model),
        stage=lambda text: print(text, file=sys.stderr),
    )
    for file in written:
        differences = ", ".join(f"{name} {x:.1e}" for name, x in file.differences.items())
        print(f"{file.path}  largest difference to the model: {differences}")
    print(options.out / "model.json")
