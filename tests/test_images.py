"""Frames of clips as images: which ones, and that all of an item goes along."""

import numpy as np
import pytest
import torch

from asycmst.data.images import ImagesOfClips
from asycmst.data.phantom import PhantomConfig
from asycmst.data.samples import PhantomDataset


@pytest.mark.parametrize(
    ("frames", "wanted"), [(1, [3]), (2, [1, 4]), (3, [1, 3, 5]), (6, range(6)), (9, range(6))]
)
def test_frames_are_evenly_spaced(frames: int, wanted: list[int]) -> None:
    clips = PhantomDataset(PhantomConfig(frames=6, size=32), 1, 2)
    images = ImagesOfClips(clips, frames)
    item, clip = images[1], clips[1]
    chosen = list(wanted)
    for name in ("bus", "ceus"):
        assert torch.equal(item[name], clip[name][:, chosen])  # type: ignore[literal-required]
    assert torch.equal(item["mask"], clip["mask"][chosen])
    assert item["mask_valid"].shape == (len(chosen),)
    assert (item["id"], int(item["label"])) == (clip["id"], int(clip["label"]))
    mask, valid = images.masks(1)
    assert torch.equal(mask, item["mask"]) and torch.equal(valid, item["mask_valid"])
    assert len(images) == 2 and np.array_equal(images.labels(), clips.labels())
    assert images.nodule_share() == clips.nodule_share()
