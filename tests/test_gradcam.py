"""Grad-CAM++ by hand, against MONAI, and that it leaves no trace."""

import pytest
import torch
from monai.visualize import GradCAMpp
from torch import Tensor, nn

from asycmst.analysis.gradcam import gradcam_plus_plus, gradcam_plus_plus_map
from asycmst.config import AsyCMSTConfig
from asycmst.model import AsyCMST


@pytest.fixture
def model() -> AsyCMST:
    return AsyCMST(AsyCMSTConfig.demo()).eval()


def clips(batch: int = 2) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    bus, ceus = torch.rand(2, batch, 3, 8, 64, 64, generator=generator)
    return bus, ceus


def test_two_by_two_by_hand() -> None:
    """A = [[1, 2], [0, 1]], g = [[1, -1], [0, 2]]: sum A g^3 = 1 - 2 + 0 + 8 = 7.

    alpha = g^2 / (2 g^2 + 7) = [[1/9, 1/9], [0, 4/15]], w = 1/9 + 8/15 = 29/45.
    """
    activations = torch.tensor([[[[1.0, 2.0], [0.0, 1.0]]]])
    gradients = torch.tensor([[[[1.0, -1.0], [0.0, 2.0]]]])
    expected = 29 / 45 * activations[:, 0].double()
    torch.testing.assert_close(gradcam_plus_plus_map(activations, gradients), expected)


def test_two_channels_by_hand() -> None:
    """The second channel (A = 4, g = -1 everywhere) has weight 0; a negative sum becomes 0."""
    first = torch.tensor([[1.0, -3.0]])
    activations = torch.stack([first, torch.full((1, 2), 4.0)])[None]
    gradients = torch.stack([torch.tensor([[2.0, 0.0]]), torch.full((1, 2), -1.0)])[None]
    weight = 4 / (8 + 8) * 2
    expected = torch.tensor([[[weight * 1.0, 0.0]]]).double()
    torch.testing.assert_close(gradcam_plus_plus_map(activations, gradients), expected)


def test_no_gradient_is_no_relevance_and_not_nan() -> None:
    maps = gradcam_plus_plus_map(torch.rand(3, 4, 2, 2), torch.zeros(3, 4, 2, 2))
    assert (maps == 0).all()


def test_gradients_that_float32_cannot_cube() -> None:
    activations, gradients = torch.rand(1, 2, 3, 3), torch.rand(1, 2, 3, 3)
    tiny = gradcam_plus_plus_map(activations, gradients * 1e-20)
    alone = gradients.double().relu().sum(dim=(2, 3), keepdim=True) / 2  # alpha -> 1/2
    expected = (alone * activations).sum(1)
    torch.testing.assert_close(tiny / tiny.max(), expected / expected.max())


class OneStream(nn.Module):
    """The frames of one stream as a batch of images, the other stream bound: what MONAI takes."""

    def __init__(self, model: AsyCMST, stream: str, other: Tensor) -> None:
        super().__init__()
        self.model, self.stream, self.other = model, stream, other

    def forward(self, images: Tensor) -> Tensor:
        clip = images.permute(1, 0, 2, 3)[None]
        pair = (clip, self.other) if self.stream == "bus" else (self.other, clip)
        logits: Tensor = self.model(*pair).logits
        return logits - logits.detach()  # MONAI scales a map by exp(score): make that 1


@pytest.mark.parametrize("stream", ["bus", "ceus"])
@pytest.mark.parametrize("target", [0, 1])
def test_against_monai(model: AsyCMST, stream: str, target: int) -> None:
    """MONAI adds 1e-7 to a denominator: steeper logits make that small."""
    model.double()
    with torch.no_grad():
        for parameter in model.classifier.parameters():
            parameter.mul_(1e4)
    bus, ceus = (clip.double() for clip in clips())
    mine = getattr(gradcam_plus_plus(model, bus, ceus, target), stream)
    for index in range(2):
        own, other = (bus, ceus) if stream == "bus" else (ceus, bus)
        wrapped = OneStream(model, stream, other[index : index + 1]).eval()
        oracle = GradCAMpp(wrapped, target_layers=f"model.encoders.{stream}.trunk")
        images = own[index].permute(1, 0, 2, 3).requires_grad_()
        raw = oracle.compute_map(images, class_idx=target).detach()
        sized = nn.functional.interpolate(raw, size=(64, 64), mode="bilinear")[:, 0]
        torch.testing.assert_close(mine[index].double(), sized / sized.max(), atol=1e-5, rtol=0)
        assert raw.max() > 0, "an empty map proves nothing"


def test_shape_range_and_one_scale_per_clip(model: AsyCMST) -> None:
    cam = gradcam_plus_plus(model, *clips(3))
    for maps in cam:
        assert maps.shape == (3, 8, 64, 64) and maps.dtype == torch.float32
        assert maps.min() >= 0
        assert maps.amax(dim=(1, 2, 3)).tolist() == [1.0, 1.0, 1.0]
        assert (maps.amax(dim=(2, 3)) < 1).any(), "frames keep their relation to each other"


def test_a_batch_equals_its_clips(model: AsyCMST) -> None:
    bus, ceus = clips()
    together = gradcam_plus_plus(model, bus, ceus)
    for index in range(2):
        alone = gradcam_plus_plus(model, bus[index : index + 1], ceus[index : index + 1])
        torch.testing.assert_close(alone.bus[0], together.bus[index], atol=1e-4, rtol=0)
        torch.testing.assert_close(alone.ceus[0], together.ceus[index], atol=1e-4, rtol=0)


def test_the_classes_differ(model: AsyCMST) -> None:
    malignant = gradcam_plus_plus(model, *clips(), target=1)
    benign = gradcam_plus_plus(model, *clips(), target=0)
    assert not torch.allclose(malignant.bus, benign.bus)


def test_the_model_is_left_as_it_was(model: AsyCMST) -> None:
    model.train()
    model.encoders.bus.trunk.bn1.eval()
    model.encoders.ceus.requires_grad_(False)
    parameter = model.classifier_parameter = next(model.classifier.parameters())
    parameter.grad = torch.ones_like(parameter)
    modes = [module.training for module in model.modules()]
    state = {name: value.clone() for name, value in model.state_dict().items()}
    gradcam_plus_plus(model, *clips())
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert (parameter.grad == 1).all()
    assert sum(value.grad is not None for value in model.parameters()) == 1
    assert not any(module._forward_hooks for module in model.modules())


def test_frozen_weights_and_no_grad_give_the_same_map(model: AsyCMST) -> None:
    expected = gradcam_plus_plus(model, *clips())
    model.requires_grad_(False)
    with torch.no_grad():
        found = gradcam_plus_plus(model, *clips())
    assert torch.equal(found.bus, expected.bus) and torch.equal(found.ceus, expected.ceus)
    assert not found.bus.requires_grad


def test_an_error_leaves_no_hook(model: AsyCMST) -> None:
    model.train()
    bus, ceus = clips()
    with pytest.raises(ValueError, match="frames of 32 x 32"):
        gradcam_plus_plus(model, bus[..., :32, :32], ceus[..., :32, :32])
    assert not any(module._forward_hooks for module in model.modules())
    assert model.training


def test_unknown_class(model: AsyCMST) -> None:
    with pytest.raises(ValueError, match="target is 2: allowed are 0"):
        gradcam_plus_plus(model, *clips(), target=2)
