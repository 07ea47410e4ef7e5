"""The objective against its printed definition, and against finite differences (Eq 5, 14, 16)."""

import pytest
import torch
from torch import Tensor

from asycmst.losses import AsyCMSTLoss, AsyCMSTLosses
from asycmst.model import AsyCMSTOutput

DOUBLE = torch.float64
LABEL = torch.tensor([0, 1])


def outputs() -> AsyCMSTOutput:
    shapes = ((2, 2), (2, 3), (2, 3, 4, 5), (2, 6))
    return AsyCMSTOutput(*(torch.randn(s, dtype=DOUBLE).requires_grad_() for s in shapes))


def losses(output: AsyCMSTOutput, mask: Tensor, valid: Tensor | None = None) -> AsyCMSTLosses:
    found: AsyCMSTLosses = AsyCMSTLoss()(output, LABEL, mask, valid)
    return found


def test_dice_is_eq_5_of_the_probabilities() -> None:
    output = outputs()
    mask = (torch.rand(2, 3, 4, 5) > 0.6).to(DOUBLE)
    assert output.mask_logits is not None
    p = 1 / (1 + torch.exp(-output.mask_logits))
    above = 2 * (p * mask).sum((2, 3)) + 1e-6
    below = p.sum((2, 3)) + mask.sum((2, 3)) + 1e-6
    expected = (1 - above / below).mean()
    found = losses(output, mask).segmentation
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=0)


def test_two_empty_masks_have_a_dice_loss_of_exactly_zero() -> None:
    """(0 + epsilon) / (0 + epsilon) = 1."""
    nothing = torch.full((2, 3, 4, 5), -1e4, dtype=DOUBLE)
    output = outputs()._replace(mask_logits=nothing)
    assert losses(output, torch.zeros(2, 3, 4, 5)).segmentation.item() == 0.0


@pytest.mark.parametrize("part", ["total", "diagnosis", "fss", "segmentation"])
def test_gradients_are_those_of_finite_differences(part: str) -> None:
    """Frames without annotation, and an annotated frame without nodule, included."""
    output = outputs()
    mask = torch.rand(2, 3, 4, 5) > 0.6
    mask[1, 2] = False
    valid = torch.tensor([[True, False, True], [False, True, True]])
    leaves = output[:3]

    def loss(*parts: Tensor) -> Tensor:
        value: Tensor = getattr(losses(AsyCMSTOutput(*parts, output.features), mask, valid), part)
        return value

    assert torch.autograd.gradcheck(loss, leaves)


def test_nothing_but_the_three_tasks_is_in_the_total() -> None:
    """Section 3.4: no loss compares the modalities with each other."""
    output, mask = outputs(), torch.rand(2, 3, 4, 5) > 0.6
    found = losses(output, mask)
    assert found._fields == ("total", "diagnosis", "fss", "segmentation")
    expected = found.diagnosis + 0.4 * found.fss + 0.4 * found.segmentation
    torch.testing.assert_close(found.total, expected, atol=1e-12, rtol=0)
    assert torch.autograd.grad(found.total, output.features, allow_unused=True) == (None,)
