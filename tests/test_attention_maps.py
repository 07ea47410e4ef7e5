"""When and where the streams look: against softmax by hand, and against the model itself."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from asycmst.analysis.attention_maps import cross_attention_maps, has_cross_attention_maps
from asycmst.config import AsyCMSTConfig
from asycmst.model import AsyCMST, attention_inputs


def build(**changes: object) -> AsyCMST:
    return AsyCMST(replace(AsyCMSTConfig.demo(), **changes)).eval()


def clips(frames: int = 8) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    bus, ceus = torch.rand(2, 2, 3, frames, 64, 64, generator=generator)
    return bus, ceus


@pytest.mark.parametrize("layer", [None, 1, 2])
def test_weights_by_hand(layer: int | None) -> None:
    model = build()
    with torch.no_grad():
        for parameter in model.layers.parameters():
            parameter.mul_(3)  # far from uniform weights
    maps = cross_attention_maps(model, *clips(), layer=layer)
    inputs = attention_inputs(model, *clips())[1 if layer is None else layer - 1]
    width = inputs.q_bus.shape[-1] ** 0.5
    for place in (0, 7, 15):
        query, key = inputs.q_bus[:, :, place], inputs.k_ceus[:, :, place]
        logits = torch.einsum("bthd,bshd->bhts", query, key) / width
        expected = logits.softmax(-1).mean(1)
        found = maps.when_by_place[:, place // 4, place % 4]
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    for frame in (0, 5):
        query, key = inputs.q_ceus[:, frame], inputs.k_bus[:, frame]
        logits = torch.einsum("bnhd,bmhd->bhnm", query, key) / width
        expected = logits.softmax(-1).mean(dim=(1, 2)).reshape(2, 4, 4)
        torch.testing.assert_close(maps.where[:, frame], expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(maps.when, maps.when_by_place.mean(dim=(1, 2)))


@pytest.mark.parametrize("frames", [8, 3, 1])
def test_shapes_and_sums(frames: int) -> None:
    maps = cross_attention_maps(build(), *clips(frames))
    assert maps.when_by_place.shape == (2, 4, 4, frames, frames)
    assert maps.when.shape == (2, frames, frames) and maps.where.shape == (2, frames, 4, 4)
    torch.testing.assert_close(maps.when.sum(-1), torch.ones(2, frames))
    torch.testing.assert_close(maps.when_by_place.sum(-1), torch.ones(2, 4, 4, frames))
    torch.testing.assert_close(maps.where.sum(dim=(-2, -1)), torch.ones(2, frames))


def test_a_key_that_fits_draws_the_weight() -> None:
    """CEUS frame 5 is made the one that every BUS query fits best."""
    model = build(layers=1, position_std=0.02)  # queries alike enough to share a best key
    attention = model.layers[0].cross.attention
    bus, ceus = clips()
    inputs = attention_inputs(model, bus, ceus)[0]
    wanted = inputs.q_bus.mean(dim=(0, 1, 2)).flatten()

    def boost(_module: object, _inputs: object, output: Tensor) -> Tensor:
        changed = output.clone()
        width = changed.shape[-1] // 3
        changed[:, 5, :, width : 2 * width] = 100 * wanted
        return changed

    with attention.project_ceus.register_forward_hook(boost):
        maps = cross_attention_maps(model, bus, ceus)
    assert (maps.when.argmax(-1) == 5).all()
    assert (maps.when[..., 5] > 0.9).all()


@pytest.mark.parametrize(
    "changes",
    [
        {"cross_attention": None},
        {"cross_attention": "symmetric"},
        {"acmst_layers": ()},
    ],
    ids=str,
)
def test_models_without_such_maps(changes: dict[str, object]) -> None:
    model = build(**changes)
    assert not has_cross_attention_maps(model)
    with pytest.raises(ValueError, match="need the asymmetric one"):
        cross_attention_maps(model, *clips())


def test_a_layer_without_cross_attention() -> None:
    model = build(acmst_layers=(2,))
    assert has_cross_attention_maps(model)
    with pytest.raises(ValueError, match=r"layer 1 has no cross-attention: choose one of \(2,\)"):
        cross_attention_maps(model, *clips(), layer=1)
    assert cross_attention_maps(model, *clips(), layer=2).when.shape == (2, 8, 8)


def test_training_mode_is_refused() -> None:
    with pytest.raises(ValueError, match="training mode"):
        cross_attention_maps(build().train(), *clips())
