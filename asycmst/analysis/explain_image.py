"""One B-mode image and a saliency model to a picture of what it marked and looked at."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from asycmst.analysis.canvas import new_figure, save_figure
from asycmst.analysis.case_clips import CaseClips, read_case
from asycmst.analysis.gradcam import gradcam_plus_plus_map
from asycmst.analysis.localisation import Localisation, localise
from asycmst.analysis.panels import draw_picture
from asycmst.analysis.predict import Prediction, heading, predict_clips
from asycmst.data.clips import View
from asycmst.data.lesion_mask import read_lesion_mask
from asycmst.files import replacing_together
from asycmst.saliency.model import SaliencyDualAttention
from asycmst.training.checkpoint import load_checkpoint
from asycmst.training.networks import BUILT_IN, Network, config_of, name_of

PICTURE, NUMBERS = "saliency.png", "explanation.json"
FILES = (PICTURE, NUMBERS)
_NOTICE = (
    "Research software, not a medical device: no diagnosis. The map shows what the model marked "
    "and looked at, not why a nodule is malignant."
)


class ImageInsight(NamedTuple):
    """What a model made of an image.

    Attributes:
        prediction: of malignancy.
        image: uint8, shape (H, W, 3).
        saliency: float32, shape (H, W), in [0, 1].
        enhanced: uint8, shape (H, W, 3), the image times the saliency.
        relevance: float32, shape (H, W), in [0, 1]: Grad-CAM++ of malignancy on the last fused
            map.
        found: the saliency against a mask; None where there is none.
    """

    prediction: Prediction
    image: NDArray[np.uint8]
    saliency: NDArray[np.float32]
    enhanced: NDArray[np.uint8]
    relevance: NDArray[np.float32]
    found: Localisation | None


def explain_image_file(
    checkpoint: str | os.PathLike[str],
    image: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    view: View | None = None,
    mask: str | os.PathLike[str] | None = None,
    networks: Mapping[str, Network] = BUILT_IN,
) -> ImageInsight:
    """Look at a model at work on an image, or the middle frame of a clip.

    Args:
        checkpoint: a file of :func:`asycmst.training.checkpoint.save_checkpoint`.
        image: anything :func:`asycmst.data.single_image.load_image` reads.
        out: as for :func:`explain_image`.
        view: the half of the image to look at, None for all of it.
        mask: the nodule in the image, as :func:`asycmst.data.lesion_mask.read_lesion_mask` takes.
        networks: those that the checkpoint may hold.

    Raises:
        FileNotFoundError: the checkpoint, the image or the mask does not exist.
        ImportError: a library that reads this kind of file, or draws, is not installed.
        ValueError: the checkpoint is of a network that marks no image; it, the image or the mask
            cannot be used, or `out` is a file.
    """
    model, meta = load_checkpoint(checkpoint, networks)
    config = config_of(model)
    if not isinstance(model, SaliencyDualAttention):
        raise ValueError(
            f"{checkpoint} holds the network {name_of(config)}, which reads two clips; give --bus "
            "and --ceus"
        )
    clips = read_case(config, image, None, view)
    given = None if mask is None else read_lesion_mask(mask, clips.bus)
    return explain_image(model, meta, clips, out, given)


def explain_image(
    model: SaliencyDualAttention,
    meta: Mapping[str, Any],
    clips: CaseClips,
    out: str | os.PathLike[str],
    mask: NDArray[np.bool_] | None = None,
) -> ImageInsight:
    """Look at a model at work on the middle frame of a clip.

    Args:
        model: in evaluation mode.
        meta: the plain facts of its checkpoint.
        clips: of the model's size.
        out: a folder for saliency.png and explanation.json, made when missing. They appear
            together or not at all.
        mask: bool, shape (T, H, W), the nodule, drawn and compared with; None is not known.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: the model answers NaN, or `out` is a file.
    """
    prediction, _ = predict_clips(model, meta, clips)
    middle = len(clips.bus.frames) // 2
    image = clips.tensors()[0][:, :, middle]
    with torch.no_grad():
        output = model.diagnose(image)
    logits = output.saliency_logits[0]
    insight = ImageInsight(
        prediction=prediction,
        image=clips.bus.frames[middle],
        saliency=logits[0].sigmoid().numpy(),
        enhanced=(output.enhanced[0].movedim(0, 2) * 255).round().byte().numpy(),
        relevance=image_relevance(model, image)[0].numpy(),
        found=_compare(logits, None if mask is None else mask[middle, None]),
    )
    with replacing_together(Path(out), FILES) as files:
        _draw(files[PICTURE], insight, None if mask is None else mask[middle])
        files[NUMBERS].write_text(
            json.dumps(_numbers(insight), indent=2, allow_nan=False) + "\n", encoding="utf-8"
        )
    return insight


def image_relevance(model: SaliencyDualAttention, image: Tensor, target: int = 1) -> Tensor:
    """Grad-CAM++ on the last fused map, resized (bilinear) and over its maximum.

    Args:
        model: in evaluation mode.
        image: float, shape (B, 3, H, W).
        target: the class explained, 1 = malignant.

    Returns:
        float32, shape (B, H, W), in [0, 1]; 0 everywhere where nothing speaks for the class.
    """
    maps: list[Tensor] = []

    def keep(_module: Any, _inputs: Any, output: Tensor) -> Tensor:
        maps.append(output.detach().requires_grad_())
        return maps[-1]

    hook = model.encoder.register_forward_hook(keep)
    try:
        with torch.enable_grad():
            score = model.diagnose(image).logits[:, target].sum()
            (slopes,) = torch.autograd.grad(score, maps)
    finally:
        hook.remove()
    found = gradcam_plus_plus_map(maps[0].detach(), slopes)
    sized = torch.nn.functional.interpolate(found[:, None], image.shape[2:], mode="bilinear")[:, 0]
    top = sized.amax((1, 2), keepdim=True)
    return torch.where(top > 0, sized / top, 0.0).float()


def _compare(logits: Tensor, mask: NDArray[np.bool_] | None) -> Localisation | None:
    if mask is None or not mask.any():
        return None
    return localise(logits, torch.from_numpy(mask), torch.ones(1, dtype=torch.bool))


def _draw(file: Path, insight: ImageInsight, mask: NDArray[np.bool_] | None) -> None:
    figure = new_figure(10.0, 3.2)
    figure.suptitle(heading(insight.prediction), fontsize=9)
    panels = (
        ("Image", insight.image, None),
        ("Saliency map", insight.image, insight.saliency),
        ("Image times saliency", insight.enhanced, None),
        ("Relevance for malignant", insight.image, insight.relevance),
    )
    for axes, (title, picture, overlay) in zip(figure.subplots(1, 4), panels, strict=True):
        draw_picture(axes, picture, overlay, "inferno")
        axes.set_title(title, fontsize=9)
        if mask is not None and mask.any():
            axes.contour(mask, levels=[0.5], colors="white", linewidths=0.8)
    save_figure(figure, file)


def _numbers(insight: ImageInsight) -> dict[str, Any]:
    y, x = np.unravel_index(int(insight.saliency.argmax()), insight.saliency.shape)
    return {
        "probability_malignant": insight.prediction.probability_malignant,
        "plumbing_check": insight.prediction.plumbing_check,
        "warnings": insight.prediction.warnings,
        "saliency_area_fraction": float((insight.saliency > 0.5).mean()),
        "saliency_peak": {"row": int(y), "column": int(x), "value": float(insight.saliency.max())},
        "against_mask": None if insight.found is None else insight.found._asdict(),
        "notice": _NOTICE,
    }
