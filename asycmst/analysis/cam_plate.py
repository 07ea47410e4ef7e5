"""Grad-CAM++ of several models over the key frames of several cases (Fig 10)."""

import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from asycmst.analysis.canvas import new_figure, save_both
from asycmst.analysis.gradcam import gradcam_plus_plus
from asycmst.analysis.lesion import find_lesion
from asycmst.analysis.panels import RELEVANCE, colour_bar, draw_outline, draw_picture
from asycmst.analysis.tic import mean_intensity
from asycmst.config import Modality
from asycmst.data.samples import Item
from asycmst.model import AsyCMST

_CLASSES = ("benign", "malignant")
_OUTLINE = "#FFFFFF"
_SIDE = 1.35  # inches of a picture
_MODALITIES: tuple[Modality, Modality] = ("bus", "ceus")


class KeyFrame(NamedTuple):
    """One frame of one clip of a case.

    Attributes:
        number: which of the T frames, from 0.
        pixels: uint8 (H, W, 3).
        nodule: bool (H, W), where it is annotated; None for a case without annotation.
        maps: by model the relevance (H, W) in [0, 1], 1 being the clip's maximum; a model of which
            no branch sees this clip has none.
    """

    number: int
    pixels: NDArray[np.uint8]
    nodule: NDArray[np.bool_] | None
    maps: dict[str, NDArray[Any]]


class PlateCase(NamedTuple):
    """A column of the plate.

    Attributes:
        name: of the case, as it is to be shown.
        label: 1 = malignant.
        frames: the key frame of each clip.
    """

    name: str
    label: int
    frames: dict[Modality, KeyFrame]


def look_at_case(item: Item, models: Mapping[str, AsyCMST], name: str | None = None) -> PlateCase:
    """Choose a case's key frames, the same for all models, and explain malignancy in them.

    The key frame of BUS is the one with the largest annotated nodule, that of CEUS the one in
    which the nodule is brightest; of a case without annotation the middle one, and the one that is
    brightest altogether.

    Args:
        item: one sample, not a batch.
        models: by name; where both branches see one clip, the stronger of their maps counts.
        name: of the case; None is its id.

    Raises:
        ValueError: a model does not fit the clips, or mixes frames.
    """
    annotated = (item["mask"] & item["mask_valid"][:, None, None]).numpy()
    nodule = None
    if annotated.any():
        nodule = find_lesion(annotated.shape, annotated=annotated).mask
    clips = {kind: _pixels(item[kind]) for kind in _MODALITIES}
    frames = len(annotated)
    chosen = {
        "bus": frames // 2 if nodule is None else int(annotated.sum(axis=(1, 2)).argmax()),
        "ceus": int(mean_intensity(clips["ceus"], _anywhere(clips["ceus"], nodule)).argmax()),
    }
    maps: dict[Modality, dict[str, NDArray[Any]]] = {"bus": {}, "ceus": {}}
    for model_name, model in models.items():
        device = next(model.parameters()).device
        cam = gradcam_plus_plus(model, item["bus"][None].to(device), item["ceus"][None].to(device))
        for modality, of_branch in ((model.config.lower, cam.bus), (model.config.upper, cam.ceus)):
            found = of_branch[0].cpu().numpy()[chosen[modality]]
            earlier = maps[modality].get(model_name)
            maps[modality][model_name] = found if earlier is None else np.maximum(earlier, found)
    return PlateCase(
        item["id"] if name is None else name,
        int(item["label"]),
        {
            kind: KeyFrame(
                chosen[kind],
                clips[kind][chosen[kind]],
                None if nodule is None else nodule[chosen[kind]],
                maps[kind],
            )
            for kind in _MODALITIES
        },
    )


def cam_plate(path: str | os.PathLike[str], cases: Sequence[PlateCase]) -> None:
    """Draw a column for each case: its key frames, below each the relevance for every model.

    Args:
        path: the figure without suffix; PATH.png and PATH.svg are written.
        cases: all of the same models; benign ones are put first.

    Raises:
        ImportError: matplotlib is not installed.
        FileNotFoundError: the folder of `path` does not exist.
        ValueError: there is no case.
    """
    if not cases:
        raise ValueError("no case is given: give at least one")
    ordered = sorted(cases, key=lambda case: case.label)
    seen = [frame.maps for case in ordered for frame in case.frames.values()]
    models = list(dict.fromkeys(name for maps in seen for name in maps))
    rows = [(kind, model) for kind in _MODALITIES for model in (None, *models)]
    figure = new_figure(max(_SIDE * len(ordered) + 0.9, 3.6), _SIDE * len(rows) + 1.3)
    grid = figure.subplots(len(rows), len(ordered), squeeze=False)
    for (kind, model), line in zip(rows, grid, strict=True):
        line[0].set_ylabel(kind.upper() if model is None else model, fontsize=9)
        for case, axes in zip(ordered, line, strict=True):
            _draw(axes, case.frames[kind], model)
    for case, axes in zip(ordered, grid[0], strict=True):
        axes.set_title(f"{case.name}\n{_CLASSES[case.label]}", fontsize=9)
    colour_bar(figure, "Grad-CAM++ relevance for malignant\n(1 = the clip's maximum)")
    save_both(figure, path)


def _draw(axes: Any, frame: KeyFrame, model: str | None) -> None:
    overlay = None if model is None else frame.maps.get(model)
    if model is not None and overlay is None:
        axes.set(xticks=[], yticks=[], box_aspect=frame.pixels.shape[0] / frame.pixels.shape[1])
        axes.text(0.5, 0.5, "not seen", ha="center", va="center", transform=axes.transAxes)
        return
    draw_picture(axes, frame.pixels, overlay, RELEVANCE)
    if frame.nodule is not None and frame.nodule.any():
        draw_outline(axes, frame.nodule, _OUTLINE)


def _anywhere(clip: NDArray[np.uint8], nodule: NDArray[np.bool_] | None) -> NDArray[np.bool_]:
    return np.ones(clip.shape[:3], np.bool_) if nodule is None else nodule


def _pixels(clip: torch.Tensor) -> NDArray[np.uint8]:
    found: NDArray[np.uint8] = (
        (clip * 255).round().to(torch.uint8).permute(1, 2, 3, 0).contiguous().numpy()
    )
    return found
