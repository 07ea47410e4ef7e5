"""The losses of a saliency map: definitions, optima, and what keeps the map from the full mask."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from asycmst.data.phantom import PhantomConfig, make_phantom
from asycmst.self_supervision import NODULES, SaliencyObjective, darkness, smooth
from asycmst_ops import reference


def pair(height: int = 9, width: int = 12) -> tuple[Tensor, Tensor]:
    return torch.rand(2, 3, height, width).double(), torch.rand(2, height, width).double()


def phantom() -> tuple[Tensor, Tensor]:
    """A B-mode frame (1, 3, 64, 64) and its hidden mask (1, 64, 64)."""
    sample = make_phantom(PhantomConfig(frames=2), 7, 1)
    grey = torch.from_numpy(sample.bus[0]).double() / 255
    return grey.expand(1, 3, -1, -1), torch.from_numpy(sample.mask[0]).double()[None]


def test_the_losses_are_those_of_the_operator() -> None:
    images, saliency = pair()
    found = SaliencyObjective(affinity_floor=0.2).terms(images, saliency)
    wanted = reference.saliency_losses(images.mean(1), saliency, floor=0.2)
    torch.testing.assert_close(torch.stack(found[:3], 1), wanted)
    torch.testing.assert_close(found.area, (saliency.mean((1, 2)) / 0.05 - 1).square())


def test_autocast_leaves_the_losses_in_float32() -> None:
    images, saliency = (x.float() for x in pair(32, 32))
    wide = NODULES.total(NODULES.terms(images, saliency))
    with torch.autocast("cpu", torch.bfloat16):
        found = NODULES.total(NODULES.terms(images, saliency))
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, wide, rtol=0.05, atol=0)


@pytest.mark.parametrize("objective", [SaliencyObjective(), NODULES], ids=["published", "dark"])
def test_gradients_are_those_of_finite_differences(objective: SaliencyObjective) -> None:
    images, saliency = pair(6, 7)
    saliency.requires_grad_()
    assert torch.autograd.gradcheck(
        lambda marks: objective.total(objective.terms(images, marks)), (saliency,)
    )


def test_darkness_does_not_see_gain_that_changes_with_depth() -> None:
    grey = torch.rand(2, 9, 12).double()
    gain = torch.linspace(-0.3, 0.2, 9).double()[:, None]
    torch.testing.assert_close(darkness(grey + gain), darkness(grey))
    assert float(darkness(grey).amax()) == pytest.approx(1, abs=1e-4)
    assert not darkness(torch.full((1, 4, 4), 0.5)).any()


def test_smoothing_keeps_means_and_takes_speckle() -> None:
    assert smooth(torch.full((1, 5, 7), 0.5).double(), 1.5).sub(0.5).abs().max() < 1e-12
    noise = torch.rand(1, 40, 40).double()
    assert float(smooth(noise, 2.0).std()) < 0.25 * float(noise.std())
    assert smooth(noise, 0.0) is noise


def test_the_full_mask_is_the_optimum_of_the_published_reconstruction_alone() -> None:
    images, nodule = phantom()
    full = torch.ones_like(nodule)
    alone = SaliencyObjective(boundary_weight=0, affinity_weight=0)
    assert float(alone.total(alone.terms(images, full))) == 0
    assert float(alone.total(alone.terms(images, nodule))) > 0.1


def test_the_area_weight_prevents_the_full_and_the_empty_mask() -> None:
    images, nodule = phantom()
    alone = replace(NODULES, boundary_weight=0, affinity_weight=0)
    losses = {
        name: float(alone.total(alone.terms(images, marks)))
        for name, marks in {
            "nodule": nodule,
            "full": torch.ones_like(nodule),
            "empty": torch.zeros_like(nodule),
            "elsewhere": nodule.flip(1, 2),
        }.items()
    }
    assert min(losses, key=losses.__getitem__) == "nodule"


def test_terms_are_of_each_image_alone() -> None:
    images, saliency = pair()
    both = NODULES.terms(images, saliency)
    for index in range(2):
        one = NODULES.terms(images[index, None], saliency[index, None])
        for whole, part in zip(both, one, strict=True):
            torch.testing.assert_close(whole[index, None], part)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("lesion", "grey"),
        ("despeckle", -1.0),
        ("affinity_floor", 0.0),
        ("area", 0.0),
        ("area", 1.0),
        ("area_weight", math.inf),
        ("boundary_weight", -0.1),
    ],
)
def test_values_out_of_range_are_refused_by_name(field: str, value: object) -> None:
    with pytest.raises(ValueError, match=field):
        replace(SaliencyObjective(), **{field: value})  # type: ignore[arg-type]
