"""`asycmst explain`."""

import argparse
from pathlib import Path

from asycmst.commands.arguments import add_networks, at_least


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command's options."""
    parser = commands.add_parser(
        "explain",
        help="what a trained model looks at in one case: pictures and a video",
        description="Grad-CAM++ of both clips, the model's own attention (when and where), and "
        "time-intensity curves of the lesion, as pictures, a video and JSON. A case is a pair of "
        "clips, or one of a folder that `asycmst prepare` wrote. Of a model of B-mode images: its "
        "saliency map, what it leaves of the image, and Grad-CAM++.",
    )
    parser.add_argument(
        "--checkpoint", type=Path, required=True, help="such as the best.ckpt of a demo"
    )
    add_networks(parser)
    parser.add_argument("--bus", type=Path, help="the B-mode clip")
    parser.add_argument(
        "--ceus", type=Path, help="the contrast clip; leave it out for a model of B-mode images"
    )
    for name in ("bus", "ceus"):
        parser.add_argument(
            f"--{name}-view",
            choices=("left", "right"),
            help=f"where the {name.upper()} image is in a clip that shows both side by side",
        )
    parser.add_argument("--data", type=Path, metavar="CACHE", help="a folder of prepared cases")
    parser.add_argument("--case", metavar="ID", help="which of its cases")
    parser.add_argument("--out", type=Path, required=True, help="folder for the results")
    parser.add_argument(
        "--layer", type=at_least(1), help="map the attention of this layer (the mean of all)"
    )
    parser.add_argument(
        "--mask",
        type=Path,
        metavar="PATH",
        help="the lesion in the B-mode clip: an image, a .npy, or masks as a manifest names them, "
        "a folder or contours (the model's segmentation)",
    )


def run(options: argparse.Namespace) -> None:
    """Run the command."""
    if options.bus is not None and not any((options.ceus, options.data, options.case)):
        _explain_image(options)
        return
    files = (options.bus, options.ceus)
    cached = (options.data, options.case)
    if not (
        (all(files) and not any(cached))
        or (all(cached) and not any((*files, options.bus_view, options.ceus_view)))
    ):
        raise ValueError(
            "a case is --bus CLIP --ceus CLIP, --data CACHE --case ID, or --bus IMAGE for a model "
            "of images"
        )

    from asycmst.analysis.explain import FILES, explain, explain_cached
    from asycmst.analysis.predict import heading
    from asycmst.training.networks import known

    networks = known(*options.model)

    if all(files):
        found = explain(
            options.checkpoint,
            *files,
            options.out,
            bus_view=options.bus_view,
            ceus_view=options.ceus_view,
            layer=options.layer,
            mask=options.mask,
            networks=networks,
        )
    else:
        found = explain_cached(
            options.checkpoint,
            *cached,
            options.out,
            layer=options.layer,
            mask=options.mask,
            networks=networks,
        )
    print(heading(found.prediction))
    for line in (*found.prediction.warnings, *found.notes):
        print(f"note: {line}")
    for name in FILES:
        if (options.out / name).exists():
            print(options.out / name)


def _explain_image(options: argparse.Namespace) -> None:
    from asycmst.analysis.explain_image import FILES, explain_image_file
    from asycmst.analysis.predict import heading
    from asycmst.training.networks import known

    if options.layer is not None or options.ceus_view is not None:
        raise ValueError("--layer and --ceus-view are for paired clips; give --ceus, or leave out")
    found = explain_image_file(
        options.checkpoint,
        options.bus,
        options.out,
        view=options.bus_view,
        mask=options.mask,
        networks=known(*options.model),
    )
    print(heading(found.prediction))
    for line in found.prediction.warnings:
        print(f"note: {line}")
    for name in FILES:
        print(options.out / name)
