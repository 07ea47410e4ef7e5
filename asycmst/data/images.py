"""Frames of clips for networks to which each frame is an image of its own."""

import numpy as np
import torch
from numpy.typing import NDArray

from asycmst.data.samples import Item, LabelledDataset


class ImagesOfClips:
    """A few evenly spaced frames of each clip, the same ones every time.

    Of T frames the k-th of n is number floor((k + 1/2) T / n): one frame is the middle one, and
    a clip of n frames or fewer stays whole.

    Args:
        dataset: the clips.
        frames: n, of each clip.
    """

    def __init__(self, dataset: LabelledDataset, frames: int) -> None:
        self.dataset = dataset
        self.frames = frames

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Item:
        item = self.dataset[index]
        chosen = self._chosen(item["mask"].shape[0])
        return Item(
            bus=item["bus"][:, chosen],
            ceus=item["ceus"][:, chosen],
            mask=item["mask"][chosen],
            mask_valid=item["mask_valid"][chosen],
            label=item["label"],
            id=item["id"],
        )

    def labels(self) -> NDArray[np.int64]:
        """int64 (len,), 1 = malignant."""
        return self.dataset.labels()

    def masks(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        """`mask` and `mask_valid` of an item."""
        mask, valid = self.dataset.masks(index)
        chosen = self._chosen(len(mask))
        return mask[chosen], valid[chosen]

    def nodule_share(self) -> float:
        """Share of nodule pixels among all pixels of annotated frames of the whole clips."""
        return self.dataset.nodule_share()

    def _chosen(self, length: int) -> list[int]:
        if length <= self.frames:
            return list(range(length))
        return [(2 * k + 1) * length // (2 * self.frames) for k in range(self.frames)]
