"""Wrong class labels on purpose, to see what they cost (Section 4.7, Fig 11a)."""

import hashlib
import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from asycmst.data.samples import Item, LabelledDataset


def inverted_cases(labels: Mapping[str, int], fraction: float, seed: int) -> list[str]:
    """The cases whose labels are inverted: the same fraction of each class.

    Which ones depends on their ids and the seed alone, not on their order, and those of a smaller
    fraction are among those of a larger one.

    Args:
        labels: 0 or 1 of each case, by id.
        fraction: in [0, 1]; of n cases of a class floor(fraction * n + 1/2) are inverted.
        seed: of the choice.

    Returns:
        Their ids, in the order of `labels`.
    """
    chosen: set[str] = set()
    for label in (0, 1):
        ids = [id_ for id_, given in labels.items() if given == label]
        # The sum is rounded first: 0.15 * 10 must not fall below a half by the last bit.
        count = math.floor(round(fraction * len(ids) + 0.5, 9))
        chosen |= set(sorted(ids, key=lambda id_: _draw(seed, id_))[:count])
    return [id_ for id_ in labels if id_ in chosen]


class InvertedLabels(Dataset[Item]):
    """A dataset in which the labels of some cases are wrong.

    Args:
        dataset: the samples with their right labels.
        ids: of its samples, in order.
        inverted: the ids of those whose label is exchanged.
    """

    def __init__(
        self, dataset: LabelledDataset, ids: Sequence[str], inverted: Sequence[str]
    ) -> None:
        self.dataset = dataset
        self._wrong = np.isin(np.array(ids, dtype=object), np.array(inverted, dtype=object))

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Item:
        item = self.dataset[index]
        if self._wrong[index]:
            item["label"] = 1 - item["label"]
        return item

    def labels(self) -> NDArray[np.int64]:
        """int64 (len,), the labels that are trained on."""
        return np.where(self._wrong, 1 - self.dataset.labels(), self.dataset.labels())

    def masks(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        """`mask` and `mask_valid` of an item."""
        return self.dataset.masks(index)

    def nodule_share(self) -> float:
        """Share of nodule pixels among all pixels of annotated frames."""
        return self.dataset.nodule_share()


def _draw(seed: int, id_: str) -> bytes:
    return hashlib.sha256(f"label noise/{seed}/{id_}".encode()).digest()
