"""Cross-modal attention (Eq 6-13, Algorithm 2), its alternatives (Table 5) and the layer."""

import dataclasses
import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from asycmst.config import AsyCMSTConfig, Strategy
from asycmst.fusion import (
    AsymmetricAttention,
    CrossAttentionBlock,
    CrossModalAttention,
    DualStreamLayer,
    FeedForwardBlock,
    SeparateStreams,
    StrategyAttention,
)

B, T, N, DIM, HEADS = 2, 3, 4, 8, 2
STRATEGIES: tuple[Strategy, ...] = ("asymmetric", "symmetric", "spatial", "temporal", "global")


def streams(frames: int = T) -> tuple[Tensor, Tensor]:
    bus, ceus = torch.randn(2, B, frames, N, DIM, dtype=torch.float64)
    return bus, ceus


def make(strategy: Strategy) -> CrossModalAttention:
    if strategy == "asymmetric":
        return AsymmetricAttention(DIM, HEADS).double()
    return StrategyAttention(DIM, HEADS, strategy).double()


def make_layer(number: int = 1, **fields: Any) -> DualStreamLayer:
    config = dataclasses.replace(
        AsyCMSTConfig.demo(), dim=DIM, heads=HEADS, ffn_dim=16, stsa="joint", **fields
    )
    return DualStreamLayer(config, number).double().eval()


def keys(strategy: Strategy, stream: str, t: int, n: int) -> set[tuple[int, int]]:
    """The tokens of the other modality that token (t, n) of a stream sees (Table 5)."""
    column = {(u, n) for u in range(T)}
    frame = {(t, m) for m in range(N)}
    return {
        "asymmetric": column if stream == "bus" else frame,
        "symmetric": column | frame,
        "spatial": frame,
        "temporal": column,
        "global": {(u, m) for u in range(T) for m in range(N)},
    }[strategy]


def dense(attention: CrossModalAttention, strategy: Strategy, bus: Tensor, ceus: Tensor) -> Any:
    """Eq 6-11 by the letter: one softmax per stream, batch entry, head and token."""
    width = DIM // HEADS
    q_bus, k_bus, v_bus = attention.project_bus(bus).chunk(3, dim=-1)
    q_ceus, k_ceus, v_ceus = attention.project_ceus(ceus).chunk(3, dim=-1)
    out = {}
    for stream, (q, k, v) in {
        "bus": (q_bus, k_ceus, v_ceus),
        "ceus": (q_ceus, k_bus, v_bus),
    }.items():
        out[stream] = torch.empty_like(q)
        for t in range(T):
            for n in range(N):
                seen = sorted(keys(strategy, stream, t, n))
                for h in range(HEADS):
                    own = slice(h * width, (h + 1) * width)
                    key = torch.stack([k[:, u, m, own] for u, m in seen], dim=1)
                    value = torch.stack([v[:, u, m, own] for u, m in seen], dim=1)
                    score = torch.einsum("bd,bkd->bk", q[:, t, n, own], key) / math.sqrt(width)
                    out[stream][:, t, n, own] = torch.einsum(
                        "bk,bkd->bd", score.softmax(-1), value
                    )
    return attention.output_bus(out["bus"]), attention.output_ceus(out["ceus"])


def support(function: Any, x: Tensor) -> set[tuple[int, int]]:
    """The tokens (t, n) of `x` that a scalar function depends on."""
    x = x.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(function(x), x, allow_unused=True)
    if gradient is None:
        return set()
    return {tuple(index) for index in (gradient.abs().amax((0, 3)) > 0).nonzero().tolist()}


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_equals_the_equations(strategy: Strategy) -> None:
    attention, (bus, ceus) = make(strategy), streams()
    with torch.no_grad():
        actual = attention(bus, ceus, None)
        expected = dense(attention, strategy, bus, ceus)
    torch.testing.assert_close(actual, expected)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_support_in_the_other_modality(strategy: Strategy) -> None:
    attention, (bus, ceus) = make(strategy), streams()
    t, n = 1, 2
    weights = torch.randn(DIM, dtype=torch.float64)
    from_ceus = support(lambda x: (attention(bus, x, None)[0][0, t, n] * weights).sum(), ceus)
    from_bus = support(lambda x: (attention(x, ceus, None)[1][0, t, n] * weights).sum(), bus)
    assert from_ceus == keys(strategy, "bus", t, n)
    assert from_bus == keys(strategy, "ceus", t, n)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_queries_come_from_the_own_token_alone(strategy: Strategy) -> None:
    attention, (bus, ceus) = make(strategy), streams()
    t, n = 2, 1
    weights = torch.randn(DIM, dtype=torch.float64)
    own_bus = support(lambda x: (attention(x, ceus, None)[0][0, t, n] * weights).sum(), bus)
    own_ceus = support(lambda x: (attention(bus, x, None)[1][0, t, n] * weights).sum(), ceus)
    assert own_bus == own_ceus == {(t, n)}


