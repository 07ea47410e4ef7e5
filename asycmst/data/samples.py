"""Phantom samples as the tensors that a model and its loss take."""

from typing import Literal, Protocol, TypedDict

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from asycmst.config import Modality
from asycmst.data.phantom import PhantomConfig, PhantomSample, make_phantom


class Item(TypedDict):
    """One paired clip with its labels.

    Attributes:
        bus: float32 (3, T, H, W) in [0, 1], the grey clip repeated over three channels.
        ceus: float32 (3, T, H, W) in [0, 1].
        mask: bool (T, H, W), the nodule; False where no frame is annotated.
        mask_valid: bool (T,), True where a frame is annotated.
        label: int64 (), 1 = malignant.
        id: names the sample across runs: domain, seed and index.
    """

    bus: torch.Tensor
    ceus: torch.Tensor
    mask: torch.Tensor
    mask_valid: torch.Tensor
    label: torch.Tensor
    id: str


class LabelledDataset(Protocol):
    """Samples whose classes and masks are known without their clips."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Item: ...

    def labels(self) -> NDArray[np.int64]: ...

    def masks(self, index: int) -> tuple[torch.Tensor, torch.Tensor]: ...

    def nodule_share(self) -> float: ...


class PhantomDataset(Dataset[Item]):
    """Phantom samples of one seed, drawn once and kept in memory as bytes.

    A sample depends on (config, seed, index) only, so a dataset of 40 samples holds the first 40
    of one of 400, and splits that must not share a patient take different seeds.

    Args:
        config: the physics and the sizes.
        seed: seed of the split.
        size: number of samples.
        masks_of: the clip whose nodule `mask` is; they differ by the misregistration.

    Raises:
        ValueError: `size` is below 1.
    """

    def __init__(
        self, config: PhantomConfig, seed: int, size: int, masks_of: Modality = "bus"
    ) -> None:
        if size < 1:
            raise ValueError(f"size={size} samples; a dataset needs at least 1")
        self.config = config
        self.seed = seed
        self.masks_of = masks_of
        self._samples = [make_phantom(config, seed, index) for index in range(size)]

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, index: int) -> Item:
        sample = self._samples[index]
        bus = _to_float(sample.bus)[None].expand(3, -1, -1, -1)
        mask, mask_valid = self.masks(index)
        return Item(
            bus=bus.contiguous(),
            ceus=_to_float(sample.ceus).permute(3, 0, 1, 2).contiguous(),
            mask=mask,
            mask_valid=mask_valid,
            label=torch.tensor(sample.label, dtype=torch.int64),
            id=self._id(index),
        )

    def masks(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        """`mask` and `mask_valid` of an item."""
        mask = torch.tensor(self._nodule(self._samples[index]))
        return mask, torch.ones(len(mask), dtype=torch.bool)

    def sample(self, index: int) -> PhantomSample:
        """The phantom behind an item, with the decoy's mask, the times and the latents."""
        return self._samples[index]

    def nodule_share(self) -> float:
        """Share of nodule pixels among all pixels of all samples."""
        return float(np.mean([self._nodule(sample).mean() for sample in self._samples]))

    def ids(self) -> list[str]:
        """The id of each sample."""
        return [self._id(index) for index in range(len(self))]

    def _nodule(self, sample: PhantomSample) -> NDArray[np.bool_]:
        return sample.mask if self.masks_of == "bus" else sample.ceus_mask

    def _id(self, index: int) -> str:
        return f"{self.config.domain}-{self.seed}-{index}"

    def labels(self) -> NDArray[np.int64]:
        """int64 (size,), 1 = malignant."""
        return np.array([sample.label for sample in self._samples], dtype=np.int64)


def split_seed(seed: int, split: Literal["train", "validation", "test"]) -> int:
    """The phantom seed of a split; no two splits of any two seeds share one."""
    return 3 * seed + ("train", "validation", "test").index(split)


def _to_float(pixels: NDArray[np.uint8]) -> torch.Tensor:
    return torch.from_numpy(pixels).to(torch.float32).div_(255.0)
