"""A cache's cases as the tensors that a model and its loss take."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from asycmst.data.cache import CachedCase, read_cache
from asycmst.data.samples import Item


class CachedDataset(Dataset[Item]):
    """Cases of a cache, read from its files as they are asked for.

    Items are like those of `asycmst.data.samples.PhantomDataset`; `id` is the case's. Masks were
    drawn on BUS frames; they serve the CEUS frames too, which are of the same moments.

    Args:
        cache: a folder that `asycmst.data.cache.prepare` filled.
        ids: the cases to use, in this order; None for all, in the manifest's order.

    Raises:
        FileNotFoundError: there is no cache.
        ValueError: the cache is not finished or damaged, or an id is not in it or given twice.
    """

    def __init__(self, cache: str | os.PathLike[str], ids: Sequence[str] | None = None) -> None:
        self.cache = read_cache(cache)
        places = {case.id: place for place, case in enumerate(self.cache.cases)}
        wanted = list(places) if ids is None else list(ids)
        lost = [name for name in wanted if name not in places]
        if lost:
            raise ValueError(
                f"{len(lost)} of {len(wanted)} cases are not in the cache {self.cache.folder}, "
                f"such as {lost[0]!r}: prepare them, or leave them out"
            )
        if len(set(wanted)) < len(wanted):
            raise ValueError("a case is asked for twice: give every id once")
        self._places = [places[name] for name in wanted]

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> Item:
        place = self._places[index]
        mask, valid = self.masks(index)
        return Item(
            bus=self._clip(place, "bus.npy"),
            ceus=self._clip(place, "ceus.npy"),
            mask=mask,
            mask_valid=valid,
            label=torch.tensor(self.cache.cases[place].label, dtype=torch.int64),
            id=self.cache.cases[place].id,
        )

    def masks(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        """`mask` and `mask_valid` of an item, without reading its clips."""
        place = self._places[index]
        frames, (height, width) = self.cache.settings.frames, self.cache.settings.size
        annotated = self.cache.facts[place]["annotated"]
        mask = torch.zeros(frames, height, width, dtype=torch.bool)
        valid = torch.zeros(frames, dtype=torch.bool)
        if annotated:
            bits = self._load(place, "mask.npy", ((len(annotated), -(-height * width // 8)),))
            flat = np.unpackbits(bits, axis=1, count=height * width).view(np.bool_)
            mask[annotated] = torch.from_numpy(flat).reshape(-1, height, width)
            valid[annotated] = True
        return mask, valid

    def case(self, index: int) -> CachedCase:
        """The case of an item."""
        return self.cache.cases[self._places[index]]

    def times(self, index: int) -> tuple[list[float] | None, list[float] | None]:
        """Seconds of the T BUS and T CEUS frames after their clips' first; None if unknown."""
        facts = self.cache.facts[self._places[index]]
        return facts["bus_times_s"], facts["ceus_times_s"]

    def labels(self) -> NDArray[np.int64]:
        """int64 (len,), 1 = malignant."""
        labels = [self.cache.cases[place].label for place in self._places]
        return np.array(labels, dtype=np.int64)

    def nodule_share(self) -> float:
        """Share of nodule pixels among all pixels of annotated frames; NaN where none is."""
        facts = [self.cache.facts[place] for place in self._places]
        annotated = sum(len(one["annotated"]) for one in facts)
        if annotated == 0:
            return float("nan")
        return sum(one["nodule_share"] for one in facts) * self.cache.settings.frames / annotated

    def _clip(self, place: int, name: str) -> torch.Tensor:
        rest = (self.cache.settings.frames, *self.cache.settings.size)
        planes = self._load(place, name, ((1, *rest), (3, *rest)))
        clip = np.empty((3, *rest), np.float32)
        # By NumPy, in this thread: torch would start others for a millisecond's work, which takes
        # several times as long on a busy machine. A grey plane is repeated on the way.
        np.divide(planes, np.float32(255.0), out=clip)
        return torch.from_numpy(clip)

    def _load(
        self, place: int, name: str, shapes: tuple[tuple[int, ...], ...]
    ) -> NDArray[np.uint8]:
        path: Path = self.cache.entries[place] / name
        try:
            array: NDArray[np.uint8] = np.load(path, allow_pickle=False)
            if array.dtype != np.uint8 or array.shape not in shapes:
                raise ValueError
        except (OSError, ValueError, EOFError) as error:
            raise ValueError(
                f"case {self.cache.cases[place].id}: its {name} in the cache {self.cache.folder} "
                "is missing or damaged: run the same asycmst prepare again"
            ) from error
        return array
