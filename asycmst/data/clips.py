"""One ultrasound clip from a DICOM, a video, a folder of images or a NumPy file."""

import os
import warnings
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from asycmst.data import dicom, video
from asycmst.data.frame_folder import IMAGE_SUFFIXES, open_folder
from asycmst.data.sampling import (
    Choose,
    FloatArray,
    Frames,
    FrameSize,
    IntArray,
    Opened,
    Source,
    UInt8Array,
    evenly,
    fit_frame,
    half,
)

View = Literal["left", "right"]


class Clip(NamedTuple):
    """A clip sampled to T frames.

    Attributes:
        frames: shape (T, height, width, 3), uint8, RGB.
        source_indices: shape (T,), int64, the frame of the source each one was taken from.
        times: shape (T,), float64, seconds after the source's first frame; None where the
            source states no time.
        source: the file or folder name, without its folder.
        notes: one line each, what a user should know about how the source was read.
    """

    frames: UInt8Array
    source_indices: IntArray
    times: FloatArray | None
    source: str
    notes: tuple[str, ...] = ()


def load_clip(
    path: str | os.PathLike[str], frames: int, size: FrameSize, *, view: View | None = None
) -> Clip:
    """Read a clip and sample it to `frames` frames of `size` pixels.

    Reads a multi-frame DICOM (.dcm, .dicom or no suffix), a video (.mp4, .avi, .mov, .mkv, .ts,
    .webm), a folder of images ordered by the numbers in their names, or a .npy array of uint8
    with shape (T, H, W) or (T, H, W, 3). Frame j of T is source frame floor(j (n - 1) / (T - 1)).
    Each note of the result is also given as one warning.

    Args:
        path: the file or folder.
        frames: T, the frames wanted; a shorter source repeats frames.
        size: side of the returned frames in pixels, or their (height, width).
        view: "left" or "right" where scanner or export put B-mode and contrast side by side in
            one frame: the region of that side in a DICOM that describes two, else that half.

    Returns:
        The clip. Nothing of a DICOM header but times and regions is looked at.

    Raises:
        FileNotFoundError: nothing exists at `path`.
        ImportError: the library for this kind of file is not installed.
        ValueError: the kind of file is not supported, or the file is broken or holds no clip.
    """
    if frames < 1 or (size if isinstance(size, int) else min(size)) < 1:
        raise ValueError(f"frames={frames}, size={size}: all must be at least 1")
    read = open_clip(path, view).read(evenly(frames), size)
    source = Path(path)
    for note in read.notes:
        warnings.warn(f"{source.name}: {note}", UserWarning, stacklevel=2)
    return Clip(read.frames, read.indices, read.times, source.name, read.notes)


def clip_to_tensor(clip: Clip) -> Tensor:
    """The clip as the model takes it: shape (3, T, height, width), float32 in [0, 1]."""
    return frames_to_tensor(clip.frames)


def frames_to_tensor(frames: UInt8Array) -> Tensor:
    """Frames (T, height, width, 3), uint8, as :func:`clip_to_tensor` gives those of a clip."""
    planes = torch.from_numpy(frames).permute(3, 0, 1, 2)
    return planes.to(torch.float32, memory_format=torch.contiguous_format) / 255.0


def open_clip(path: str | os.PathLike[str], view: View | None = None) -> Opened:
    """Look at a clip without decoding it: frames, times and size, and how to read it.

    Args:
        path: the file or folder, of any kind that `load_clip` reads.
        view: as for `load_clip`.

    Raises:
        FileNotFoundError, ImportError, ValueError: as `load_clip` does.
    """
    if view not in (None, "left", "right"):
        raise ValueError(f'view is {view!r}: allowed are "left", "right" and None (all of it)')
    source = Path(path)
    if not source.exists():
        raise FileNotFoundError(f"no file or folder at {source}: check the path and its spelling")
    if source.is_dir():
        return open_folder(source, view)
    if source.stat().st_size == 0:
        raise ValueError(f"{source} is empty (0 bytes): copy or export it again")
    suffix = source.suffix.lower()
    if suffix == ".npy":
        return _open_npy(source, view)
    if suffix in video.SUFFIXES:
        return video.open_video(source, view)
    if suffix in dicom.SUFFIXES or dicom.is_dicom(source):
        return dicom.open_dicom(source, view)
    if suffix in IMAGE_SUFFIXES:
        raise ValueError(f"{source} is a single image: give the folder that holds all its frames")
    supported = " ".join(sorted((*video.SUFFIXES, *dicom.SUFFIXES, ".npy")))
    raise ValueError(
        f"{source} has the suffix {suffix or '(none)'}: supported are {supported} and a "
        "folder of images"
    )


def _open_npy(path: Path, view: View | None) -> Opened:
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise ValueError(
            f"{path} cannot be read as a NumPy array: it is broken, cut off or holds Python "
            "objects; save it again with numpy.save"
        ) from error
    grey = array.ndim == 3
    if array.dtype != np.uint8 or not (grey or (array.ndim == 4 and array.shape[3] == 3)):
        raise ValueError(
            f"{path} holds {array.dtype} of shape {array.shape}: save uint8 of shape (T, H, W) "
            "or (T, H, W, 3)"
        )
    if array.size == 0:
        raise ValueError(f"{path} holds no pixel, its shape is {array.shape}: save a clip")
    height, width = array.shape[1:3]
    box = None if view is None else half(height, width, view)

    def read(choose: Choose, size: FrameSize) -> Frames:
        indices = choose(len(array), None)
        kept = {int(index): fit_frame(array[index], size, box) for index in np.unique(indices)}
        return Frames(np.stack([kept[int(index)] for index in indices]), indices, None)

    return Opened(Source(len(array), None, (height, width), box), read)
