"""Phantom samples as tensors."""

import numpy as np
import pytest
import torch

from asycmst.data.phantom import PhantomConfig, make_phantom
from asycmst.data.samples import PhantomDataset

CONFIG = PhantomConfig(frames=3, size=32)


def test_items_are_the_phantom_as_tensors() -> None:
    dataset = PhantomDataset(CONFIG, seed=5, size=3)
    item, sample = dataset[2], make_phantom(CONFIG, 5, 2)
    assert {name: (item[name].dtype, tuple(item[name].shape)) for name in ("bus", "ceus")} == {
        "bus": (torch.float32, (3, 3, 32, 32)),
        "ceus": (torch.float32, (3, 3, 32, 32)),
    }
    for channel in range(3):
        expected = sample.ceus[..., channel].astype(np.float32) / np.float32(255)
        assert np.array_equal(item["ceus"][channel].numpy(), expected)
        assert np.array_equal(item["bus"][channel].numpy(), sample.bus / np.float32(255))
    assert np.array_equal(item["mask"].numpy(), sample.mask)
    assert item["label"].dtype == torch.int64 and int(item["label"]) == sample.label
    assert item["id"] == "breast-5-2"


def test_a_small_dataset_is_the_start_of_a_large_one() -> None:
    small, large = PhantomDataset(CONFIG, 1, 2), PhantomDataset(CONFIG, 1, 4)
    for one, other in zip(small, large, strict=False):
        assert torch.equal(one["bus"], other["bus"])
        assert torch.equal(one["ceus"], other["ceus"])
        assert one["id"] == other["id"]


def test_seeds_give_other_samples() -> None:
    one, other = PhantomDataset(CONFIG, 1, 1)[0], PhantomDataset(CONFIG, 2, 1)[0]
    assert not torch.equal(one["bus"], other["bus"])
    assert one["id"] != other["id"]


def test_items_do_not_share_memory_with_the_dataset() -> None:
    dataset = PhantomDataset(CONFIG, 1, 1)
    before = dataset[0]["ceus"].clone()
    item = dataset[0]
    item["ceus"].zero_()
    item["bus"].zero_()
    item["mask"].fill_(True)
    assert torch.equal(dataset[0]["ceus"], before)
    assert np.array_equal(dataset[0]["mask"].numpy(), make_phantom(CONFIG, 1, 0).mask)


def test_iteration_ends_and_labels_agree() -> None:
    dataset = PhantomDataset(CONFIG, 1, 4)
    assert [int(item["label"]) for item in dataset] == dataset.labels().tolist()
    assert len(dataset) == 4


def test_the_nodule_share_counts_pixels() -> None:
    masks = [make_phantom(CONFIG, 1, index).mask for index in range(3)]
    share = sum(mask.sum() for mask in masks) / sum(mask.size for mask in masks)
    assert PhantomDataset(CONFIG, 1, 3).nodule_share() == pytest.approx(share)


def test_an_empty_dataset_is_refused() -> None:
    with pytest.raises(ValueError, match="size=0 samples; a dataset needs at least 1"):
        PhantomDataset(CONFIG, 1, 0)
