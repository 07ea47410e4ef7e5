"""A BUS and a CEUS clip sampled to the same moments.

Slot j of T is the moment j / (T - 1) of the time that both clips cover. Where a clip states no
times, slots are counted in frames: slot j is frame floor(j (n - 1) / (T - 1)) of its n (IN2).
"""

import os
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from asycmst.data.clips import Clip, View, open_clip
from asycmst.data.sampling import (
    FloatArray,
    Frames,
    FrameSize,
    IntArray,
    Source,
    sample_indices,
)

Sampling = Literal["time", "released"]
_RELEASED_PER_SECOND = 2
_DURATION_SHARE = 0.1  # clips that differ by more than this share of the longer are not one moment
_ROUNDING = 1e-6  # containers round times to their clock


class Pair(NamedTuple):
    """Two clips of T frames each; frame j of one belongs to frame j of the other.

    Attributes:
        bus: the B-mode clip.
        ceus: the contrast clip.
        bus_source: what the reader found out about the whole B-mode clip.
        ceus_source: the same of the contrast clip.
    """

    bus: Clip
    ceus: Clip
    bus_source: Source
    ceus_source: Source


def load_pair(
    bus: str | os.PathLike[str],
    ceus: str | os.PathLike[str],
    frames: int,
    size: FrameSize,
    *,
    bus_view: View | None = None,
    ceus_view: View | None = None,
    annotated: Callable[[Source], Collection[int]] | None = None,
    sampling: Sampling = "time",
) -> Pair:
    """Read two clips of one nodule, sampled to `frames` common moments.

    Where both clips state times, slots are spread evenly over [0, the shorter duration] and the
    frame nearest in time is taken, the earlier of two. Else slots are counted in frames.

    An annotated BUS frame within half a slot of a slot is taken in place of the frame above (the
    nearest, if there are several), and CEUS follows it to its moment.

    Args:
        bus: the B-mode clip, of any kind that :func:`asycmst.data.clips.load_clip` reads.
        ceus: the contrast clip; the same file as `bus` where both stand side by side.
        frames: T, at least 1.
        size: side of the returned frames in pixels, or their (height, width).
        bus_view: which half of the frame holds the B-mode image, None for all of it.
        ceus_view: the same of the contrast image.
        annotated: tells which frames of the BUS clip, by index from 0, have a mask; None where
            none has.
        sampling: "time" as described, or "released": as the paper's released code prepares its
            data, each clip for itself, from videos every floor(fps / 2)-th frame first, then by
            count (IN5).

    Raises:
        FileNotFoundError, ImportError, ValueError: as `load_clip` does.
    """
    bus_opened, ceus_opened = open_clip(bus, bus_view), open_clip(ceus, ceus_view)
    rule = _Rule(frames, common_duration(bus_opened.source, ceus_opened.source), sampling)
    known = () if annotated is None else annotated(bus_opened.source)
    targets = np.array(sorted(known), dtype=np.int64)
    bus_read = bus_opened.read(lambda n, times: _towards(targets, *rule.slots(n, times)), size)
    followed = np.isin(bus_read.indices, targets)

    def choose_ceus(n: int, times: FloatArray | None) -> IntArray:
        positions, _, chosen = rule.slots(n, times)
        if rule.duration is not None and bus_read.times is not None:
            there = nearest(positions, bus_read.times)
        else:
            last = max(bus_opened.source.frames - 1, 1)
            there = np.minimum(bus_read.indices * (n - 1) // last, n - 1)
        return np.where(followed, there, chosen)

    ceus_read = ceus_opened.read(choose_ceus, size)
    return Pair(
        _clip(bus_read, bus), _clip(ceus_read, ceus), bus_opened.source, ceus_opened.source
    )


def pair_indices(bus: Source, ceus: Source, frames: int) -> tuple[IntArray, IntArray]:
    """The frames that :func:`load_pair` takes of two clips where no frame is annotated.

    Args:
        bus: what is known about the B-mode clip.
        ceus: the same of the contrast clip.
        frames: T, at least 1.

    Returns:
        The indices of the BUS and of the CEUS frames, each (T,), int64.
    """
    rule = _Rule(frames, common_duration(bus, ceus), "time")
    return rule.slots(bus.frames, bus.times)[2], rule.slots(ceus.frames, ceus.times)[2]


def common_duration(bus: Source, ceus: Source) -> float | None:
    """Seconds that both clips cover, None where one of them states no times."""
    if bus.duration is None or ceus.duration is None:
        return None
    return min(bus.duration, ceus.duration)


def duration_note(bus: Source, ceus: Source) -> str | None:
    """One line where two clips differ in length by more than a tenth, else None."""
    if bus.duration is None or ceus.duration is None:
        return None
    lengths = bus.duration, ceus.duration
    if max(lengths) - min(lengths) <= _DURATION_SHARE * max(lengths):
        return None
    return (
        f"BUS lasts {lengths[0]:.1f} s and CEUS {lengths[1]:.1f} s: the model takes clips of the "
        "same time"
    )


def nearest(positions: FloatArray, wanted: FloatArray) -> IntArray:
    """Index of the nearest position, the earlier of two, for each wanted one.

    Args:
        positions: shape (n,), non-decreasing.
        wanted: shape (T,).

    Returns:
        Shape (T,), int64.
    """
    middles = (positions[1:] + positions[:-1]) / 2
    # The tolerance keeps a slot at the very middle on the earlier frame, whatever the rounding.
    return np.searchsorted(middles, wanted - _ROUNDING, side="left").astype(np.int64)


class _Rule(NamedTuple):
    frames: int
    duration: float | None
    sampling: Sampling

    def slots(self, n: int, times: FloatArray | None) -> tuple[FloatArray, FloatArray, IntArray]:
        """Positions (n,) of the frames, positions (T,) of the slots, the frames (T,) to take."""
        if self.sampling == "time" and self.duration is not None and times is not None:
            slots = np.linspace(0, self.duration, self.frames)
            return times, slots, nearest(times, slots)
        step = _released_step(n, times) if self.sampling == "released" else 1
        kept = np.arange(0, n, step, dtype=np.int64)
        chosen = kept[sample_indices(len(kept), self.frames)]
        return np.arange(n, dtype=np.float64), np.linspace(0, kept[-1], self.frames), chosen


def _released_step(n: int, times: FloatArray | None) -> int:
    if times is None or n < 2 or times[-1] <= 0:
        return 1  # a folder of frames was thinned out before
    per_second = (n - 1) / times[-1]
    return max(1, int((per_second + _ROUNDING) / _RELEASED_PER_SECOND))


def _towards(
    annotated: IntArray, positions: FloatArray, slots: FloatArray, chosen: IntArray
) -> IntArray:
    """Move each slot to its nearest annotated frame, if that is within half a slot."""
    annotated = annotated[annotated < len(positions)]
    if not len(annotated):
        return chosen
    half_a_slot = (slots[-1] - slots[0]) / max(len(slots) - 1, 1) / 2
    offsets = positions[annotated] - slots[:, None]
    distances = np.abs(offsets)
    # A frame at the very middle of two slots belongs to the earlier one only.
    near = (offsets > _ROUNDING - half_a_slot) & (offsets <= half_a_slot + _ROUNDING)
    near |= distances <= _ROUNDING
    best = np.where(near, distances, np.inf).argmin(axis=1)
    return np.where(near.any(axis=1), annotated[best], chosen)


def _clip(read: Frames, path: str | os.PathLike[str]) -> Clip:
    return Clip(read.frames, read.indices, read.times, Path(path).name, read.notes)
