"""A clip that is a folder of images, ordered by the numbers in their names."""

import re
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from asycmst.data.sampling import (
    Choose,
    Frames,
    FrameSize,
    Opened,
    Source,
    UInt8Array,
    fit_frame,
    half,
)

IMAGE_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff")


class UnreadableImage(ValueError):
    """An image that is broken, or not written to its end yet."""

    def __init__(self, path: Path) -> None:
        super().__init__(
            f"{path} cannot be read as an image: it is broken, cut off or of another format"
        )


def open_folder(path: Path, view: str | None = None) -> Opened:
    """Look at a folder of images: every header is read, no pixel is.

    Args:
        path: a folder of numbered images of one size; 9 comes before 10.
        view: "left" or "right" half of every image, None for all of it.

    Returns:
        The clip. It has no times; the frame numbers are the last numbers of the names, or None
        where those repeat.

    Raises:
        ImportError: pillow is not installed.
        ValueError: there is no image, or one is broken, not numbered, numbered as another one or
            of another size; reading raises it for broken pixels.
    """
    try:
        from PIL import Image
    except ImportError as error:
        raise ImportError(
            f"reading the images of {path.name} needs pillow, which is missing: pip install "
            '".[train]"'
        ) from error
    numbered = numbered_images(path)
    if not numbered:
        raise ValueError(
            f"the folder {path} holds no image: supported are {' '.join(IMAGE_SUFFIXES)}"
        )
    images = [numbered[number] for number in sorted(numbered)]
    first: tuple[int, int] | None = None
    for image_path in images:
        try:
            with Image.open(image_path) as image:
                width, height = image.size
        except (OSError, SyntaxError, Image.DecompressionBombError) as error:
            raise UnreadableImage(image_path) from error
        first = first or (height, width)
        if (height, width) != first:
            raise ValueError(
                f"{image_path} is {width} x {height} pixels and the first image of the folder "
                f"{first[1]} x {first[0]}: the frames of a clip share one size"
            )
    assert first is not None
    last = [number[-1] for number in sorted(numbered)]
    countable = len(set(last)) == len(last) and max(last) <= np.iinfo(np.int64).max
    source = Source(
        frames=len(images),
        times=None,
        size=first,
        box=None if view is None else half(*first, view),
        numbers=np.array(last, dtype=np.int64) if countable else None,
    )
    return Opened(source, partial(_read, images, source))


def _read(images: list[Path], source: Source, choose: Choose, size: FrameSize) -> Frames:
    indices = choose(source.frames, None)
    kept = {
        int(index): fit_frame(read_image(images[index]), size, source.box)
        for index in np.unique(indices)
    }
    return Frames(np.stack([kept[int(index)] for index in indices]), indices, None)


def read_image(path: Path) -> UInt8Array:
    """One image as uint8 RGB, shape (H, W, 3).

    Raises:
        UnreadableImage: the image is broken.
        ValueError: it holds several images, or has more than 8 bits.
    """
    from PIL import Image

    try:
        with Image.open(path) as image:
            return _rgb(image, path)
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise UnreadableImage(path) from error


def numbered_images(source: Path) -> dict[tuple[int, ...], Path]:
    """The images of a folder by all numbers in their names.

    Raises:
        ValueError: an image has no number, or that of another one.
    """
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
            names = " and ".join(sorted((str(path), str(images[number]))))
            raise ValueError(f"{names} have the same number: keep one of them")
        images[number] = path
    return images


def _rgb(image: Any, path: Path) -> UInt8Array:
    if getattr(image, "n_frames", 1) > 1:
        raise ValueError(f"{path} holds {image.n_frames} images: save one image per file")
    if image.mode.startswith(("I", "F")):
        raise ValueError(f"{path} is not an 8-bit image (mode {image.mode}): save it as 8-bit")
    return np.array(image.convert("RGB"), dtype=np.uint8)
