"""Self-attention within a stream: ViViT's models 1 and 3 (Section 3.1)."""

import dataclasses
import math

import pytest
import torch
from torch import Tensor, nn

from asycmst.config import AsyCMSTConfig, SelfAttentionKind
from asycmst.stsa import (
    AxialSelfAttention,
    FactorisedSelfAttention,
    JointSelfAttention,
    SelfAttentionBlock,
)

T, N, DIM, HEADS = 3, 4, 8, 2
KINDS = {
    "joint": lambda: JointSelfAttention(DIM, HEADS, 0.0),
    "factorised": lambda: FactorisedSelfAttention(DIM, HEADS, 0.0),
    "space": lambda: AxialSelfAttention(DIM, HEADS, 0.0, "space"),
    "time": lambda: AxialSelfAttention(DIM, HEADS, 0.0, "time"),
}


def make(kind: str) -> nn.Module:
    return KINDS[kind]().double().eval()


def tokens(batch: int = 2, frames: int = T) -> Tensor:
    return torch.randn(batch, frames, N, DIM, dtype=torch.float64)


def masked_attention(module: nn.Module, x: Tensor, allowed: Tensor) -> Tensor:
    """Multi-head attention over all T * N tokens where only `allowed` (TN, TN) pairs count."""
    flat = x.flatten(1, 2)
    q, k, v = module.qkv(flat).chunk(3, dim=-1)
    out = torch.empty_like(flat)
    width = DIM // HEADS
    for head in range(HEADS):
        own = slice(head * width, (head + 1) * width)
        logits = q[..., own] @ k[..., own].transpose(1, 2) / math.sqrt(width)
        weights = logits.masked_fill(~allowed, -torch.inf).softmax(-1)
        out[..., own] = weights @ v[..., own]
    result: Tensor = module.output(out).reshape(x.shape)
    return result


def pairs(kind: str) -> Tensor:
    frame = torch.arange(T * N) // N
    place = torch.arange(T * N) % N
    everything = torch.ones(T * N, T * N, dtype=torch.bool)
    return {
        "joint": everything,
        "space": frame[:, None] == frame,
        "time": place[:, None] == place,
    }[kind]


def support(module: nn.Module, frame: int, place: int) -> set[tuple[int, int]]:
    """The input tokens that token (frame, place) of the output depends on."""
    x = tokens(1).requires_grad_()
    weights = torch.randn(DIM, dtype=torch.float64)
    (module(x, None)[0, frame, place] * weights).sum().backward()
    assert x.grad is not None
    return {tuple(index) for index in (x.grad[0].abs().amax(-1) > 0).nonzero().tolist()}


@pytest.mark.parametrize("kind", ["joint", "space", "time"])
def test_equals_dense_attention_over_the_allowed_pairs(kind: str) -> None:
    module, x = make(kind), tokens()
    torch.testing.assert_close(module(x, None), masked_attention(module, x, pairs(kind)))


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("joint", {(t, n) for t in range(T) for n in range(N)}),
        ("space", {(1, n) for n in range(N)}),
        ("time", {(t, 2) for t in range(T)}),
        ("factorised", {(t, n) for t in range(T) for n in range(N)}),
    ],
)
def test_support_of_one_token(kind: str, expected: set[tuple[int, int]]) -> None:
    assert support(make(kind), 1, 2) == expected


def test_factorised_is_space_then_time_with_residuals() -> None:
    module, x = make("factorised"), tokens()
    after_space = x + masked_attention(module.space, x, pairs("space"))
    after_time = after_space + masked_attention(module.time, after_space, pairs("time"))
    torch.testing.assert_close(x + module(x, None), after_time)


@pytest.mark.parametrize("kind", list(KINDS))
def test_equivariant_to_permuted_places_and_frames(kind: str) -> None:
    module, x = make(kind), tokens()
    frames, places = torch.tensor([2, 0, 1]), torch.tensor([3, 1, 0, 2])
    moved = module(x[:, frames][:, :, places], None)
    torch.testing.assert_close(moved, module(x, None)[:, frames][:, :, places])


@pytest.mark.parametrize("kind", ["joint", "factorised"])
def test_padded_frames_change_nothing(kind: str) -> None:
    module, x = make(kind), tokens(2, 5)
    valid = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]], dtype=torch.bool)[..., None]
    padded = module(x, valid)
    torch.testing.assert_close(padded[:1, :3], module(x[:1, :3], None))
    torch.testing.assert_close(padded[1:], module(x[1:], None))


