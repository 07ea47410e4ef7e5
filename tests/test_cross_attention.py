"""Cross-modal attention (Eq 6-11, Algorithm 2) and its alternatives (Table 5)."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from asycmst.config import Strategy
from asycmst.cross_attention import CrossModalAttention, RecordedKeys, key_set
from asycmst_ops import acmst_attention_qkvpacked

B, T, N, DIM, HEADS = 2, 3, 4, 8, 2
STRATEGIES: tuple[Strategy, ...] = ("asymmetric", "symmetric", "spatial", "temporal", "global")


def streams(frames: int = T) -> tuple[Tensor, Tensor]:
    bus, ceus = torch.randn(2, B, frames, N, DIM, dtype=torch.float64)
    return bus, ceus


def make(strategy: Strategy, **options: Any) -> CrossModalAttention:
    return CrossModalAttention(DIM, HEADS, key_set(strategy), **options).double().eval()


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


def test_each_stream_has_one_linear_map_to_queries_keys_and_values() -> None:
    """[Q, K, V] = f(X) with a bias, of width D each, one after another (Eq 6-7)."""
    attention, (bus, ceus) = make("asymmetric"), streams()
    for project, x in ((attention.project_bus, bus), (attention.project_ceus, ceus)):
        assert project.weight.shape == (3 * DIM, DIM)
        assert project.bias.shape == (3 * DIM,)
        packed = project.packed(x)
        assert packed.shape == (B, T, N, 3, HEADS, DIM // HEADS)
        for part, grid in enumerate((project.query(x), *project.key_value(x))):
            rows = slice(part * DIM, (part + 1) * DIM)
            expected = x @ project.weight[rows].T + project.bias[rows]
            assert expected.shape == (B, T, N, DIM)
            torch.testing.assert_close(grid.flatten(-2), expected)
            torch.testing.assert_close(packed[:, :, :, part].flatten(-2), expected)


@torch.no_grad()
def test_output_maps_that_change_nothing_leave_the_attention_as_it_is() -> None:
    """W_B^O = W_C^O = 1 in Eq 9 and Eq 11; then twice that for one stream alone."""
    attention, (bus, ceus) = make("asymmetric"), streams()
    for output in (attention.output_bus, attention.output_ceus):
        nn.init.eye_(output.weight)
        nn.init.zeros_(output.bias)
    att_bus, att_ceus = acmst_attention_qkvpacked(
        attention.project_bus.packed(bus), attention.project_ceus.packed(ceus)
    )
    raw = att_bus.flatten(-2), att_ceus.flatten(-2)
    torch.testing.assert_close(attention(bus, ceus, None), raw)
    attention.output_bus.weight.mul_(2)
    torch.testing.assert_close(attention(bus, ceus, None), (2 * raw[0], raw[1]))


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


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_one_direction_alone_equals_its_half_of_both(strategy: Strategy) -> None:
    attention, (bus, ceus) = make(strategy), streams()
    valid = torch.tensor([[1, 1, 0], [1, 1, 1]], dtype=torch.bool)[..., None]
    for frames in (None, valid):
        att_bus, att_ceus = attention(bus, ceus, frames)
        torch.testing.assert_close(attention.read_ceus(bus, ceus, frames), att_bus)
        torch.testing.assert_close(attention.read_bus(ceus, bus, frames), att_ceus)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_queries_and_keys_may_come_from_different_moments(strategy: Strategy) -> None:
    attention, (bus, ceus), (old_bus, old_ceus) = make(strategy), streams(), streams()
    att_bus, att_ceus = attention.read_earlier(bus, ceus, old_bus, old_ceus, None)
    torch.testing.assert_close(att_bus, attention.read_ceus(bus, old_ceus, None))
    torch.testing.assert_close(att_ceus, attention.read_bus(ceus, old_bus, None))
    torch.testing.assert_close(
        attention.read_earlier(bus, ceus, bus, ceus, None), attention(bus, ceus, None)
    )


def test_without_bias_the_maps_are_linear() -> None:
    attention, (bus, ceus) = make("asymmetric", bias=False), streams()
    assert not [name for name, _ in attention.named_parameters() if "bias" in name]
    for out in attention(bus * 0, ceus * 0, None):
        assert not out.any()
    att_bus, att_ceus = attention(bus, ceus, None)
    torch.testing.assert_close(attention.read_ceus(bus, ceus, None), att_bus)
    torch.testing.assert_close(attention.read_bus(ceus, bus, None), att_ceus)


def test_cross_dropout_acts_on_what_is_read_and_in_training_only() -> None:
    attention, (bus, ceus) = make("asymmetric", dropout=0.5), streams()
    for project in (attention.project_bus, attention.project_ceus):
        nn.init.zeros_(project.weight)
        nn.init.ones_(project.bias)  # all values are 1
    for output in (attention.output_bus, attention.output_ceus):
        nn.init.eye_(output.weight)
        nn.init.zeros_(output.bias)
    assert {x for out in attention(bus, ceus, None) for x in out.unique().tolist()} == {1.0}
    kept = attention.train()(bus, ceus, None)
    assert {x for out in kept for x in out.unique().tolist()} == {0.0, 2.0}


def test_recorded_keys_note_queries_and_keys_and_change_nothing() -> None:
    attention, (bus, ceus) = make("asymmetric"), streams()
    expected = attention(bus, ceus, None)
    recorder = RecordedKeys(attention.keys)
    attention.keys = recorder
    torch.testing.assert_close(attention(bus, ceus, None), expected)
    attention.read_ceus(bus, ceus, None)
    attention.read_bus(ceus, bus, None)
    both, of_bus, of_ceus = recorder.calls
    q_bus, k_bus, _ = attention.project_bus.packed(bus).unbind(3)
    q_ceus, k_ceus, _ = attention.project_ceus.packed(ceus).unbind(3)
    torch.testing.assert_close(both, (q_bus, k_ceus, q_ceus, k_bus))
    torch.testing.assert_close(of_bus, (q_bus, k_ceus))
    torch.testing.assert_close(of_ceus, (q_ceus, k_bus))
