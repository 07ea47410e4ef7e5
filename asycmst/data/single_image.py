"""One B-mode image, from an image file or from the middle of a clip."""

import os
from pathlib import Path

import numpy as np

from asycmst.data.clips import Clip, View, open_clip
from asycmst.data.frame_folder import IMAGE_SUFFIXES, read_image
from asycmst.data.sampling import FloatArray, FrameSize, IntArray, fit_frame, half


def load_image(path: str | os.PathLike[str], size: FrameSize, *, view: View | None = None) -> Clip:
    """Read an image, or the middle frame of a clip, as a clip of one frame.

    Args:
        path: an image file, or anything that :func:`asycmst.data.clips.load_clip` reads.
        size: side of the image in pixels, or its (height, width).
        view: the half of the image to keep, None for all of it.

    Raises:
        FileNotFoundError: nothing exists at `path`.
        ImportError: a library that reads this kind of file is not installed.
        ValueError: it cannot be read as an image or a clip.
    """
    source = Path(path)
    if source.suffix.lower() in IMAGE_SUFFIXES and source.is_file():
        image = read_image(source)
        height, width = image.shape[:2]
        box = None if view is None else half(height, width, view)
        return Clip(fit_frame(image, size, box)[None], np.zeros(1, np.int64), None, source.name)
    read = open_clip(source, view).read(_middle, size)
    return Clip(read.frames, read.indices, read.times, source.name, read.notes)


def _middle(frames: int, times: FloatArray | None) -> IntArray:
    return np.array([frames // 2], dtype=np.int64)
