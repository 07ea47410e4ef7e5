"""What holds for the whole network: what its parts read, and what may change places."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from asycmst.config import AsyCMSTConfig, Positions, SelfAttentionKind
from asycmst.model import AsyCMST

STRATEGIES = ("asymmetric", "symmetric", "spatial", "temporal", "global")


def make(**fields: Any) -> AsyCMST:
    """A model of 2 x 2 cells, in evaluation mode and float64, whose positions matter."""
    sizes = {"frames": 4, "image_size": 32, "decoder_channels": (8, 8, 4, 4)}
    model = AsyCMST(dataclasses.replace(AsyCMSTConfig.demo(), **(sizes | fields)))
    for embedding in (model.embed_bus, model.embed_ceus):
        for table in embedding.parameters():
            nn.init.normal_(table)
    return model.double().eval()


def clips(batch: int = 2) -> tuple[Tensor, Tensor]:
    bus, ceus = torch.rand(2, batch, 3, 4, 32, 32, dtype=torch.float64)
    return bus, ceus


def test_clips_are_taken_by_name() -> None:
    model, (bus, ceus) = make(), clips()
    assert torch.equal(model(ceus=ceus, bus=bus).logits, model(bus, ceus).logits)


@torch.no_grad()
def test_the_auxiliary_heads_read_the_encoders_last_grids_alone() -> None:
    """Neither positions, nor layers, nor earlier stages of an encoder (Section 3.2)."""
    model, (bus, ceus) = make(), clips()
    f_bus, f_ceus = model.encoders(bus, ceus)
    output = model(bus, ceus)
    assert model.frame_sorting is not None
    assert model.mask_decoder is not None
    torch.testing.assert_close(output.frame_scores, model.frame_sorting(f_ceus))
    torch.testing.assert_close(output.mask_logits, model.mask_decoder(f_bus, (32, 32)))


@pytest.mark.parametrize(("size", "places"), [(96, 9), (80, 9), (225, 64)])
def test_a_resnet_makes_a_place_of_every_started_32_pixels(size: int, places: int) -> None:
    config = AsyCMSTConfig(
        frames=1,
        image_size=size,
        dim=8,
        heads=1,
        layers=1,
        ffn_dim=8,
        share_encoder=True,
        decoder_channels=(4,),
    )
    model = AsyCMST(config).eval()
    assert model.embed_bus.positions.table.shape == (1, 1, places, 8)
    with torch.no_grad():
        output = model(*torch.rand(2, 1, 3, 1, size, size))
    assert output.mask_logits.shape == (1, 1, size, size)
    assert output.logits.isfinite().all()


@torch.no_grad()
@pytest.mark.parametrize("stsa", ["joint", "factorised", "dot_product"])
@pytest.mark.parametrize("positions_are_zero", [True, False], ids=["zero", "learned"])
def test_positions_alone_tell_places_apart(
    stsa: SelfAttentionKind, positions_are_zero: bool
) -> None:
    """Permuted alike in both streams (X^(0) = F + P, Section 3.1)."""
    model = make(layers=1, stsa=stsa)
    if positions_are_zero:
        model.embed_bus.positions.table.zero_()
        model.embed_ceus.positions.table.zero_()
    order = [2, 0, 3, 1]

    def layer(bus: Tensor, ceus: Tensor) -> tuple[Tensor, Tensor]:
        found: tuple[Tensor, Tensor] = model.layers[0](
            model.embed_bus(bus), model.embed_ceus(ceus), None
        )
        return found

    grids = torch.randn(2, 1, 4, 2, 2, 48, dtype=torch.float64)
    moved = layer(*grids.flatten(3, 4)[:, :, :, order].unflatten(3, (2, 2)))
    for out, tokens in zip(moved, layer(*grids), strict=True):
        assert torch.allclose(out, tokens[:, :, order]) is positions_are_zero


@torch.no_grad()
@pytest.mark.parametrize("share", [False, True], ids=["own", "shared"])
@pytest.mark.parametrize("positions", ["joint", "factorised"])
def test_position_tables_are_saved_and_loaded(
    share: bool, positions: Positions, tmp_path: Path
) -> None:
    model, (bus, ceus) = make(share_positions=share, positions=positions), clips()
    torch.save(model.state_dict(), tmp_path / "weights.pt")
    (tmp_path / "config.json").write_text(json.dumps(model.config.to_dict()))

    config = AsyCMSTConfig.from_dict(json.loads((tmp_path / "config.json").read_text()))
    twin = AsyCMST(config).double().eval()
    assert not torch.allclose(twin(bus, ceus).logits, model(bus, ceus).logits)
    twin.load_state_dict(torch.load(tmp_path / "weights.pt", weights_only=True))
    assert (twin.embed_bus is twin.embed_ceus) is share
    assert torch.equal(twin(bus, ceus).logits, model(bus, ceus).logits)


@torch.no_grad()
def interplay(model: AsyCMST) -> float:
    """How far the logits are from a sum of what each modality says alone."""
    (bus, ceus), (other_bus, other_ceus) = clips(1), clips(1)
    mixed = model(bus, other_ceus).logits + model(other_bus, ceus).logits
    plain = model(bus, ceus).logits + model(other_bus, other_ceus).logits
    return (plain - mixed).abs().max().item()


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_cross_attention_lets_the_modalities_act_on_each_other(strategy: str) -> None:
    assert interplay(make(cross_attention=strategy)) > 1e-6


@pytest.mark.parametrize("fields", [{"cross_attention": None}, {"acmst_layers": ()}], ids=str)
def test_without_cross_attention_the_logits_are_a_sum_over_the_modalities(
    fields: dict[str, Any],
) -> None:
    """No token of a stream knows the other one; the classifier adds them up (Eq 15)."""
    assert interplay(make(**fields)) < 1e-13


@torch.no_grad()
def test_no_layer_with_cross_attention_is_the_model_without_it() -> None:
    """The left end of Fig 13 and the first row of Table 5."""
    model, none = make(acmst_layers=()), make(cross_attention=None)
    none.load_state_dict(model.state_dict())
    bus, ceus = clips()
    assert torch.equal(none(bus, ceus).logits, model(bus, ceus).logits)
