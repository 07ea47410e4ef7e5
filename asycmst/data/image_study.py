"""A study of single B-mode images: the cases of a CSV, and the images as a network takes them."""

import csv
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from asycmst.data.clips import clip_to_tensor
from asycmst.data.lesion_mask import read_lesion_mask
from asycmst.data.manifest import LABELS
from asycmst.data.samples import Item
from asycmst.data.single_image import load_image

_NEEDED = ("id", "image", "label")
_WORDS = ", ".join(_NEEDED)


@dataclass(frozen=True)
class ImageCase:
    """One nodule: a B-mode image with its diagnosis.

    Attributes:
        id: names the case in every message and result.
        image: anything that :func:`asycmst.data.single_image.load_image` reads.
        label: 1 malignant, 0 benign.
        patient: whose nodule it is; never written anywhere. None counts as a patient of its own.
        split: part of the study, None where the CSV does not say.
        mask: the nodule, as :func:`asycmst.data.lesion_mask.read_lesion_mask` takes it.
    """

    id: str
    image: Path
    label: int
    patient: str | None = None
    split: str | None = None
    mask: Path | None = None


def read_image_study(path: str | os.PathLike[str]) -> tuple[ImageCase, ...]:
    """The cases of a CSV with columns id, image and label, optionally patient, split and mask.

    Paths are relative to the CSV; a label is 0, 1, benign or malignant. The images are not
    looked at.

    Raises:
        FileNotFoundError: there is no file at `path`.
        ValueError: a column is missing, a cell is wrong, or an id stands on two lines.
    """
    source = Path(path)
    if not source.is_file():
        raise FileNotFoundError(f"no CSV of images at {source}: check the path and its spelling")
    with source.open(encoding="utf-8-sig", newline="") as stream:
        lines = csv.DictReader(stream)
        missing = [name for name in _NEEDED if name not in (lines.fieldnames or ())]
        if missing:
            raise ValueError(f"{source} has no column {', '.join(missing)}: it needs {_WORDS}")
        cases = tuple(_case(source, lines.line_num, line) for line in lines)
    if not cases:
        raise ValueError(f"{source} holds no case: a header line is followed by one per case")
    if len({case.id for case in cases}) < len(cases):
        raise ValueError(f"{source}: an id stands on two lines: give every case an id of its own")
    return cases


def _case(source: Path, number: int, line: Mapping[str, str | None]) -> ImageCase:
    cells = {
        name: (line.get(name) or "").strip() for name in (*_NEEDED, "patient", "split", "mask")
    }
    for name in _NEEDED:
        if not cells[name]:
            raise ValueError(f"{source}, line {number}: the {name} is empty")
    label = LABELS.get(cells["label"].lower())
    if label is None:
        raise ValueError(
            f"{source}, line {number}: the label is {cells['label']!r}: allowed are 0, 1, benign "
            "and malignant"
        )
    return ImageCase(
        id=cells["id"],
        image=source.parent / cells["image"],
        label=label,
        patient=cells["patient"] or None,
        split=cells["split"] or None,
        mask=source.parent / cells["mask"] if cells["mask"] else None,
    )


class ImageDataset(Dataset[Item]):
    """Images as clips of one frame, read from their files as they are asked for.

    There is no contrast clip: `ceus` of an item is the image again, for networks that do not
    look at it.

    Args:
        cases: in this order.
        size: (height, width) that images and masks are resized to.
    """

    def __init__(self, cases: Sequence[ImageCase], size: tuple[int, int]) -> None:
        self.cases = list(cases)
        self.size = size

    def __len__(self) -> int:
        return len(self.cases)

    def __getitem__(self, index: int) -> Item:
        case = self.cases[index]
        image = clip_to_tensor(load_image(case.image, self.size))
        mask, valid = self.masks(index)
        return Item(
            bus=image,
            ceus=image,
            mask=mask,
            mask_valid=valid,
            label=torch.tensor(case.label, dtype=torch.int64),
            id=case.id,
        )

    def labels(self) -> NDArray[np.int64]:
        """int64 (len,), 1 = malignant."""
        return np.array([case.label for case in self.cases], dtype=np.int64)

    def masks(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        """`mask` (1, H, W) and `mask_valid` (1,) of an item."""
        case = self.cases[index]
        if case.mask is None:
            return torch.zeros(1, *self.size, dtype=torch.bool), torch.zeros(1, dtype=torch.bool)
        marked = read_lesion_mask(case.mask, load_image(case.image, self.size))
        return torch.from_numpy(marked), torch.ones(1, dtype=torch.bool)

    def nodule_share(self) -> float:
        """Share of nodule pixels among all pixels of annotated images; NaN where none is."""
        marked = [index for index, case in enumerate(self.cases) if case.mask is not None]
        if not marked:
            return float("nan")
        return float(np.mean([self.masks(index)[0].double().mean() for index in marked]))
