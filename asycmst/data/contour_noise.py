"""Contours drawn otherwise on purpose, to see what they cost (Section 4.7, Fig 11b).

A control point p moves along the line to the centroid c of its contour: c + (1 + delta) (p - c).
A mask of pixels has its outline for a contour, which passes midway between the centres of pixels
inside and outside; a nodule that the border of the frame cuts is what is seen of it.
"""

import hashlib
import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Literal, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from asycmst.data.contours import contour_mask
from asycmst.data.samples import Item, LabelledDataset

ContourNoise = Literal["jitter", "shrink", "expand"]

SHIFT = 0.15
CONTROL_POINTS = 32

Points = NDArray[np.float64]
Mask = NDArray[np.bool_]


def outlines(mask: Mask) -> list[list[Points]]:
    """The contours of the connected parts of a mask.

    Args:
        mask: bool, shape (H, W).

    Returns:
        For each part its outer contour, then those of its holes: points (K, 2), x and y in
        pixels as `asycmst.data.contours.contour_mask` takes them, which gives the mask again.
    """
    import contourpy  # comes with matplotlib

    height, width = mask.shape
    contours = contourpy.contour_generator(
        x=np.arange(-1, width + 1) + 0.5,
        y=np.arange(-1, height + 1) + 0.5,
        z=np.pad(mask.astype(np.float64), 1),
        fill_type=contourpy.FillType.OuterOffset,
    )
    found = contours.filled(0.5, 2.0)
    # They are closed: the first point comes again as the last.
    return [
        [points[start : end - 1] for start, end in pairwise(places)]
        for points, places in zip(*cast(Any, found), strict=True)
    ]


def centroid(points: Points) -> Points:
    """The centre of the area that a contour encloses, (x, y), by the shoelace formula."""
    x, y = (points - points[0]).T
    cross = x * np.roll(y, -1) - np.roll(x, -1) * y
    moments = [((side + np.roll(side, -1)) * cross).sum() for side in (x, y)]
    centre: Points = points[0] + np.array(moments) / (3 * cross.sum())
    return centre


def area(points: Points) -> float:
    """The area that a contour encloses, in pixels, by the shoelace formula."""
    x, y = (points - points[0]).T
    return abs(float((x * np.roll(y, -1) - np.roll(x, -1) * y).sum())) / 2


def moved(
    points: Points, centre: Points, noise: ContourNoise, generator: np.random.Generator
) -> Points:
    """A contour as another reader might have drawn it.

    Args:
        points: shape (K, 2), the control points.
        centre: shape (2,), what they move towards or away from.
        noise: "jitter" draws delta of each point evenly from [-0.15, 0.15]; "shrink" takes -0.15
            for all and "expand" 0.15, which changes the area to 0.7225 and 1.3225 of itself.
        generator: of "jitter".
    """
    shifts = {
        "jitter": generator.uniform(-SHIFT, SHIFT, len(points)),
        "shrink": np.full(len(points), -SHIFT),
        "expand": np.full(len(points), SHIFT),
    }
    return centre + (1 + shifts[noise])[:, None] * (points - centre)


def control_points(outline: Points, count: int = CONTROL_POINTS) -> Points:
    """Points (K, 2) at equal distances along an outline, `count` of them or as many as it has."""
    closed = np.concatenate([outline, outline[:1]])
    along = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(closed, axis=0), axis=1))])
    places = np.linspace(0, along[-1], min(count, len(outline)), endpoint=False)
    return np.stack([np.interp(places, along, side) for side in closed.T], axis=1)


def perturbed(mask: Mask, noise: ContourNoise, generator: np.random.Generator) -> Mask:
    """A mask with its contours drawn otherwise; each connected part moves about its own centroid.

    For "jitter" a contour is drawn anew through 32 control points; straight lines join them.

    Args:
        mask: bool, shape (H, W).
        noise: how the contours are changed.
        generator: of "jitter".

    Returns:
        bool, shape (H, W). What an expanded contour has outside the frame is cut off.
    """
    changed = np.zeros_like(mask)
    for contours in outlines(mask):
        centre = centroid(contours[0])
        points = (control_points(x) if noise == "jitter" else x for x in contours)
        part, *holes = (
            contour_mask(moved(x, centre, noise, generator), *mask.shape) for x in points
        )
        for hole in holes:
            part &= ~hole
        changed |= part
    return changed


class PerturbedContours(Dataset[Item]):
    """A dataset whose contours were drawn otherwise, all of them, once and for all.

    Args:
        dataset: the samples with their contours.
        ids: of its samples, in order; what is drawn depends on them, not on the order.
        noise: how the contours are changed.
        seed: of "jitter".

    Raises:
        ValueError: no frame is annotated.
    """

    def __init__(
        self, dataset: LabelledDataset, ids: Sequence[str], noise: ContourNoise, seed: int
    ) -> None:
        self.dataset = dataset
        self._masks: list[tuple[NDArray[np.uint8], torch.Tensor, torch.Size]] = []
        nodule = annotated = 0
        for index, id_ in enumerate(ids):
            mask, valid = dataset.masks(index)
            generator = np.random.Generator(np.random.PCG64(_seed(seed, id_)))
            changed = np.array(
                [perturbed(frame, noise, generator) for frame in mask[valid].numpy()], np.bool_
            )
            nodule += int(changed.sum())
            annotated += math.prod(mask.shape[1:]) * int(valid.sum())
            self._masks.append((np.packbits(changed), valid, mask.shape))
        if not annotated:
            raise ValueError(
                "data.contour_noise changes the contours of the training cases, of which none has "
                "any; set it to null"
            )
        self._share = nodule / annotated

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Item:
        item = self.dataset[index]
        item["mask"], item["mask_valid"] = self.masks(index)
        return item

    def labels(self) -> NDArray[np.int64]:
        """int64 (len,), 1 = malignant."""
        return self.dataset.labels()

    def masks(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        """`mask` and `mask_valid` of an item."""
        bits, valid, shape = self._masks[index]
        mask = torch.zeros(shape, dtype=torch.bool)
        places = int(valid.sum()) * math.prod(shape[1:])
        flat = np.unpackbits(bits, count=places).view(np.bool_)
        mask[valid] = torch.from_numpy(flat).reshape(-1, *shape[1:])
        return mask, valid.clone()

    def nodule_share(self) -> float:
        """Share of nodule pixels among all pixels of annotated frames."""
        return self._share


def _seed(seed: int, id_: str) -> int:
    digest = hashlib.sha256(f"contour noise/{seed}/{id_}".encode()).digest()
    return int.from_bytes(digest[:16], "big")