@pytest.mark.parametrize("kind", ["joint", "factorised"])
def test_padded_frames_get_no_gradient_from_valid_ones(kind: str) -> None:
    module, x = make(kind), tokens(1, 5).requires_grad_()
    valid = torch.tensor([[1, 1, 1, 0, 0]], dtype=torch.bool)[..., None]
    module(x, valid)[:, :3].square().sum().backward()
    assert x.grad is not None
    assert (x.grad[0].abs().amax((1, 2)) > 0).tolist() == [True, True, True, False, False]


def test_joint_dropout_acts_on_the_attention_weights() -> None:
    module = JointSelfAttention(DIM, HEADS, 0.5).double()
    nn.init.zeros_(module.qkv.weight)  # equal weights over equal values ...
    nn.init.ones_(module.qkv.bias)
    nn.init.eye_(module.output.weight)
    nn.init.zeros_(module.output.bias)
    ones = torch.ones_like(tokens())
    torch.testing.assert_close(module.eval()(tokens(), None), ones)
    # ... give multiples of 1 / ((1 - p) TN): each of the TN weights is dropped or doubled.
    kept = module.train()(tokens(), None) * T * N / 2
    torch.testing.assert_close(kept, kept.round())
    assert (kept != T * N / 2).double().mean() > 0
    assert kept.unique().numel() > 2


@pytest.mark.parametrize("axis", ["space", "time"])
def test_axial_dropout_acts_on_the_attention_output(axis: str) -> None:
    module = KINDS[axis]().double()
    module.dropout.p = 0.5
    nn.init.zeros_(module.qkv.weight)
    nn.init.ones_(module.qkv.bias)
    nn.init.eye_(module.output.weight)
    nn.init.zeros_(module.output.bias)
    assert set(module.train()(tokens(), None).detach().unique().tolist()) == {0.0, 2.0}
    assert set(module.eval()(tokens(), None).detach().unique().tolist()) == {1.0}


@pytest.mark.parametrize("kind", ["joint", "factorised"])
def test_block_is_post_norm(kind: SelfAttentionKind) -> None:
    config = dataclasses.replace(AsyCMSTConfig.demo(), dim=DIM, heads=HEADS, stsa=kind)
    block, x = SelfAttentionBlock(config).double().eval(), tokens()
    nn.init.normal_(block.norm.weight)
    nn.init.normal_(block.norm.bias)
    total = x + block.attention(x, None)
    centred = total - total.mean(-1, keepdim=True)
    spread = (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()
    torch.testing.assert_close(
        block(x, None), centred / spread * block.norm.weight + block.norm.bias
    )


@pytest.mark.parametrize(
    ("stsa", "expected"), [("joint", 4 * 48**2 + 4 * 48), ("factorised", 8 * 48**2 + 8 * 48)]
)
def test_parameter_count(stsa: SelfAttentionKind, expected: int) -> None:
    config = dataclasses.replace(AsyCMSTConfig.demo(), stsa=stsa)
    block = SelfAttentionBlock(config)
    assert sum(p.numel() for p in block.attention.parameters()) == expected


def test_evaluation_is_deterministic_and_training_is_not() -> None:
    block = SelfAttentionBlock(dataclasses.replace(AsyCMSTConfig.demo(), dropout=0.1))
    x = torch.randn(1, 8, 16, 48)
    assert not torch.equal(block(x, None), block(x, None))
    block.eval()
    assert torch.equal(block(x, None), block(x, None))


def test_joint_attention_matches_torchs_multi_head_attention() -> None:
    module, x = make("joint"), tokens()
    oracle = nn.MultiheadAttention(DIM, HEADS, batch_first=True, dtype=torch.float64).eval()
    with torch.no_grad():
        assert oracle.in_proj_weight is not None
        oracle.in_proj_weight.copy_(module.qkv.weight)
        oracle.in_proj_bias.copy_(module.qkv.bias)
        oracle.out_proj.load_state_dict(module.output.state_dict())
    flat = x.flatten(1, 2)
    expected, _ = oracle(flat, flat, flat)
    torch.testing.assert_close(module(x, None).flatten(1, 2), expected)
