"""The layers of the dual stream (Eq 12-13, Algorithm 2) and the readings the paper leaves open."""

import dataclasses
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from asycmst.config import AsyCMSTConfig, FeedForward, KeySource, NormPlace, Update
from asycmst.cross_attention import AsymmetricKeys, UniformKeys
from asycmst.dropout import Dropout
from asycmst.fusion import (
    CrossAttentionBlock,
    DualStreamLayer,
    FeedForwardBlock,
    SeparateStreams,
    dual_stream_layer,
)

B, T, N, DIM, HEADS = 2, 3, 4, 8, 2
LAYERS: list[tuple[Update, KeySource]] = [
    ("parallel", "stsa"),
    ("parallel", "raw"),
    ("sequential", "stsa"),
    ("sequential", "raw"),
]


def streams(frames: int = T) -> tuple[Tensor, Tensor]:
    bus, ceus = torch.randn(2, B, frames, N, DIM, dtype=torch.float64)
    return bus, ceus


def small(**fields: Any) -> AsyCMSTConfig:
    sizes = {"dim": DIM, "heads": HEADS, "ffn_dim": 16, "stsa": "joint"}
    return dataclasses.replace(AsyCMSTConfig.demo(), **(sizes | fields))


def make_layer(number: int = 1, **fields: Any) -> DualStreamLayer:
    return dual_stream_layer(small(**fields), number).double().eval()


def support(function: Any, x: Tensor) -> set[tuple[int, int]]:
    """The tokens (t, n) of `x` that a scalar function depends on."""
    x = x.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(function(x), x, allow_unused=True)
    if gradient is None:
        return set()
    return {tuple(index) for index in (gradient.abs().amax((0, 3)) > 0).nonzero().tolist()}


def test_both_streams_are_updated_from_the_same_state() -> None:
    layer, (bus, ceus) = make_layer(), streams()
    assert isinstance(layer.cross, CrossAttentionBlock)
    x_bus, x_ceus = layer.self_bus(bus, None), layer.self_ceus(ceus, None)
    att_bus, att_ceus = layer.cross.attention(x_bus, x_ceus, None)
    out_bus, out_ceus = layer(bus, ceus, None)
    for x, attended, block, out in (
        (x_bus, att_bus, layer.ffn_bus, out_bus),
        (x_ceus, att_ceus, layer.ffn_ceus, out_ceus),
    ):
        y = F.layer_norm(x + attended, (DIM,))
        hidden = F.relu(F.linear(y, block.network[0].weight, block.network[0].bias))
        z = y + F.linear(hidden, block.network[3].weight, block.network[3].bias)
        torch.testing.assert_close(out, F.layer_norm(z, (DIM,)))


def test_feed_forward_dropout_follows_the_activation_and_the_second_map() -> None:
    block = FeedForwardBlock(small(dropout=0.25))
    kinds = [type(part) for part in block.network]
    assert kinds == [nn.Linear, nn.ReLU, Dropout, nn.Linear, Dropout]
    assert block.network[2].p == block.network[4].p == 0.25
    assert block.network[0].out_features == 16


@pytest.mark.parametrize(
    "fields", [{"cross_attention": None}, {"acmst_layers": (2,)}, {"acmst_layers": ()}], ids=str
)
def test_without_cross_attention_the_streams_do_not_meet(fields: dict[str, Any]) -> None:
    layer, (bus, ceus) = make_layer(number=1, **fields), streams()
    assert isinstance(layer.cross, SeparateStreams)
    assert not list(layer.cross.parameters())
    weights = torch.randn(DIM, dtype=torch.float64)
    assert not support(lambda x: (layer(bus, x, None)[0] * weights).sum(), ceus)
    assert not support(lambda x: (layer(x, ceus, None)[1] * weights).sum(), bus)
    out_bus, _ = layer(bus, ceus, None)
    torch.testing.assert_close(out_bus, layer.ffn_bus(layer.self_bus(bus, None)))


@pytest.mark.parametrize(("number", "present"), [(1, True), (2, False), (3, True)])
def test_chosen_layers_have_the_cross_attention(number: int, present: bool) -> None:
    layer = make_layer(number=number, layers=3, acmst_layers=(1, 3))
    assert isinstance(layer.cross, CrossAttentionBlock) is present


def test_the_config_chooses_the_key_set() -> None:
    for strategy in ("symmetric", "spatial", "temporal", "global"):
        layer = make_layer(cross_attention=strategy)
        assert isinstance(layer.cross, CrossAttentionBlock)
        assert isinstance(layer.cross.attention.keys, UniformKeys)
        assert layer.cross.attention.keys.strategy == strategy
    layer = make_layer(cross_attention="asymmetric")
    assert isinstance(layer.cross, CrossAttentionBlock)
    assert isinstance(layer.cross.attention.keys, AsymmetricKeys)


