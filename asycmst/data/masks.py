"""Annotated masks of a clip: a folder of images, or contours in a JSON file.

A folder holds one PNG per annotated frame, named by the number of the frame (00012.png), white
inside the nodule and black outside. A JSON file holds closed contours in the pixels of a whole
source frame, x to the right and y down from the upper left corner of the frame:

    {"size": [width, height], "frames": {"12": [[[x, y], [x, y], [x, y]]], "30": []}}

Each frame has a list of contours and its mask is what any of them encloses; an empty list says
that the frame was looked at and shows no nodule. Frames count from 0; those of a folder of images
have the numbers in the names of the images.
"""

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asycmst.data.contours import contour_mask
from asycmst.data.pairs import Pair
from asycmst.data.sampling import FrameSize, Source, fit_mask

Mask = NDArray[np.bool_]


class Masks:
    """The annotated frames of one clip.

    Attributes:
        frames: numbers of the annotated frames, ascending.
    """

    def __init__(self, images: Mapping[int, Path], contours: Mapping[int, list[Any]]) -> None:
        self._images = images
        self._contours = contours
        self._size: tuple[int, int] | None = None
        self.frames = tuple(sorted((*images, *contours)))

    @classmethod
    def of_contours(cls, size: tuple[int, int], contours: Mapping[int, list[Any]]) -> "Masks":
        """Contours of frames of `size` (height, width), by frame number."""
        masks = cls({}, contours)
        masks._size = size
        return masks

    def indices(self, source: Source) -> dict[int, int]:
        """Which frame of a clip each annotated frame number is, by index from 0.

        Raises:
            ValueError: the clip has no frame of that number, or frames of another size.
        """
        if self._size not in (None, source.size):
            raise ValueError(
                f"the contours are drawn on frames of {_pixels(self._size)}, the BUS clip has "
                f"{_pixels(source.size)}: give the size that they were drawn on"
            )
        numbers = range(source.frames) if source.numbers is None else source.numbers.tolist()
        places = {number: index for index, number in enumerate(numbers)}
        lost = [number for number in self.frames if number not in places]
        if lost:
            raise ValueError(
                f"{len(lost)} of {len(self.frames)} masks match no frame of the BUS clip (such as "
                f"{lost[0]}); its frames are {min(places)} to {max(places)}"
            )
        return {places[number]: number for number in self.frames}

    def at(self, number: int, height: int, width: int) -> Mask:
        """The mask of an annotated frame, shape (height, width), bool.

        Raises:
            ValueError: the image or a contour is broken, or the image is of another size.
        """
        if number in self._images:
            return _read_image(self._images[number], height, width)
        mask = np.zeros((height, width), dtype=np.bool_)
        for contour in self._contours[number]:
            try:
                mask |= contour_mask(contour, height, width)
            except (ValueError, TypeError) as error:
                raise ValueError(f"frame {number}: {error}") from error
        return mask


def read_masks(path: str | os.PathLike[str]) -> Masks:
    """The masks of a clip; images are read when asked for.

    Args:
        path: a folder of images or a JSON file, as described above.

    Raises:
        FileNotFoundError: nothing exists at `path`.
        ValueError: the folder holds no numbered image, or the JSON is not as described.
    """
    source = Path(path)
    if not source.exists():
        raise FileNotFoundError(f"no mask at {source}: check the path and its spelling")
    return _read_folder(source) if source.is_dir() else _read_json(source)


def sampled_masks(masks: Masks, pair: Pair, size: FrameSize) -> dict[int, Mask]:
    """The masks of those sampled BUS frames that have one, by slot from 0 to T - 1.

    Args:
        masks: of the BUS source of `pair`.
        pair: read by :func:`asycmst.data.pairs.load_pair` with `masks.indices`.
        size: of the frames of `pair`.

    Raises:
        ValueError: as `Masks.indices` and `Masks.at`.
    """
    numbers = masks.indices(pair.bus_source)
    box = pair.bus_source.box
    return {
        slot: fit_mask(masks.at(numbers[index], *pair.bus_source.size), size, box)
        for slot, index in enumerate(pair.bus.source_indices.tolist())
        if index in numbers
    }


def _read_folder(folder: Path) -> Masks:
    images: dict[int, Path] = {}
    for path in folder.iterdir():
        if path.suffix.lower() != ".png" or path.name.startswith("."):
            continue
        digits = re.findall(r"\d+", path.stem)
        if not digits:
            raise ValueError(f"{path} has no number in its name: name it by its frame")
        number = int(digits[-1])
        if number in images:
            raise ValueError(f"{path} and another image have the number {number}: keep one")
        images[number] = path
    if not images:
        raise ValueError(f"the folder {folder} holds no PNG: name masks by frame, as 00012.png")
    return Masks(images, {})


def _read_json(path: Path) -> Masks:
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
        width, height = (int(side) for side in content["size"])
        contours = {int(number): list(found) for number, found in content["frames"].items()}
        if width < 1 or height < 1 or not contours or min(contours) < 0:
            raise ValueError
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path} does not describe contours: write "
            '{"size": [width, height], "frames": {"12": [[[x, y], ...]]}}'
        ) from error
    return Masks.of_contours((height, width), contours)


def _read_image(path: Path, height: int, width: int) -> Mask:
    from PIL import Image

    try:
        with Image.open(path) as image:
            # A palette's entries are colours to look at; the mask is in its indices.
            values = np.asarray(image if image.mode == "P" else image.convert("L"))
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path} cannot be read as an image: it is broken or cut off") from error
    if values.shape != (height, width):
        raise ValueError(
            f"{path} is {_pixels(values.shape)} and the frame {_pixels((height, width))}: a mask "
            "covers the whole source frame"
        )
    found = set(np.unique(values).tolist())
    if not (found <= {0, 255} or found <= {0, 1}):
        odd = min(found - {0, 255})
        raise ValueError(f"{path} holds the value {odd}: a mask is 0 outside and 255 inside")
    mask: Mask = values > 0
    return mask


def _pixels(size: Any) -> str:
    return f"{size[1]} x {size[0]} pixels"
