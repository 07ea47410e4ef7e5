"""One pair of clips and a checkpoint to a probability and a look at what it rests on."""

import dataclasses
import json
import math
import os
import warnings
from dataclasses import dataclass
from pathlib import Path

import torch

from asycmst.analysis.attention_maps import cross_attention_maps, has_cross_attention_maps
from asycmst.analysis.figures import PLUMBING_TITLE, attention_figure
from asycmst.analysis.gradcam import gradcam_plus_plus
from asycmst.data.clips import Clip, View, clip_to_tensor
from asycmst.data.pairs import Pair, duration_note, load_pair
from asycmst.files import replacing
from asycmst.model import AsyCMST, AsyCMSTOutput
from asycmst.training.checkpoint import load_checkpoint

PREDICTION_FILE = "prediction.json"
FIGURE_FILE = "attention.png"

_NOTICE = "Research software, not a medical device: no diagnosis."


@dataclass(frozen=True)
class Prediction:
    """What the model says about one pair of clips; no file name and no tag of a file is in it.

    Attributes:
        probability_malignant: the model's probability of malignancy, in [0, 1].
        frame_scores: T scores of the sorted frames (Eq 2), later ones higher where the model
            recognises their order; None where the model has no frame self-sorting.
        mask_area_fraction: T shares of the BUS frame that the model marks as nodule, in [0, 1];
            None where the model has no segmentation.
        bus_frames: T frame numbers taken from the BUS source, from 0.
        ceus_frames: T frame numbers taken from the CEUS source, from 0.
        bus_times_s: seconds of the BUS frames after the first of the source; None if unknown.
        ceus_times_s: the same for the CEUS frames.
        trained_on: what the checkpoint says its model was trained on, or None.
        plumbing_check: True where the result cannot mean anything, because the model was trained
            on synthetic data or both clips are the same.
        warnings: one line each, what to know before reading the result.
        notice: what this result is not.
    """

    probability_malignant: float
    frame_scores: list[float] | None
    mask_area_fraction: list[float] | None
    bus_frames: list[int]
    ceus_frames: list[int]
    bus_times_s: list[float] | None
    ceus_times_s: list[float] | None
    trained_on: str | None
    plumbing_check: bool
    warnings: list[str]
    notice: str = _NOTICE

    def to_json(self) -> str:
        """The fields as one JSON object, indented."""
        return json.dumps(dataclasses.asdict(self), indent=2, allow_nan=False)


def predict(
    checkpoint: str | os.PathLike[str],
    bus: str | os.PathLike[str],
    ceus: str | os.PathLike[str],
    out: str | os.PathLike[str] | None = None,
    *,
    bus_view: View | None = None,
    ceus_view: View | None = None,
) -> Prediction:
    """Predict malignancy from a BUS and a CEUS clip of the same nodule.

    Args:
        checkpoint: a file of :func:`asycmst.training.checkpoint.save_checkpoint`.
        bus: the B-mode clip, anything :func:`asycmst.data.clips.load_clip` reads.
        ceus: the contrast clip of the same time. The same file as `bus` where scanner or export
            put both side by side, with the two views.
        out: a folder for prediction.json and attention.png, made when missing; None writes
            nothing. The two files appear together or not at all.
        bus_view: the half of the frame with the B-mode image, None for all of it.
        ceus_view: the half with the contrast image.

    Returns:
        The prediction; it is also what prediction.json holds.

    Raises:
        FileNotFoundError: the checkpoint or a clip does not exist.
        ImportError: a library that reads this kind of file, or draws, is not installed.
        ValueError: the checkpoint or a clip cannot be used, or `out` is a file.
    """
    if out is not None and Path(out).exists() and not Path(out).is_dir():
        raise ValueError(f"{out} is a file: give a folder for {PREDICTION_FILE} and {FIGURE_FILE}")
    model, meta = load_checkpoint(checkpoint)
    frames, size = model.config.frames, model.config.frame_size
    pair = load_pair(bus, ceus, frames, size, bus_view=bus_view, ceus_view=ceus_view)
    bus_clip, ceus_clip = pair.bus, pair.ceus
    same = Path(bus).resolve() == Path(ceus).resolve() and bus_view == ceus_view
    for clip in (bus_clip,) if same else (bus_clip, ceus_clip):
        for note in clip.notes:
            warnings.warn(f"{clip.source}: {note}", UserWarning, stacklevel=2)

    tensors = clip_to_tensor(bus_clip)[None], clip_to_tensor(ceus_clip)[None]
    with torch.inference_mode():
        output = model(*tensors)
    trained_on = meta.get("trained_on")
    synthetic = isinstance(trained_on, str) and trained_on.startswith("synthetic")
    prediction = Prediction(
        probability_malignant=_probability(output, checkpoint),
        frame_scores=None if output.frame_scores is None else output.frame_scores[0].tolist(),
        mask_area_fraction=_area_fraction(output),
        bus_frames=bus_clip.source_indices.tolist(),
        ceus_frames=ceus_clip.source_indices.tolist(),
        bus_times_s=_seconds(bus_clip),
        ceus_times_s=_seconds(ceus_clip),
        trained_on=None if trained_on is None else str(trained_on),
        plumbing_check=same or synthetic,
        warnings=_warnings(pair, same, str(trained_on) if synthetic else None),
    )
    if out is not None:
        _write(Path(out), prediction, model, bus_clip, ceus_clip, tensors)
    return prediction