@pytest.mark.parametrize(("update", "kv"), LAYERS)
@pytest.mark.parametrize("norm", ["post", "pre"])
def test_what_each_stream_reads_in_which_state(
    update: Update, kv: KeySource, norm: NormPlace
) -> None:
    """The layer by the letter of its kind, out of its parts."""
    layer, (bus, ceus) = make_layer(update=update, kv=kv, norm=norm), streams()
    assert isinstance(layer.cross, CrossAttentionBlock)
    read, cross = layer.cross.attention, layer.cross
    mixed_bus, mixed_ceus = layer.self_bus(bus, None), layer.self_ceus(ceus, None)

    def taken_up(x: Tensor, f: Any, part: nn.LayerNorm) -> Tensor:
        return part(x + f(x)) if norm == "post" else x + f(part(x))

    def normed(x: Tensor, part: nn.LayerNorm) -> Tensor:
        return x if norm == "post" else part(x)

    ceus_seen = normed(mixed_ceus if kv == "stsa" else ceus, cross.norm_ceus)
    new_bus = taken_up(mixed_bus, lambda x: read.read_ceus(x, ceus_seen, None), cross.norm_bus)
    new_bus = taken_up(new_bus, layer.ffn_bus.network, layer.ffn_bus.norm)
    bus_seen = new_bus if update == "sequential" else mixed_bus if kv == "stsa" else bus
    bus_seen = normed(bus_seen, cross.norm_bus)
    new_ceus = taken_up(mixed_ceus, lambda x: read.read_bus(x, bus_seen, None), cross.norm_ceus)
    new_ceus = taken_up(new_ceus, layer.ffn_ceus.network, layer.ffn_ceus.norm)
    torch.testing.assert_close(layer(bus, ceus, None), (new_bus, new_ceus))


def test_the_four_kinds_of_layer_differ() -> None:
    weights, (bus, ceus) = make_layer().state_dict(), streams()
    found = []
    for update, kv in LAYERS:
        layer = make_layer(update=update, kv=kv)
        layer.load_state_dict(weights)
        found.append(layer(bus, ceus, None))
    for i, (one_bus, one_ceus) in enumerate(found):
        for other_bus, other_ceus in found[:i]:
            same = torch.allclose(one_bus, other_bus) and torch.allclose(one_ceus, other_ceus)
            assert not same


@pytest.mark.parametrize("kv", ["stsa", "raw"])
def test_only_in_the_sequential_order_does_ceus_see_bus_see_ceus(kv: KeySource) -> None:
    """CEUS token (t, n) of one layer: another frame reaches it through BUS alone (Eq 8, 10)."""
    weights = torch.randn(DIM, dtype=torch.float64)
    for update, reached in (("parallel", False), ("sequential", True)):
        layer, (bus, ceus) = make_layer(update=update, kv=kv), streams()
        for block in (layer.self_bus, layer.self_ceus):  # no self-attention: Eq 6-13 alone
            nn.init.zeros_(block.attention.output.weight)
        seen = support(lambda x: (layer(bus, x, None)[1][0, 1, 2] * weights).sum(), ceus)  # noqa: B023
        assert ((0, 2) in seen) is reached


def test_the_literal_feed_forward_is_eq_12_to_13_word_by_word() -> None:
    layer, (bus, ceus) = make_layer(ffn="literal"), streams()
    assert isinstance(layer.cross, CrossAttentionBlock)
    x_bus, x_ceus = layer.self_bus(bus, None), layer.self_ceus(ceus, None)
    att_bus, att_ceus = layer.cross.attention(x_bus, x_ceus, None)
    expected = (
        layer.ffn_bus.network(F.layer_norm(x_bus + att_bus, (DIM,))),
        layer.ffn_ceus.network(F.layer_norm(x_ceus + att_ceus, (DIM,))),
    )
    torch.testing.assert_close(layer(bus, ceus, None), expected)
    assert [name for name, _ in layer.ffn_bus.named_parameters() if "norm" in name] == []


@pytest.mark.parametrize("ffn", ["residual", "literal"])
def test_bias_can_be_left_out_of_the_linear_maps(ffn: FeedForward) -> None:
    names = [name for name, _ in make_layer(bias=False, ffn=ffn).named_parameters()]
    assert {name.split(".")[-2][:4] for name in names if name.endswith("bias")} == {"norm"}


@pytest.mark.parametrize(("update", "kv"), LAYERS)
@pytest.mark.parametrize("norm", ["post", "pre"])
def test_padded_frames_change_nothing(update: Update, kv: KeySource, norm: NormPlace) -> None:
    layer, (bus, ceus) = make_layer(update=update, kv=kv, norm=norm), streams(frames=5)
    valid = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]], dtype=torch.bool)[..., None]
    padded = layer(bus, ceus, valid)
    short, full = layer(bus[:1, :3], ceus[:1, :3], None), layer(bus[1:], ceus[1:], None)
    for stream in range(2):
        torch.testing.assert_close(padded[stream][:1, :3], short[stream])
        torch.testing.assert_close(padded[stream][1:], full[stream])
