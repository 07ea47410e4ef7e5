"""Which tokens a self-attention reaches (Section 3.1, after ViViT's models 1, 3 and 4)."""

import dataclasses
import math

import pytest
import torch
from torch import Tensor, nn

from asycmst.config import AsyCMSTConfig
from asycmst.stsa import (
    DotProductSelfAttention,
    FactorisedSelfAttention,
    JointSelfAttention,
    SelfAttentionBlock,
)

T, N, DIM, HEADS = 3, 4, 8, 4
WIDTH = DIM // HEADS
EVERYWHERE = {(t, n) for t in range(T) for n in range(N)}
FRAME = {(1, n) for n in range(N)}
COLUMN = {(t, 2) for t in range(T)}


def tokens(batch: int = 2, frames: int = T) -> Tensor:
    return torch.randn(batch, frames, N, DIM, dtype=torch.float64)


def dot_product(dropout: float = 0.0) -> DotProductSelfAttention:
    return DotProductSelfAttention(DIM, HEADS, dropout).double().eval()


def without_output_map(module: DotProductSelfAttention) -> DotProductSelfAttention:
    """The heads lie side by side in the result."""
    nn.init.eye_(module.output.weight)
    nn.init.zeros_(module.output.bias)
    return module


def support(module: nn.Module, channels: slice = slice(None)) -> set[tuple[int, int]]:
    """The input tokens that some channels of token (1, 2) of the output depend on."""
    x = tokens(1).requires_grad_()
    out = module(x, None)[0, 1, 2, channels]
    (gradient,) = torch.autograd.grad((out * torch.randn_like(out)).sum(), x)
    return {tuple(index) for index in (gradient[0].abs().amax(-1) > 0).nonzero().tolist()}


@pytest.mark.parametrize("head", range(HEADS))
def test_the_first_heads_see_their_frame_and_the_others_their_place(head: int) -> None:
    module = without_output_map(dot_product())
    seen = support(module, slice(head * WIDTH, (head + 1) * WIDTH))
    assert seen == (FRAME if head < HEADS // 2 else COLUMN)


def test_a_token_of_dot_product_attention_sees_its_frame_and_its_place() -> None:
    assert support(dot_product()) == FRAME | COLUMN


def test_the_spatial_half_stays_in_the_frame_and_both_halves_reach_everything() -> None:
    module = FactorisedSelfAttention(DIM, HEADS, 0.0).double().eval()
    assert support(module.space) == FRAME
    assert support(module.time) == COLUMN
    assert support(module) == EVERYWHERE


def test_dot_product_equals_dense_attention_with_a_mask_for_each_head() -> None:
    module, x = dot_product(), tokens()
    frame, place = torch.arange(T * N) // N, torch.arange(T * N) % N
    flat = x.flatten(1, 2)
    q, k, v = module.qkv(flat).chunk(3, dim=-1)
    mixed = torch.empty_like(flat)
    for head in range(HEADS):
        own = slice(head * WIDTH, (head + 1) * WIDTH)
        group = frame if head < HEADS // 2 else place
        logits = q[..., own] @ k[..., own].transpose(1, 2) / math.sqrt(WIDTH)
        weights = logits.masked_fill(group[:, None] != group, -math.inf).softmax(-1)
        mixed[..., own] = weights @ v[..., own]
    torch.testing.assert_close(module(x, None), module.output(mixed).reshape(x.shape))


def test_dot_product_has_one_projection_in_and_one_out() -> None:
    assert sum(p.numel() for p in dot_product().parameters()) == 4 * DIM**2 + 4 * DIM


def test_dot_product_leaves_padded_frames_out() -> None:
    module, x = dot_product(), tokens(2, 5)
    valid = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]], dtype=torch.bool)[..., None]
    padded = module(x, valid)
    torch.testing.assert_close(padded[:1, :3], module(x[:1, :3], None))
    torch.testing.assert_close(padded[1:], module(x[1:], None))


def test_dot_product_dropout_acts_on_the_attention_output_and_in_training_only() -> None:
    module = without_output_map(dot_product(dropout=0.5))
    nn.init.zeros_(module.qkv.weight)
    nn.init.ones_(module.qkv.bias)  # all values are 1
    assert set(module(tokens(), None).unique().tolist()) == {1.0}
    assert set(module.train()(tokens(), None).unique().tolist()) == {0.0, 2.0}


@torch.no_grad()
def test_joint_attention_at_the_papers_size_is_dense_over_784_tokens() -> None:
    module = JointSelfAttention(4, 2, 0.0).double().eval()
    x = torch.randn(1, 16, 49, 4, dtype=torch.float64)
    q, k, v = module.qkv(x.reshape(784, 4)).reshape(784, 3, 2, 2).permute(1, 2, 0, 3)
    weights = (q @ k.transpose(1, 2) / math.sqrt(2)).softmax(-1)
    assert weights.shape == (2, 784, 784)
    expected = module.output((weights @ v).transpose(0, 1).reshape(784, 4))
    torch.testing.assert_close(module(x, None).reshape(784, 4), expected)


def test_a_norm_before_the_attention_leaves_the_residual_alone() -> None:
    config = dataclasses.replace(AsyCMSTConfig.demo(), dim=DIM, heads=HEADS, norm="pre")
    block, x = SelfAttentionBlock(config).double().eval(), tokens()
    nn.init.normal_(block.norm.weight)
    nn.init.normal_(block.norm.bias)
    spread = (x.var(-1, unbiased=False, keepdim=True) + 1e-5).sqrt()
    normed = (x - x.mean(-1, keepdim=True)) / spread * block.norm.weight + block.norm.bias
    torch.testing.assert_close(block(x, None), x + block.attention(normed, None))


def test_the_papers_block_drops_a_tenth_of_the_weights() -> None:
    with torch.device("meta"):
        block = SelfAttentionBlock(AsyCMSTConfig.paper())
    assert isinstance(block.attention, JointSelfAttention)
    assert block.attention.dropout == 0.1
