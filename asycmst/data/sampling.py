"""Which frames of a clip are kept, and how a frame becomes an RGB image of a given size."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

UInt8Array = NDArray[np.uint8]
IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]
FrameSize = int | tuple[int, int]
"""Pixels of a frame: the side of a square, or (height, width)."""


class Box(NamedTuple):
    """A rectangle of a frame in pixels: rows top to bottom - 1, columns left to right - 1."""

    left: int
    top: int
    right: int
    bottom: int


class Source(NamedTuple):
    """What a reader finds out about a clip before it decodes it.

    Attributes:
        frames: n, the frames of the clip.
        times: shape (n,), float64, seconds after the first frame, non-decreasing; None where the
            source states no time.
        size: (height, width) of a whole frame in pixels.
        box: the part of every frame that is kept, None for all of it.
        notes: one line each, what a user should know about how the source is read.
        numbers: shape (n,), int64, the number in the name of each image of a folder; None where
            frames are simply counted from 0.
    """

    frames: int
    times: FloatArray | None
    size: tuple[int, int]
    box: Box | None = None
    notes: tuple[str, ...] = ()
    numbers: IntArray | None = None

    @property
    def duration(self) -> float | None:
        """Seconds from the first frame to the last, None where unknown."""
        return None if self.times is None else float(self.times[-1])


Choose = Callable[[int, FloatArray | None], IntArray]
"""From the frames a source holds and their times (n,) or None: the indices (T,) to read."""


class Opened(NamedTuple):
    """A clip that was looked at and can be read."""

    source: Source
    read: Callable[[Choose, FrameSize], "Frames"]


class Frames(NamedTuple):
    """What a reader returns: the sampled frames of one clip.

    Attributes:
        frames: shape (T, height, width, 3), uint8, RGB.
        indices: shape (T,), int64, the source frame each one was taken from.
        times: shape (T,), float64, seconds after the clip's first frame, or None where the
            source states no time.
        notes: one line each, what a user should know about how the source was read.
    """

    frames: UInt8Array
    indices: IntArray
    times: FloatArray | None
    notes: tuple[str, ...] = ()


def sample_indices(available: int, frames: int) -> IntArray:
    """Choose `frames` of `available` frames, evenly from the first to the last.

    Frame j is source frame floor(j (n - 1) / (T - 1)); one frame (T = 1) is the first. A clip
    shorter than T repeats frames and never goes back in time.

    Args:
        available: n, the frames the source holds, at least 1.
        frames: T, the frames wanted, at least 1.

    Returns:
        Shape (T,), int64, non-decreasing.

    Raises:
        ValueError: n or T is below 1.
    """
    if frames < 1:
        raise ValueError(f"frames is {frames}: ask for at least 1 frame")
    if available < 1:
        raise ValueError("the clip holds no frame: at least 1 is needed")
    return np.arange(frames, dtype=np.int64) * (available - 1) // max(frames - 1, 1)


def evenly(frames: int) -> Choose:
    """Choose `frames` frames by :func:`sample_indices`, whatever their times."""
    return lambda available, times: sample_indices(available, frames)


def fit_frame(frame: UInt8Array, size: FrameSize, box: Box | None = None) -> UInt8Array:
    """Crop a frame, turn grey into RGB and resize it.

    Bilinear with antialiasing (the filter widens with the reduction, so that fine speckle is
    averaged, not skipped). The aspect ratio is not kept, as in the paper.

    Args:
        frame: shape (H, W) or (H, W, 3), uint8.
        size: side of the result in pixels, or its (height, width).
        box: the part to keep, or None for all of it.

    Returns:
        Shape (height, width, 3), uint8.
    """
    target = (size, size) if isinstance(size, int) else size
    if box is not None:
        frame = frame[box.top : box.bottom, box.left : box.right]
    planes = torch.from_numpy(np.array(frame, order="C"))  # a copy: the source may be read-only
    planes = planes[None] if planes.ndim == 2 else planes.permute(2, 0, 1)
    if planes.shape[1:] != target:
        planes = F.interpolate(planes[None], size=target, mode="bilinear", antialias=True)[0]
    return planes.expand(3, *target).permute(1, 2, 0).contiguous().numpy()


def fit_mask(
    mask: NDArray[np.bool_], size: FrameSize, box: Box | None = None
) -> NDArray[np.bool_]:
    """Crop a mask and resize it to the nearest pixel, so that it stays a mask (IN3).

    Args:
        mask: shape (H, W), bool, in the pixels of a whole frame.
        size: side of the result in pixels, or its (height, width).
        box: the part to keep, or None for all of it.

    Returns:
        Shape (height, width), bool, aligned with what `fit_frame` makes of the frame.
    """
    target = (size, size) if isinstance(size, int) else size
    if box is not None:
        mask = mask[box.top : box.bottom, box.left : box.right]
    planes = torch.from_numpy(np.array(mask, dtype=np.uint8, order="C"))[None, None]
    # "nearest-exact" samples pixel centres; "nearest" would move the mask by half a pixel.
    fitted = F.interpolate(planes, size=target, mode="nearest-exact")[0, 0].numpy()
    return np.asarray(fitted, dtype=np.bool_)


def half(height: int, width: int, side: str, box: Box | None = None) -> Box:
    """The left or right half of a frame, or of one part of it.

    Args:
        height: rows of the frame.
        width: columns of the frame.
        side: "left" or "right".
        box: the part to halve, or None for the whole frame.

    Returns:
        The half; of an odd number of columns the middle one belongs to neither.

    Raises:
        ValueError: the part is a single column wide.
    """
    left, top, right, bottom = Box(0, 0, width, height) if box is None else box
    columns = (right - left) // 2
    if columns < 1:
        raise ValueError(f"a frame {right - left} pixel wide has no halves: leave `view` out")
    if side == "left":
        return Box(left, top, left + columns, bottom)
    return Box(right - columns, top, right, bottom)
