"""One case and a checkpoint to pictures, a video and figures of what the model looked at."""

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from asycmst.analysis.case_clips import CaseClips, cached_case, read_case
from asycmst.analysis.explanation_figure import attention_plate, explanation_plate, tic_figure
from asycmst.analysis.insight import Curve, Insight, look_inside, moments, of_layer
from asycmst.analysis.insight_panels import other
from asycmst.analysis.lesion import token_areas
from asycmst.analysis.overlay_video import write_overlay
from asycmst.analysis.predict import heading
from asycmst.data.clips import View
from asycmst.data.lesion_mask import read_lesion_mask
from asycmst.data.masks import Mask, read_masks
from asycmst.files import replacing_together
from asycmst.model import AsyCMST
from asycmst.training.checkpoint import load_checkpoint
from asycmst.training.networks import BUILT_IN, Network, config_of, name_of

PLATE, TIC, ATTENTION, VIDEO, NUMBERS = (
    "explanation.png",
    "tic.png",
    "attention.png",
    "overlay.mp4",
    "explanation.json",
)
FILES = (PLATE, TIC, ATTENTION, VIDEO, NUMBERS)

NOTICE = (
    "Research software, not a medical device: no diagnosis. Relevance and attention show what the "
    "model computed with, not why a nodule is malignant; curves are of display brightness, which "
    "is no measured contrast concentration."
)


def explain(
    checkpoint: str | os.PathLike[str],
    bus: str | os.PathLike[str],
    ceus: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    bus_view: View | None = None,
    ceus_view: View | None = None,
    layer: int | None = None,
    mask: str | os.PathLike[str] | None = None,
    networks: Mapping[str, Network] = BUILT_IN,
) -> Insight:
    """Look inside a model at work on a BUS and a CEUS clip of the same nodule.

    Args:
        checkpoint: a file of :func:`asycmst.training.checkpoint.save_checkpoint`.
        bus: the B-mode clip, anything :func:`asycmst.data.clips.load_clip` reads.
        ceus: the contrast clip of the same time.
        out: a folder for the files of `FILES`, made when missing. They appear together or not at
            all; attention.png is absent where the model has no attention to show.
        bus_view: the half of the frame with the B-mode image, None for all of it.
        ceus_view: the half with the contrast image.
        layer: the layer whose attention is mapped, counted from 1; None is the mean of all.
        mask: the lesion in the B-mode clip, an image or array
            (:func:`asycmst.data.lesion_mask.read_lesion_mask`) or, by frame, a folder or contours
            (:mod:`asycmst.data.masks`); None takes the model's segmentation, or the next best
            region, and says which.
        networks: those that the checkpoint may hold.

    Returns:
        What the files show.

    Raises:
        FileNotFoundError: the checkpoint, a clip or the mask does not exist.
        ImportError: a library that reads this kind of file, or draws, is not installed.
        ValueError: the checkpoint is of a network without the model's encoders and attention; it,
            a clip, the mask or the layer cannot be used, or `out` is a
            file.
    """
    model, meta = _open(checkpoint, layer, networks)
    masks = read_masks(mask) if mask is not None and _by_frame(mask) else None
    clips = read_case(model.config, bus, ceus, bus_view, ceus_view, masks=masks)
    if masks is None:
        given = None if mask is None else read_lesion_mask(mask, clips.bus)
    else:
        given = clips.annotated
    return _explain(model, meta, clips, out, layer, given)


def explain_cached(
    checkpoint: str | os.PathLike[str],
    cache: str | os.PathLike[str],
    case: str,
    out: str | os.PathLike[str],
    *,
    layer: int | None = None,
    mask: str | os.PathLike[str] | None = None,
    networks: Mapping[str, Network] = BUILT_IN,
) -> Insight:
    """Look inside a model at work on a case of a folder that `asycmst prepare` wrote.

    Args and errors are those of :func:`explain`; frames count from 0 as they were cached, so that
    a mask is an image or an array.
    """
    if mask is not None and _by_frame(mask):
        raise ValueError(
            f"{mask} counts the frames of the source, of which a cache has kept some: give an "
            "image or .npy of what the case shows, or the clips with --bus and --ceus"
        )
    model, meta = _open(checkpoint, layer, networks)
    clips = cached_case(model.config, cache, case)
    given = None if mask is None else read_lesion_mask(mask, clips.bus)
    return _explain(model, meta, clips, out, layer, given)


def _by_frame(mask: str | os.PathLike[str]) -> bool:
    path = Path(mask)
    return path.is_dir() or path.suffix.lower() == ".json"


def _open(
    checkpoint: str | os.PathLike[str], layer: int | None, networks: Mapping[str, Network]
) -> tuple[AsyCMST, dict[str, Any]]:
    model, meta = load_checkpoint(checkpoint, networks)
    if not isinstance(model, AsyCMST):
        raise ValueError(
            f"{checkpoint} holds the network {name_of(config_of(model))}, of which explain knows "
            "no encoders and no attention to look into; give one of asycmst, or use predict"
        )
    layers = model.config.cross_attention_layers
    if layer is not None and layer not in layers:
        choice = f"choose one of {layers}" if layers else "leave it out"
        raise ValueError(f"layer {layer} of the model has no cross-attention: {choice}")
    return model, meta


