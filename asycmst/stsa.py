"""Spatio-temporal self-attention of one stream, adapted from ViViT (Section 3.1).

Both kinds map tokens (B, T, N, D) to tokens (B, T, N, D). `valid` is None or a bool tensor
(B, T, 1); keys in frames where it is False take no part.
"""

from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from asycmst.config import AsyCMSTConfig
from asycmst_ops import axial_attention


class JointSelfAttention(nn.Module):
    """Every token attends all T * N tokens of its clip (ViViT's model 1).

    Dropout acts on the attention weights.
    """

    def __init__(self, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.dropout = dropout
        self.qkv = nn.Linear(dim, 3 * dim)
        self.output = nn.Linear(dim, dim)

    def forward(self, tokens: Tensor, valid: Tensor | None) -> Tensor:
        """Tokens (B, T, N, D) to tokens (B, T, N, D)."""
        packed = self.qkv(tokens).flatten(1, 2).unflatten(-1, (3, self.heads, -1))
        q, k, v = packed.permute(2, 0, 3, 1, 4)
        key_mask = None
        if valid is not None:
            key_mask = valid.expand(-1, -1, tokens.shape[2]).flatten(1)[:, None, None]
        dropout = self.dropout if self.training else 0.0
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=key_mask, dropout_p=dropout)
        projected: Tensor = self.output(mixed.transpose(1, 2).reshape(tokens.shape))
        return projected


class AxialSelfAttention(nn.Module):
    """Every token attends its frame (axis "space") or its place in all frames (axis "time").

    The attention weights never leave the kernel, so dropout acts on the attention's output.
    """

    def __init__(
        self, dim: int, heads: int, dropout: float, axis: Literal["space", "time"]
    ) -> None:
        super().__init__()
        self.heads = heads
        self.axis = axis
        self.qkv = nn.Linear(dim, 3 * dim)
        self.output = nn.Linear(dim, dim)
        self.dropout = nn.Dropout(dropout)

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

    def __init__(self, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.space = AxialSelfAttention(dim, heads, dropout, "space")
        self.time = AxialSelfAttention(dim, heads, dropout, "time")

    def forward(self, tokens: Tensor, valid: Tensor | None) -> Tensor:
        """Tokens (B, T, N, D) to tokens (B, T, N, D)."""
        spatial: Tensor = self.space(tokens, valid)
        temporal: Tensor = self.time(tokens + spatial, valid)
        return spatial + temporal


class SelfAttentionBlock(nn.Module):
    """x <- LN(x + STSA(x))."""

    def __init__(self, config: AsyCMSTConfig) -> None:
        super().__init__()
        kind = _KINDS[config.stsa]
        self.attention = kind(config.dim, config.heads, config.dropout)
        self.norm = nn.LayerNorm(config.dim)

    def forward(self, tokens: Tensor, valid: Tensor | None) -> Tensor:
        """Tokens (B, T, N, D) to tokens (B, T, N, D)."""
        updated: Tensor = self.norm(tokens + self.attention(tokens, valid))
        return updated


_KINDS = {"joint": JointSelfAttention, "factorised": FactorisedSelfAttention}
