"""One pair of clips and a checkpoint to a probability and a look at what it rests on."""

import dataclasses
import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from asycmst.analysis.attention_maps import cross_attention_maps, has_cross_attention_maps
from asycmst.analysis.case_clips import CaseClips, read_case
from asycmst.analysis.figures import PLUMBING_TITLE, attention_figure
from asycmst.analysis.gradcam import gradcam_plus_plus
from asycmst.data.clips import Clip, View
from asycmst.files import replacing_together
from asycmst.inference.prepare import prepare_model
from asycmst.model import AsyCMST, AsyCMSTOutput
from asycmst.training.checkpoint import load_checkpoint
from asycmst.training.networks import BUILT_IN, Network, config_of

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
        mask_area_fraction: T shares of the frame that the model marks as nodule, in [0, 1], of
            the clip that its segmented branch sees (BUS in the paper's model); None where the
            model has no segmentation.
        bus_frames: T frame numbers taken from the BUS source, from 0.
        ceus_frames: T frame numbers taken from the CEUS source, from 0; none without one.
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
    ceus: str | os.PathLike[str] | None,
    out: str | os.PathLike[str] | None = None,
    *,
    bus_view: View | None = None,
    ceus_view: View | None = None,
    networks: Mapping[str, Network] = BUILT_IN,
) -> Prediction:
    """Predict malignancy from a BUS and a CEUS clip of the same nodule.

    Args:
        checkpoint: a file of :func:`asycmst.training.checkpoint.save_checkpoint`.
        bus: the B-mode clip, anything :func:`asycmst.data.clips.load_clip` reads.
        ceus: the contrast clip of the same time. The same file as `bus` where scanner or export
            put both side by side, with the two views. None for a network of B-mode images; then
            `bus` may be an image, and of a clip the middle frame is read.
        out: a folder for prediction.json and attention.png, made when missing; None writes
            nothing. The two files appear together or not at all; of another network than AsyCMST
            there is no picture.
        bus_view: the half of the frame with the B-mode image, None for all of it.
        ceus_view: the half with the contrast image.
        networks: those that the checkpoint may hold.

    Returns:
        The prediction; it is also what prediction.json holds.

    Raises:
        FileNotFoundError: the checkpoint or a clip does not exist.
        ImportError: a library that reads this kind of file, or draws, is not installed.
        ValueError: the checkpoint or a clip cannot be used, or `out` is a file.
    """
    model, meta = load_checkpoint(checkpoint, networks)
    clips = read_case(config_of(model), bus, ceus, bus_view, ceus_view)
    prediction, _ = predict_clips(model, meta, clips)
    if out is not None:
        write_prediction(Path(out), prediction, model, clips)
    return prediction


def predict_clips(
    model: nn.Module, meta: Mapping[str, Any], clips: CaseClips
) -> tuple[Prediction, AsyCMSTOutput]:
    """Predict malignancy from clips that were read.

    Args:
        model: in evaluation mode.
        meta: the plain facts of its checkpoint.
        clips: of the model's size.

    Returns:
        The prediction and the model's own output, of a batch of one, without the masks of a
        decoder that has never seen one.

    Raises:
        ValueError: the model answers NaN.
    """
    output = prepare_model(model)(*clips.tensors())
    warnings = []
    learns_masks = config_of(model).learns_masks
    if output.mask_logits is not None and learns_masks and meta.get("has_masks") is False:
        output = output._replace(mask_logits=None)
        warnings.append("the model was trained without masks: it has no segmentation")
    trained_on = meta.get("trained_on")
    synthetic = isinstance(trained_on, str) and trained_on.startswith("synthetic")
    prediction = Prediction(
        probability_malignant=_probability(output),
        frame_scores=None if output.frame_scores is None else output.frame_scores[0].tolist(),
        mask_area_fraction=_area_fraction(output),
        bus_frames=clips.bus.source_indices.tolist(),
        ceus_frames=[] if clips.is_image else clips.ceus.source_indices.tolist(),
        bus_times_s=_seconds(clips.bus),
        ceus_times_s=None if clips.is_image else _seconds(clips.ceus),
        trained_on=None if trained_on is None else str(trained_on),
        plumbing_check=clips.same or synthetic,
        warnings=[*_warnings(clips, str(trained_on) if synthetic else None), *warnings],
    )
    return prediction, output


def heading(prediction: Prediction) -> str:
    """What stands above every picture of a prediction: the probability, or that it means none."""
    if prediction.plumbing_check:
        return PLUMBING_TITLE
    return f"Probability of malignancy {prediction.probability_malignant:.2f}\n{_NOTICE}"


def _probability(output: AsyCMSTOutput) -> float:
    probability = float(output.logits.double().softmax(dim=1)[0, 1])
    if math.isnan(probability):
        raise ValueError(
            "the model of this checkpoint answers NaN: its training diverged, use another one"
        )
    return probability


def _area_fraction(output: AsyCMSTOutput) -> list[float] | None:
    if output.mask_logits is None:
        return None
    fractions: list[float] = (output.mask_logits[0] > 0).double().mean(dim=(1, 2)).tolist()
    return fractions


def _seconds(clip: Clip) -> list[float] | None:
    return None if clip.times is None else [round(float(time), 6) for time in clip.times]


def _warnings(clips: CaseClips, synthetic: str | None) -> list[str]:
    found = []
    named = [("BUS", clips.bus)] if clips.is_image else [("BUS", clips.bus), ("CEUS", clips.ceus)]
    if clips.same:
        named = [("BUS and CEUS", clips.bus)]
        found.append("BUS and CEUS are the same clip: a plumbing check, no diagnosis")
    if synthetic is not None:
        found.append(f"the model was trained on a {synthetic}: a plumbing check, no diagnosis")
    for name, clip in named:
        found.extend(f"{name}: {note}" for note in clip.notes)
        different = len(set(clip.source_indices.tolist()))
        if different < len(clip.frames):
            found.append(
                f"{name}: {different} frames are fewer than the model's {len(clip.frames)}, some "
                "are repeated"
            )
    return [*found, *clips.notes]


def write_prediction(
    out: Path, prediction: Prediction, model: nn.Module, clips: CaseClips
) -> None:
    """Write prediction.json and attention.png to the folder `out`, both or neither.

    Of another network than AsyCMST there is no picture.

    Raises:
        ValueError: `out` is a file.
    """
    with replacing_together(out, (PREDICTION_FILE, FIGURE_FILE)) as files:
        files[PREDICTION_FILE].write_text(prediction.to_json() + "\n", encoding="utf-8")
        if isinstance(model, AsyCMST):
            _draw(files[FIGURE_FILE], prediction, model, clips)


def _draw(file: Path, prediction: Prediction, model: AsyCMST, clips: CaseClips) -> None:
    frames = {"bus": clips.bus.frames, "ceus": clips.ceus.frames}
    lower, upper = model.config.lower, model.config.upper
    tensors = clips.tensors()
    cam = gradcam_plus_plus(model, *tensors)
    attention = cross_attention_maps(model, *tensors) if has_cross_attention_maps(model) else None
    attention_figure(
        file,
        frames[lower],
        frames[upper],
        cam,
        attention,
        title=heading(prediction),
        frame_scores=prediction.frame_scores,
        names=(lower.upper(), upper.upper()),
    )