def _explain(
    model: AsyCMST,
    meta: dict[str, Any],
    clips: CaseClips,
    out: str | os.PathLike[str],
    layer: int | None,
    given: Mask | None,
) -> Insight:
    insight = look_inside(model, meta, clips, given)
    title = heading(insight.prediction)
    with replacing_together(out, FILES) as files:
        explanation_plate(files[PLATE], insight, layer, title)
        tic_figure(files[TIC], insight, title)
        if insight.attention is not None:
            attention_plate(files[ATTENTION], insight, title)
        write_overlay(files[VIDEO], insight, layer, title)
        text = json.dumps(numbers(insight), indent=2, allow_nan=False)
        files[NUMBERS].write_text(text + "\n", encoding="utf-8")
    return insight


def numbers(insight: Insight) -> dict[str, Any]:
    """What explanation.json holds: plain types, no file name and no tag of a file."""
    prediction, config = insight.prediction, insight.config
    times, unit = moments(insight.clips.ceus)
    y, x = (float(axis.mean()) for axis in np.nonzero(insight.lesion.mask)[1:])
    return {
        "heading": heading(prediction).split("\n")[0],
        "notice": NOTICE,
        "probability_malignant": prediction.probability_malignant,
        "plumbing_check": prediction.plumbing_check,
        "trained_on": prediction.trained_on,
        "warnings": prediction.warnings,
        "notes": list(insight.notes),
        "model": {
            "lower_branch": config.lower,
            "upper_branch": config.upper,
            "cross_attention": config.cross_attention,
            "cross_attention_layers": list(config.cross_attention_layers),
            "heads": config.heads,
        },
        "frames": {
            "bus": prediction.bus_frames,
            "ceus": prediction.ceus_frames,
            "bus_times_s": prediction.bus_times_s,
            "ceus_times_s": prediction.ceus_times_s,
            "scores": prediction.frame_scores,
        },
        "lesion": {
            "source": insight.lesion.source,
            "area_fraction": insight.lesion.mask.mean(axis=(1, 2)).tolist(),
            "centre_x_fraction": (x + 0.5) / insight.lesion.mask.shape[2],
            "centre_y_fraction": (y + 0.5) / insight.lesion.mask.shape[1],
        },
        "curves": {
            "time_unit": unit,
            "times": times.tolist(),
            "intensity": "mean display brightness, 0 to 1",
            "lesion": _curve(insight.curves[0]),
            "ring": _curve(insight.curves[1]),
        },
        "relevance": _relevance(insight),
        "attention": _attention(insight),
    }


def _curve(curve: Curve) -> dict[str, Any]:
    values = [None if math.isnan(value) else value for value in curve.values.tolist()]
    return {"values": values, **vars(curve.parameters)}


def _relevance(insight: Insight) -> list[dict[str, Any]] | None:
    """Grad-CAM++ for malignant, by branch: how much of it lies on the lesion, and when."""
    if insight.relevance is None:
        return None
    found = []
    for branch, maps in insight.relevance.items():
        total = maps.sum(dtype=np.float64)
        by_frame = maps.sum(axis=(1, 2), dtype=np.float64)
        on_lesion = (maps * insight.lesion.mask).sum(dtype=np.float64)
        found.append(
            {
                "branch": branch,
                "clip": insight.modality(branch),
                "share_on_lesion": float(on_lesion / total) if total > 0 else None,
                "share_by_frame": (by_frame / total).tolist() if total > 0 else None,
            }
        )
    return found


def _attention(insight: Insight) -> dict[str, Any] | None:
    attention = insight.attention
    if attention is None:
        return None
    chosen = {"mean": None, **{f"layer {layer}": layer for layer in attention.layers}}
    when = []
    for look in attention.when:
        reads = other(look.asks)
        times, unit = moments(insight.clip(reads))
        rows = {}
        for name, layer in chosen.items():
            weights = of_layer(attention.layers, look.overall, layer).numpy()
            rows[name] = {
                "weights": weights.tolist(),
                "largest_at": float(times[int(weights.argmax())]),
                "mean_time": float(weights @ times),
            }
        words = {"asks": look.asks, "reads": reads, "clip_read": insight.modality(reads)}
        when.append({**words, "time_unit": unit, "times": times.tolist(), **rows})
    where = []
    for place in attention.where:
        reads = other(place.asks)
        rows_columns = (place.maps.shape[-2], place.maps.shape[-1])
        areas = token_areas(insight.lesion.mask, rows_columns).unflatten(1, rows_columns)
        rows = {}
        for name, layer in chosen.items():
            maps = of_layer(attention.layers, place.maps, layer)
            on_lesion = (maps * areas).sum(dim=(1, 2)).mean()
            rows[name] = {"weights": maps.tolist(), "share_on_lesion": float(on_lesion)}
        words = {"asks": place.asks, "reads": reads, "clip_read": insight.modality(reads)}
        expected = float(insight.lesion.mask.mean())
        where.append({**words, "share_if_uniform": expected, **rows})
    return {"uniform_over_time": 1 / len(insight.lesion.mask), "when": when, "where": where}