def test_head_h_owns_the_channels_from_h_d_on() -> None:
    attention, (bus, ceus) = make("asymmetric"), streams()
    for output in (attention.output_bus, attention.output_ceus):
        nn.init.eye_(output.weight)
        nn.init.zeros_(output.bias)
    for project in (attention.project_bus, attention.project_ceus):
        with torch.no_grad():  # the values of head 1 become constants
            project.weight[2 * DIM + DIM // 2 :] = 0
            project.bias[2 * DIM + DIM // 2 :] = 7
    for out in attention(bus, ceus, None):
        assert torch.allclose(out[..., DIM // 2 :], torch.tensor(7.0, dtype=torch.float64))
        assert (out[..., : DIM // 2] - 7).abs().min() > 0.1


def test_all_strategies_have_the_same_parameters() -> None:
    names = [[(k, v.shape) for k, v in make(s).state_dict().items()] for s in STRATEGIES]
    assert all(entry == names[0] for entry in names)
    count = sum(p.numel() for p in make("asymmetric").parameters())
    assert count == 2 * (4 * DIM**2 + 4 * DIM)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_only_the_asymmetric_attention_tells_the_modalities_apart(strategy: Strategy) -> None:
    attention, (bus, ceus) = make(strategy), streams()
    attention.project_ceus = attention.project_bus
    attention.output_ceus = attention.output_bus
    att_bus, att_ceus = attention(bus, ceus, None)
    swapped_bus, swapped_ceus = attention(ceus, bus, None)
    same = torch.allclose(att_bus, swapped_ceus) and torch.allclose(att_ceus, swapped_bus)
    assert same is (strategy != "asymmetric")


def test_permuting_ceus_frames_leaves_what_bus_reads() -> None:
    attention, (bus, ceus) = make("asymmetric"), streams()
    att_bus, _ = attention(bus, ceus, None)
    permuted, _ = attention(bus, ceus[:, [2, 0, 1]], None)
    torch.testing.assert_close(permuted, att_bus)


def test_permuting_bus_places_in_a_frame_leaves_what_ceus_reads() -> None:
    attention, (bus, ceus) = make("asymmetric"), streams()
    _, att_ceus = attention(bus, ceus, None)
    _, permuted = attention(bus[:, :, [3, 1, 0, 2]], ceus, None)
    torch.testing.assert_close(permuted, att_ceus)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_padded_frames_change_nothing(strategy: Strategy) -> None:
    attention, (bus, ceus) = make(strategy), streams(frames=5)
    valid = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]], dtype=torch.bool)[..., None]
    padded = attention(bus, ceus, valid)
    short = attention(bus[:1, :3], ceus[:1, :3], None)
    full = attention(bus[1:], ceus[1:], None)
    for stream in range(2):
        torch.testing.assert_close(padded[stream][:1, :3], short[stream])
        torch.testing.assert_close(padded[stream][1:], full[stream])


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


def test_feed_forward_dropout_sits_between_the_linear_maps() -> None:
    block = FeedForwardBlock(DIM, 16, 0.25)
    kinds = [type(part) for part in block.network]
    assert kinds == [nn.Linear, nn.ReLU, nn.Dropout, nn.Linear]
    assert block.network[2].p == 0.25
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


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_config_chooses_the_attention(strategy: Strategy) -> None:
    layer = make_layer(cross_attention=strategy)
    assert isinstance(layer.cross, CrossAttentionBlock)
    bus, ceus = streams()
    with torch.no_grad():
        expected = dense(layer.cross.attention, strategy, bus, ceus)
        torch.testing.assert_close(layer.cross.attention(bus, ceus, None), expected)
