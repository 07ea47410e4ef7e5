"""What a model did with one case: its relevance, its attention, and the contrast curves."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from asycmst.analysis.case_clips import CaseClips
from asycmst.analysis.gradcam import gradcam_plus_plus
from asycmst.analysis.lesion import Lesion, Mask, find_lesion, token_areas
from asycmst.analysis.lesion_attention import LesionAttention, lesion_attention, why_no_attention
from asycmst.analysis.predict import Prediction, predict_clips
from asycmst.analysis.tic import (
    CurveParameters,
    Floats,
    curve_parameters,
    mean_intensity,
    surrounding_ring,
)
from asycmst.config import AsyCMSTConfig, Branch, Modality
from asycmst.data.clips import Clip
from asycmst.encoders import feature_grid
from asycmst.model import AsyCMST


class Curve(NamedTuple):
    """A time-intensity curve.

    Attributes:
        name: what region it is of.
        values: shape (T,), brightness in [0, 1]; NaN where the region is empty.
        parameters: its figures, times in the unit of the curves.
    """

    name: str
    values: Floats
    parameters: CurveParameters


class Insight(NamedTuple):
    """Everything that the pictures of a case show.

    Attributes:
        config: of the model.
        clips: the case.
        prediction: the model's answer.
        lesion: the region in which curves and asking tokens are taken.
        ring: bool, shape (T, H, W), the tissue around it.
        curves: of lesion and ring, in the contrast clip.
        relevance: the Grad-CAM++ maps (T, H, W) of the lower and the upper branch, or None for a
            model whose layout mixes frames.
        attention: the model's own attention, or None.
        notes: one line each, what is not shown and why.
    """

    config: AsyCMSTConfig
    clips: CaseClips
    prediction: Prediction
    lesion: Lesion
    ring: Mask
    curves: tuple[Curve, Curve]
    relevance: dict[Branch, NDArray[Any]] | None
    attention: LesionAttention | None
    notes: tuple[str, ...]

    def modality(self, branch: Branch) -> Modality:
        """What a branch sees."""
        return self.config.lower if branch == "lower" else self.config.upper

    def clip(self, branch: Branch) -> Clip:
        """The clip that a branch sees."""
        return self.clips.bus if self.modality(branch) == "bus" else self.clips.ceus

    def name(self, branch: Branch) -> str:
        """What to call a branch: its modality, and which of the two where both see the same."""
        name = self.modality(branch).upper()
        return f"{name} ({branch} branch)" if self.config.lower == self.config.upper else name


def look_inside(
    model: AsyCMST, meta: Mapping[str, Any], clips: CaseClips, given: Mask | None = None
) -> Insight:
    """Predict a case and collect what the prediction rests on.

    Args:
        model: in evaluation mode.
        meta: the plain facts of its checkpoint.
        clips: of the model's size.
        given: bool, shape (T, H, W), the lesion as its reader sees it; None takes the model's
            segmentation, or the next best region (:func:`asycmst.analysis.lesion.find_lesion`).

    Raises:
        ValueError: the model answers NaN, or `given` is empty.
    """
    config = model.config
    tensors = clips.tensors()
    prediction, output = predict_clips(model, meta, clips)
    notes = []
    relevance: dict[Branch, NDArray[Any]] | None = None
    if config.emulate_layout:
        notes.append("the model's layout mixes frames: no Grad-CAM++ map belongs to one")
    else:
        cam = gradcam_plus_plus(model, *tensors)
        relevance = {"lower": cam.bus[0].numpy(), "upper": cam.ceus[0].numpy()}
    frames, height, width = clips.ceus.frames.shape[:3]
    lesion = find_lesion(
        (frames, height, width),
        given=given,
        predicted=None if output.mask_logits is None else (output.mask_logits[0] > 0).numpy(),
        annotated=clips.annotated,
        relevance=_bus_relevance(config, relevance),
    )
    attention = None
    reason = why_no_attention(model)
    if reason is None:
        areas = token_areas(lesion.mask, feature_grid(config))
        attention = lesion_attention(model, *tensors, areas)
    else:
        notes.append(reason)
    if "ceus" not in (config.lower, config.upper):
        notes.append("no branch of the model sees CEUS: the curves are not what it looked at")
    ring = surrounding_ring(lesion.mask)
    times, _ = moments(clips.ceus)
    curves = [
        Curve(name, values, curve_parameters(times, values))
        for name, region in ((lesion.words, lesion.mask), ("surrounding ring", ring))
        for values in (mean_intensity(clips.ceus.frames, region),)
    ]
    return Insight(
        config=config,
        clips=clips,
        prediction=prediction,
        lesion=lesion,
        ring=ring,
        curves=(curves[0], curves[1]),
        relevance=relevance,
        attention=attention,
        notes=(*lesion.notes, *notes),
    )


def moments(clip: Clip) -> tuple[Floats, str]:
    """When the frames of a clip are, and in what unit: seconds ("s"), else source "frames"."""
    if clip.times is not None:
        return clip.times, "s"
    return clip.source_indices.astype(np.float64), "frames"


def of_layer(layers: tuple[int, ...], weights: torch.Tensor, layer: int | None) -> torch.Tensor:
    """One layer's part of weights (L, ...), or their mean over the layers for None."""
    return weights.mean(0) if layer is None else weights[layers.index(layer)]


def _bus_relevance(
    config: AsyCMSTConfig, relevance: dict[Branch, NDArray[Any]] | None
) -> NDArray[Any] | None:
    if relevance is None or "bus" not in (config.lower, config.upper):
        return None
    return relevance["upper" if config.lower != "bus" and config.upper == "bus" else "lower"]
