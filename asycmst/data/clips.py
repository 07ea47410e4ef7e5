"""One ultrasound clip from a DICOM, a video, a folder of images or a NumPy file."""

import os
import re
import warnings
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from asycmst.data import dicom, video
from asycmst.data.sampling import (
    FloatArray,
    Frames,
    FrameSize,
    IntArray,
    UInt8Array,
    fit_frame,
    half,
    sample_indices,
)

IMAGE_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff")
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

    Reads a multi-frame DICOM (.dcm, .dicom or no suffix), a video (.mp4, .avi, .mov, .mkv,
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
    if view not in (None, "left", "right"):
        raise ValueError(f'view is {view!r}: allowed are "left", "right" and None (all of it)')
    source = Path(path)
    if not source.exists():
        raise FileNotFoundError(f"no file or folder at {source}: check the path and its spelling")
    read = _read(source, frames, size, view)
    for note in read.notes:
        warnings.warn(f"{source.name}: {note}", UserWarning, stacklevel=2)
    return Clip(read.frames, read.indices, read.times, source.name, read.notes)


def clip_to_tensor(clip: Clip) -> Tensor:
    """The clip as the model takes it: shape (3, T, height, width), float32 in [0, 1]."""
    planes = torch.from_numpy(clip.frames).permute(3, 0, 1, 2)
    return planes.to(torch.float32, memory_format=torch.contiguous_format) / 255.0


def _read(source: Path, frames: int, size: FrameSize, view: View | None) -> Frames:
    if source.is_dir():
        return _read_folder(source, frames, size, view)
    if source.stat().st_size == 0:
        raise ValueError(f"{source} is empty (0 bytes): copy or export it again")
    suffix = source.suffix.lower()
    if suffix == ".npy":
        return _read_npy(source, frames, size, view)
    if suffix in video.SUFFIXES:
        return video.read_video(source, frames, size, view)
    if suffix in dicom.SUFFIXES or dicom.is_dicom(source):
        return dicom.read_dicom(source, frames, size, view)
    if suffix in IMAGE_SUFFIXES:
        raise ValueError(f"{source} is a single image: give the folder that holds all its frames")
    supported = " ".join(sorted((*video.SUFFIXES, *dicom.SUFFIXES, ".npy")))
    raise ValueError(
        f"{source.name} has the suffix {suffix or '(none)'}: supported are {supported} and a "
        "folder of images"
    )


def _read_npy(source: Path, frames: int, size: FrameSize, view: View | None) -> Frames:
    try:
        array = np.load(source, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise ValueError(
            f"{source} cannot be read as a NumPy array: it is broken, cut off or holds Python "
            "objects; save it again with numpy.save"
        ) from error
    grey = array.ndim == 3
    if array.dtype != np.uint8 or not (grey or (array.ndim == 4 and array.shape[3] == 3)):
        raise ValueError(
            f"{source} holds {array.dtype} of shape {array.shape}: save uint8 of shape (T, H, W) "
            "or (T, H, W, 3)"
        )
    if array.size == 0:
        raise ValueError(f"{source} holds no pixel, its shape is {array.shape}: save a clip")
    indices = sample_indices(len(array), frames)
    box = None if view is None else half(array.shape[1], array.shape[2], view)
    kept = {int(index): fit_frame(array[index], size, box) for index in np.unique(indices)}
    return Frames(np.stack([kept[int(index)] for index in indices]), indices, None)


def _read_folder(source: Path, frames: int, size: FrameSize, view: View | None) -> Frames:
    try:
        from PIL import Image
    except ImportError as error:
        raise ImportError(
            f"reading the images of {source.name} needs pillow, which is missing: pip install "
            '".[train]"'
        ) from error
    images = _numbered_images(source)
    indices = sample_indices(len(images), frames)
    wanted = set(indices.tolist())
    kept: dict[int, UInt8Array] = {}
    first: tuple[int, int] | None = None
    for index, path in enumerate(images):
        try:
            with Image.open(path) as image:
                # Opening reads the size only; the pixels of frames not sampled stay on disk.
                width, height = image.size
                pixels = _rgb(image, path) if index in wanted else None
        except (OSError, SyntaxError, Image.DecompressionBombError) as error:
            raise ValueError(
                f"{path} cannot be read as an image: it is broken, cut off or of another format"
            ) from error
        first = first or (width, height)
        if (width, height) != first:
            raise ValueError(
                f"{path} is {width} x {height} pixels and the first image of the folder "
                f"{first[0]} x {first[1]}: the frames of a clip share one size"
            )
        if pixels is not None:
            box = None if view is None else half(height, width, view)
            kept[index] = fit_frame(pixels, size, box)
    return Frames(np.stack([kept[int(index)] for index in indices]), indices, None)


def _numbered_images(source: Path) -> list[Path]:
    """The images of a folder by the numbers in their names: 9 comes before 10."""
    images: dict[tuple[int, ...], Path] = {}
    for path in source.iterdir():
        if path.suffix.lower() not in IMAGE_SUFFIXES or path.name.startswith("."):
            continue
        number = tuple(int(digits) for digits in re.findall(r"\d+", path.stem))
        if not number:
            raise ValueError(
                f"{path} has no number in its name: number the frames of a clip, or move the "
                "file elsewhere"
            )
        if number in images:
            names = " and ".join(sorted((path.name, images[number].name)))
            raise ValueError(f"{names} in {source} have the same number: keep one of them")
        images[number] = path
    if not images:
        raise ValueError(
            f"the folder {source} holds no image: supported are {' '.join(IMAGE_SUFFIXES)}"
        )
    return [images[number] for number in sorted(images)]


def _rgb(image: Any, path: Path) -> UInt8Array:
    if getattr(image, "n_frames", 1) > 1:
        raise ValueError(f"{path} holds {image.n_frames} images: save one image per file")
    if image.mode.startswith(("I", "F")):
        raise ValueError(f"{path} is not an 8-bit image (mode {image.mode}): save it as 8-bit")
    return np.array(image.convert("RGB"), dtype=np.uint8)
