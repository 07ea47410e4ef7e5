"""Spatio-temporal self-attention of one stream, adapted from ViViT (Section 3.1).

ViViT's models 1, 3 and 4 are attentions of a layer and are here. Its model 2, a spatial encoder
followed by a temporal one, is an order of whole encoders, which leaves no layer for a cross-modal
attention to sit in, and is not offered.

All kinds map tokens (B, T, N, D) to tokens (B, T, N, D). `valid` is None or a bool tensor
(B, T, 1); keys in frames where it is False take no part.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from asycmst.config import AsyCMSTConfig
from asycmst.dropout import Dropout, dropout
from asycmst.residuals import residual_norm
from asycmst_ops import axial_attention


class JointSelfAttention(nn.Module):
    """Every token attends all T * N tokens of its clip (ViViT's model 1).

    Dropout acts on the attention weights.
    """

    def __init__(self, dim: int, heads: int, dropout: float, bias: bool = True) -> None:
        super().__init__()
        self.heads = heads
        self.dropout = dropout
        self.qkv = nn.Linear(dim, 3 * dim, bias)
        self.output = nn.Linear(dim, dim, bias)

    def forward(self, tokens: Tensor, valid: Tensor | None) -> Tensor:
        """Tokens (B, T, N, D) to tokens (B, T, N, D)."""
        packed = self.qkv(tokens).flatten(1, 2).unflatten(-1, (3, self.heads, -1))
        q, k, v = packed.permute(2, 0, 3, 1, 4)
        key_mask = None
        if valid is not None:
            key_mask = valid.expand(-1, -1, tokens.shape[2]).flatten(1)[:, None, None]
        probability = self.dropout if self.training else 0.0
        if probability > 0 and key_mask is None and q.device.type == "cpu":
            # torch has no fused attention with dropout there: the weights are in memory anyway.
            weights = (q * q.shape[-1] ** -0.5 @ k.transpose(-2, -1)).softmax(-1)
            mixed = dropout(weights, probability) @ v
        else:
            mixed = F.scaled_dot_product_attention(
                q, k, v, attn_mask=key_mask, dropout_p=probability
            )
        projected: Tensor = self.output(mixed.transpose(1, 2).reshape(tokens.shape))
        return projected


class AxialSelfAttention(nn.Module):
    """Every token attends its frame (axis "space") or its place in all frames (axis "time").

    The attention weights never leave the kernel, so dropout acts on the attention's output.
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        dropout: float,
        axis: Literal["space", "time"],
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.heads = heads
        self.axis = axis
        self.qkv = nn.Linear(dim, 3 * dim, bias)
        self.output = nn.Linear(dim, dim, bias)
        self.dropout = Dropout(dropout)

    def forward(self, tokens: Tensor, valid: Tensor | None) -> Tensor:
        """Tokens (B, T, N, D) to tokens (B, T, N, D)."""
        q, k, v = self.qkv(tokens).unflatten(-1, (3, self.heads, -1)).unbind(3)
        mixed = axial_attention(q, k, v, axis=self.axis, key_mask=valid).flatten(-2)
        projected: Tensor = self.output(self.dropout(mixed))
        return projected


class FactorisedSelfAttention(nn.Module):
    """Attention over space, then over time, in series with residuals (ViViT's model 3).

    With s = Space(x) and t = Time(x + s) the result is s + t, so that the block's own residual
    x + (s + t) closes both. T * N * (T + N) interactions instead of (T * N)^2. Dropout acts on
    the output of each attention, not on its weights.
    """

    def __init__(self, dim: int, heads: int, dropout: float, bias: bool = True) -> None:
        super().__init__()
        self.space = AxialSelfAttention(dim, heads, dropout, "space", bias)
        self.time = AxialSelfAttention(dim, heads, dropout, "time", bias)

    def forward(self, tokens: Tensor, valid: Tensor | None) -> Tensor:
        """Tokens (B, T, N, D) to tokens (B, T, N, D)."""
        spatial: Tensor = self.space(tokens, valid)
        temporal: Tensor = self.time(tokens + spatial, valid)
        return spatial + temporal


class DotProductSelfAttention(nn.Module):
    """The first half of the heads attends over space, the second over time (ViViT's model 4).

    One projection in, one out; T * N * (T + N) / 2 interactions per head on average. Dropout acts
    on the attention's output.
    """

    def __init__(self, dim: int, heads: int, dropout: float, bias: bool = True) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim, bias)
        self.output = nn.Linear(dim, dim, bias)
        self.dropout = Dropout(dropout)

    def forward(self, tokens: Tensor, valid: Tensor | None) -> Tensor:
        """Tokens (B, T, N, D) to tokens (B, T, N, D)."""
        packed = self.qkv(tokens).unflatten(-1, (3, self.heads, -1))
        over_space, over_time = packed.chunk(2, dim=-2)
        mixed = torch.cat(
            (
                axial_attention(*over_space.unbind(3), axis="space", key_mask=valid),
                axial_attention(*over_time.unbind(3), axis="time", key_mask=valid),
            ),
            dim=-2,
        )
        projected: Tensor = self.output(self.dropout(mixed.flatten(-2)))
        return projected


class SelfAttentionBlock(nn.Module):
    """The self-attention and its residual: x <- LN(x + STSA(x)), or x <- x + STSA(LN(x))."""

    def __init__(self, config: AsyCMSTConfig) -> None:
        super().__init__()
        kind = _KINDS[config.stsa]
        self.attention = kind(config.dim, config.heads, config.dropout, config.bias)
        self.norm = residual_norm(config.norm, config.dim)

    def forward(self, tokens: Tensor, valid: Tensor | None) -> Tensor:
        """Tokens (B, T, N, D) to tokens (B, T, N, D)."""
        return self.norm.leave(tokens, self.attention(self.norm.enter(tokens), valid))


_KINDS = {
    "joint": JointSelfAttention,
    "factorised": FactorisedSelfAttention,
    "dot_product": DotProductSelfAttention,
}
