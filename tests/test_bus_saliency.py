"""Saliency losses in the place of the Dice loss, where a data set has no masks."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from asycmst.config import AsyCMSTConfig
from asycmst.losses import AsyCMSTLoss
from asycmst.model import AsyCMST, AsyCMSTOutput
from asycmst.self_supervision import NODULES

CONFIG = replace(
    AsyCMSTConfig.demo(),
    frames=3,
    image_size=32,
    dim=16,
    ffn_dim=16,
    decoder_channels=(8, 8),
    bus_task="saliency",
)
LABEL = torch.tensor([0, 1])


def batch() -> tuple[Tensor, AsyCMSTOutput]:
    bus, ceus = torch.rand(2, 3, 3, 32, 32), torch.rand(2, 3, 3, 32, 32)
    return bus, AsyCMST(CONFIG).eval()(bus, ceus)


def test_the_decoder_learns_from_the_frames() -> None:
    bus, output = batch()
    assert output.mask_logits is not None
    found = AsyCMSTLoss(CONFIG)(output, LABEL, bus=bus)
    frames = [
        NODULES.total(NODULES.terms(bus[b, None, :, t], output.mask_logits[b, t, None].sigmoid()))
        for b in range(2)
        for t in range(3)
    ]
    torch.testing.assert_close(found.segmentation, torch.cat(frames).mean())
    wanted = found.diagnosis + 0.4 * found.fss + 0.4 * found.segmentation
    torch.testing.assert_close(found.total, wanted)


def test_masks_teach_nothing_then() -> None:
    bus, output = batch()
    loss = AsyCMSTLoss(CONFIG)
    mask = torch.rand(2, 3, 32, 32) > 0.5
    assert torch.equal(
        loss(output, LABEL, mask, bus=bus).total, loss(output, LABEL, bus=bus).total
    )


def test_padded_frames_are_left_out() -> None:
    bus, output = batch()
    lengths = torch.tensor([3, 1])
    loss = AsyCMSTLoss(CONFIG)
    found = loss(output, LABEL, frame_lengths=lengths, bus=bus).segmentation
    noise = bus.clone()
    noise[1, :, 1:] = torch.rand(3, 2, 32, 32)
    again = loss(output, LABEL, frame_lengths=lengths, bus=noise).segmentation
    torch.testing.assert_close(found, again)
    assert not torch.equal(found, loss(output, LABEL, bus=bus).segmentation)


def test_parts_of_a_batch_make_the_whole() -> None:
    loss, valid = AsyCMSTLoss(CONFIG), torch.zeros(2, 3, dtype=torch.bool)
    assert loss.divisors(LABEL, valid)[2] == 2  # frames count whether annotated or not
    assert AsyCMSTLoss(replace(CONFIG, bus_task="dice")).divisors(LABEL, valid)[2] == 0


def test_the_clip_must_be_given() -> None:
    _, output = batch()
    with pytest.raises(ValueError, match="give bus"):
        AsyCMSTLoss(CONFIG)(output, LABEL)


def test_it_needs_a_branch_that_sees_bmode() -> None:
    with pytest.raises(ValueError, match="'saliency' marks dark nodules of B-mode"):
        replace(CONFIG, lower="ceus")


def test_such_a_segmentation_needs_no_masks() -> None:
    assert CONFIG.segments_nodule and not CONFIG.learns_masks
    assert replace(CONFIG, bus_task="dice").learns_masks
    assert not replace(CONFIG, bus_task=None).learns_masks