def _probability(output: AsyCMSTOutput, checkpoint: str | os.PathLike[str]) -> float:
    probability = float(output.logits.double().softmax(dim=1)[0, 1])
    if math.isnan(probability):
        raise ValueError(
            f"the model of {checkpoint} answers NaN: its training diverged, use another checkpoint"
        )
    return probability


def _area_fraction(output: AsyCMSTOutput) -> list[float] | None:
    if output.mask_logits is None:
        return None
    fractions: list[float] = (output.mask_logits[0] > 0).double().mean(dim=(1, 2)).tolist()
    return fractions


def _seconds(clip: Clip) -> list[float] | None:
    return None if clip.times is None else [round(float(time), 6) for time in clip.times]


def _warnings(pair: Pair, same: bool, synthetic: str | None) -> list[str]:
    found = []
    clips = [("BUS and CEUS", pair.bus)] if same else [("BUS", pair.bus), ("CEUS", pair.ceus)]
    if same:
        found.append("BUS and CEUS are the same clip: a plumbing check, no diagnosis")
    if synthetic is not None:
        found.append(f"the model was trained on a {synthetic}: a plumbing check, no diagnosis")
    for name, clip in clips:
        found.extend(f"{name}: {note}" for note in clip.notes)
        different = len(set(clip.source_indices.tolist()))
        if different < len(clip.frames):
            found.append(
                f"{name}: {different} frames are fewer than the model's {len(clip.frames)}, some "
                "are repeated"
            )
    unequal = duration_note(pair.bus_source, pair.ceus_source)
    if unequal is not None:
        found.append(unequal)
    return found


def _write(
    out: Path,
    prediction: Prediction,
    model: AsyCMST,
    bus: Clip,
    ceus: Clip,
    tensors: tuple[torch.Tensor, torch.Tensor],
) -> None:
    clips = {"bus": bus, "ceus": ceus}
    lower, upper = model.config.lower, model.config.upper
    cam = gradcam_plus_plus(model, *tensors)
    attention = cross_attention_maps(model, *tensors) if has_cross_attention_maps(model) else None
    probability = f"Probability of malignancy {prediction.probability_malignant:.2f}"
    title = PLUMBING_TITLE if prediction.plumbing_check else f"{probability}\n{_NOTICE}"
    missing = [folder for folder in (out, *out.parents) if not folder.exists()]
    out.mkdir(parents=True, exist_ok=True)
    try:
        with (
            replacing(out / PREDICTION_FILE) as text,
            replacing(out / FIGURE_FILE) as picture,
        ):
            text.write_text(prediction.to_json() + "\n", encoding="utf-8")
            attention_figure(
                picture,
                clips[lower].frames,
                clips[upper].frames,
                cam,
                attention,
                title=title,
                frame_scores=prediction.frame_scores,
                names=(lower.upper(), upper.upper()),
            )
    except BaseException:
        for folder in missing:
            folder.rmdir()
        raise
