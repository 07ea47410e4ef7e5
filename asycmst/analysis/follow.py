"""The prediction of two clips while they are being written."""

import os
import threading
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from asycmst.analysis.case_clips import CaseClips
from asycmst.analysis.predict import Prediction, predict_clips, write_prediction
from asycmst.config import Modality
from asycmst.data.clips import View
from asycmst.data.growing import Arrivals, GrowingSource, open_growing
from asycmst.data.pairs import duration_note
from asycmst.inference.streaming import ClipStream, Estimate
from asycmst.model import AsyCMST
from asycmst.training.checkpoint import load_checkpoint
from asycmst.training.networks import BUILT_IN, Network

_LOOK_EVERY_S = 0.1
_AT_ONCE = 16  # frames taken in before the next look at the other clip and at the clock


class Update(NamedTuple):
    """A new estimate.

    Attributes:
        estimate: of all frames that have arrived.
        change: of the probability since the update before, None for the first.
    """

    estimate: Estimate
    change: float | None


def follow(
    checkpoint: str | os.PathLike[str],
    bus: str | os.PathLike[str],
    ceus: str | os.PathLike[str],
    out: str | os.PathLike[str] | None = None,
    *,
    bus_view: View | None = None,
    ceus_view: View | None = None,
    networks: Mapping[str, Network] = BUILT_IN,
    interval: float = 1.0,
    until: float = 10.0,
    stop: threading.Event | None = None,
    show: Callable[[Update], None] = lambda update: None,
) -> Prediction:
    """Predict malignancy from two clips while they are being written.

    Each frame is encoded once, when it arrives, and its picture and features stay in memory
    (:class:`asycmst.inference.streaming.ClipStream` tells how much that is).

    Args:
        checkpoint: a file of :func:`asycmst.training.checkpoint.save_checkpoint`.
        bus: the B-mode clip, a folder or a video that
            :func:`asycmst.data.growing.open_growing` follows.
        ceus: the contrast clip. The same as `bus` where both stand side by side in one picture,
            with the two views.
        out: a folder for prediction.json and attention.png as `asycmst.analysis.predict.predict`
            writes them; None writes nothing.
        bus_view: the half of the picture with the B-mode image, None for all of it.
        ceus_view: the half with the contrast image.
        networks: those that the checkpoint may hold; only AsyCMST can be followed.
        interval: seconds from one update to the next, at least.
        until: seconds without a new frame in either clip after which both have ended.
        stop: ends it where it stands, once it is set.
        show: called with each update, the last one of all frames.

    Returns:
        What `asycmst.analysis.predict.predict` says of the frames that have arrived.

    Raises:
        FileNotFoundError: the checkpoint or a clip does not exist.
        ImportError: a library that reads this kind of file, or draws, is not installed.
        ValueError: the checkpoint or a clip cannot be used, no frame arrived in time, or `out` is
            a file.
    """
    if out is not None and Path(out).exists() and not Path(out).is_dir():
        raise ValueError(f"{out} is a file: give a folder for the prediction")
    model, meta = load_checkpoint(checkpoint, networks)
    if not isinstance(model, AsyCMST):
        raise ValueError(
            f"{checkpoint} holds the network {type(model).__name__}, and only AsyCMST encodes the "
            "frames of each clip on their own: predict the finished clips"
        )
    stream = ClipStream(model, bus_view=bus_view, ceus_view=ceus_view, keep_pictures=True)
    paths: dict[Modality, Path] = {"bus": Path(bus), "ceus": Path(ceus)}
    one_file = paths["bus"].resolve() == paths["ceus"].resolve()
    sources: dict[tuple[Modality, ...], GrowingSource] = {}
    try:
        if one_file:
            sources["bus", "ceus"] = open_growing(paths["bus"])
        else:
            for modality, path in paths.items():
                sources[(modality,)] = open_growing(path)
        _follow(stream, sources, interval, until, stop or threading.Event(), show)
        notes = {m: source.notes for shown, source in sources.items() for m in shown}
    finally:
        for source in sources.values():
            source.close()
    for modality, count in zip(paths, stream.frames, strict=True):
        if not count:
            raise ValueError(f"no frame of {paths[modality]} has arrived: nothing to predict")
    clips = _case(stream, paths, notes, one_file and bus_view == ceus_view)
    prediction, _ = predict_clips(model, meta, clips)
    if out is not None:
        write_prediction(Path(out), prediction, model, clips)
    return prediction


def _follow(
    stream: ClipStream,
    sources: Mapping[tuple[Modality, ...], GrowingSource],
    interval: float,
    until: float,
    stop: threading.Event,
    show: Callable[[Update], None],
) -> None:
    """Take in frames until both clips have ended, with an update at each interval."""
    updates = _Updates(stream, interval, show)
    grown = time.monotonic()
    while not stop.is_set():
        found = [
            _take_in(stream, shown, source.poll(_AT_ONCE)) for shown, source in sources.items()
        ]
        if any(found):
            grown = time.monotonic()
        elif time.monotonic() - grown >= until:
            for shown, source in sources.items():
                _take_in(stream, shown, source.finish())
            break
        else:
            stop.wait(_LOOK_EVERY_S)
        updates.show_if_due()
    updates.show_last()


def _take_in(stream: ClipStream, shown: tuple[Modality, ...], arrivals: Arrivals) -> bool:
    for modality in shown:
        stream.extend(modality, *arrivals)
    return bool(arrivals.pictures)


class _Updates:
    """Asks for an estimate where there is something new to see."""

    def __init__(
        self, stream: ClipStream, interval: float, show: Callable[[Update], None]
    ) -> None:
        self._stream = stream
        self._interval = interval
        self._show = show
        self._last: Estimate | None = None
        self._shown = -interval

    def show_if_due(self) -> None:
        if time.monotonic() - self._shown >= self._interval:
            self.show_last()

    def show_last(self) -> None:
        last = self._last
        frames = self._stream.frames
        if not self._stream.ready or (
            last is not None and frames == (last.bus_frames, last.ceus_frames)
        ):
            return
        self._shown = time.monotonic()
        self._last = estimate = self._stream.estimate()
        new, old = estimate.probability_malignant, last and last.probability_malignant
        self._show(Update(estimate, None if old is None else new - old))


def _case(
    stream: ClipStream,
    paths: Mapping[Modality, Path],
    notes: Mapping[Modality, tuple[str, ...]],
    once: bool,
) -> CaseClips:
    bus, ceus = stream.clips(paths["bus"].name, paths["ceus"].name)
    bus, ceus = bus._replace(notes=notes["bus"]), ceus._replace(notes=notes["ceus"])
    for clip in (bus,) if once else (bus, ceus):
        for note in clip.notes:
            warnings.warn(f"{clip.source}: {note}", UserWarning, stacklevel=3)
    unequal = duration_note(*stream.sources())
    same = once or np.array_equal(bus.frames, ceus.frames)
    return CaseClips(bus, ceus, same, () if unequal is None else (unequal,))
