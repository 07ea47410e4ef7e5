"""Where the lesion of a case is: marked by a reader, by the model, or guessed."""

import math
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

Mask = NDArray[np.bool_]
Source = Literal["given", "predicted", "annotated", "relevance", "centre"]

_WORDS: dict[Source, str] = {
    "given": "given lesion",
    "predicted": "predicted lesion",
    "annotated": "annotated lesion",
    "relevance": "region of highest BUS relevance",
    "centre": "centre of the frame",
}


class Lesion(NamedTuple):
    """A region in every frame.

    Attributes:
        mask: bool, shape (T, H, W), not empty in any frame.
        source: who says so.
        notes: one line each, what to know about it.
    """

    mask: Mask
    source: Source
    notes: tuple[str, ...] = ()

    @property
    def words(self) -> str:
        """The source, for a legend."""
        return _WORDS[self.source]


def find_lesion(
    size: tuple[int, int, int],
    *,
    given: Mask | None = None,
    predicted: Mask | None = None,
    annotated: Mask | None = None,
    relevance: NDArray[Any] | None = None,
) -> Lesion:
    """The best known region: the given, predicted, annotated or most relevant one, or the centre.

    A frame in which the source marks nothing takes the mark of the nearest frame that has one.

    Args:
        size: (T, H, W).
        given: bool of that shape, what the reader of the case has marked.
        predicted: the same, the model's segmentation; None for a model without one.
        annotated: the same, what the data set says.
        relevance: the Grad-CAM++ maps of the BUS clip, same shape; of their mean over the frames
            the part above half of its maximum, connected to that maximum.

    Raises:
        ValueError: `given` marks nothing at all.
    """
    if given is not None:
        if not given.any():
            raise ValueError("the mask marks nothing: give one that is not 0 at the lesion")
        return _everywhere(given, "given")
    notes = ["the model has no segmentation"]
    if predicted is not None:
        if predicted.any():
            return _everywhere(predicted, "predicted")
        notes = ["the model's segmentation marks nothing"]
    if annotated is not None and annotated.any():
        return _everywhere(annotated, "annotated", f"{notes[0]}: the annotation is used instead")
    if relevance is not None and relevance.max() > 0:
        region = np.broadcast_to(_most_relevant(relevance.mean(axis=0)), size)
        words = f"{notes[0]}: the region of highest BUS relevance stands in for the lesion"
        return Lesion(region.copy(), "relevance", (words,))
    words = f"{notes[0]}: the centre of the frame stands in for the lesion"
    return Lesion(np.broadcast_to(_centre(*size[1:]), size).copy(), "centre", (words,))


def token_areas(mask: Mask, grid: tuple[int, int]) -> Tensor:
    """The share of the lesion in every token's part of its frame.

    Args:
        mask: bool, shape (T, H, W).
        grid: (h, w), the tokens of a frame.

    Returns:
        float64, shape (T, h * w), in [0, 1], place n = row * w + column.
    """
    areas = F.adaptive_avg_pool2d(torch.from_numpy(mask).double()[:, None], grid)
    return areas[:, 0].flatten(1)


def _everywhere(mask: Mask, source: Source, *notes: str) -> Lesion:
    marked = np.flatnonzero(mask.any(axis=(1, 2)))
    frames = np.arange(len(mask))
    nearest = marked[np.abs(frames[:, None] - marked).argmin(axis=1)]
    if len(marked) < len(frames):
        found = f"{len(frames) - len(marked)} of {len(frames)} frames have no mark of their own"
        notes = (*notes, f"{found} and take that of the nearest frame")
    return Lesion(mask[nearest], source, notes)


def _most_relevant(relevance: NDArray[Any]) -> Mask:
    from scipy.ndimage import label

    parts, _ = label(relevance >= relevance.max() / 2)
    region: Mask = parts == parts.flat[int(relevance.argmax())]
    return region


def _centre(height: int, width: int) -> Mask:
    """An ellipse half as wide and as high as the frame."""
    y, x = np.mgrid[:height, :width] + 0.5
    region: Mask = np.hypot((y - height / 2) / height, (x - width / 2) / width) <= 1 / 4
    if not region.any():
        region[math.floor(height / 2), math.floor(width / 2)] = True
    return region
