"""Cross-modal attention between the streams and the layers it sits in (Section 3.3)."""

from typing import Literal

from torch import Tensor, nn

from asycmst.config import AsyCMSTConfig
from asycmst.stsa import SelfAttentionBlock
from asycmst_ops import acmst_attention_qkvpacked, cross_modal_attention


class CrossModalAttention(nn.Module):
    """Projections around a cross-modal attention; a subclass says which keys a token sees.

    `project_bus` makes Q_B, K_B, V_B and `project_ceus` Q_C, K_C, V_C (Eq 6-7); `output_bus` is
    W_B^O (Eq 9) and `output_ceus` is W_C^O (Eq 11). Attention weights have no dropout.
    """

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.project_bus = nn.Linear(dim, 3 * dim)
        self.project_ceus = nn.Linear(dim, 3 * dim)
        self.output_bus = nn.Linear(dim, dim)
        self.output_ceus = nn.Linear(dim, dim)

    def project(self, bus: Tensor, ceus: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens (B, T, N, D) to queries, keys and values, packed as (B, T, N, 3, H, d)."""
        heads = (3, self.heads, -1)
        qkv_bus: Tensor = self.project_bus(bus).unflatten(-1, heads)
        qkv_ceus: Tensor = self.project_ceus(ceus).unflatten(-1, heads)
        return qkv_bus, qkv_ceus

    def attend(
        self, qkv_bus: Tensor, qkv_ceus: Tensor, valid: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Packed projections to the attention of each stream, (B, T, N, H, d) both."""
        raise NotImplementedError

    def forward(self, bus: Tensor, ceus: Tensor, valid: Tensor | None) -> tuple[Tensor, Tensor]:
        """Att_{B->C} and Att_{C->B}, both from the same pair of streams (Algorithm 2).

        Args:
            bus: Shape (B, T, N, D).
            ceus: Shape (B, T, N, D).
            valid: None or bool (B, T, 1); keys in frames where it is False take no part.

        Returns:
            What BUS reads from CEUS and what CEUS reads from BUS, each (B, T, N, D).
        """
        att_bus, att_ceus = self.attend(*self.project(bus, ceus), valid)
        return self.output_bus(att_bus.flatten(-2)), self.output_ceus(att_ceus.flatten(-2))


class AsymmetricAttention(CrossModalAttention):
    """ACMST: BUS reads its place in all CEUS frames (Eq 8), CEUS its BUS frame (Eq 10)."""

    def attend(
        self, qkv_bus: Tensor, qkv_ceus: Tensor, valid: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Packed projections to the attention of each stream, (B, T, N, H, d) both."""
        return acmst_attention_qkvpacked(qkv_bus, qkv_ceus, bus_mask=valid, ceus_mask=valid)


class StrategyAttention(CrossModalAttention):
    """The other key sets of Table 5, the same in both directions."""

    def __init__(
        self,
        dim: int,
        heads: int,
        strategy: Literal["symmetric", "spatial", "temporal", "global"],
    ) -> None:
        super().__init__(dim, heads)
        self.strategy = strategy

    def attend(
        self, qkv_bus: Tensor, qkv_ceus: Tensor, valid: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Packed projections to the attention of each stream, (B, T, N, H, d) both."""
        q_bus, k_bus, v_bus = qkv_bus.unbind(3)
        q_ceus, k_ceus, v_ceus = qkv_ceus.unbind(3)
        return cross_modal_attention(
            q_bus,
            k_ceus,
            v_ceus,
            q_ceus,
            k_bus,
            v_bus,
            strategy=self.strategy,
            bus_mask=valid,
            ceus_mask=valid,
        )


class CrossAttentionBlock(nn.Module):
    """x <- LN(x + Att) in both streams at once."""

    def __init__(self, attention: CrossModalAttention, dim: int) -> None:
        super().__init__()
        self.attention = attention
        self.norm_bus = nn.LayerNorm(dim)
        self.norm_ceus = nn.LayerNorm(dim)

    def forward(self, bus: Tensor, ceus: Tensor, valid: Tensor | None) -> tuple[Tensor, Tensor]:
        """Streams (B, T, N, D) to streams (B, T, N, D)."""
        att_bus, att_ceus = self.attention(bus, ceus, valid)
        return self.norm_bus(bus + att_bus), self.norm_ceus(ceus + att_ceus)


class SeparateStreams(nn.Module):
    """In place of a `CrossAttentionBlock`: the streams pass by each other."""

    def forward(self, bus: Tensor, ceus: Tensor, valid: Tensor | None) -> tuple[Tensor, Tensor]:
        """Streams (B, T, N, D), returned as they are."""
        return bus, ceus


class FeedForwardBlock(nn.Module):
    """x <- LN(x + FFN(x)), the network being linear, ReLU, dropout, linear.

    Eq 12-13 print neither the residual nor this norm; both are taken here, as is usual.
    """

    def __init__(self, dim: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.network = nn.Sequential(
            nn.Linear(dim, hidden), nn.ReLU(), nn.Dropout(dropout), nn.Linear(hidden, dim)
        )
        self.norm = nn.LayerNorm(dim)

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens (..., D) to tokens (..., D)."""
        updated: Tensor = self.norm(tokens + self.network(tokens))
        return updated


class DualStreamLayer(nn.Module):
    """One stage of the dual stream: self-attention, cross-attention, feed-forward.

    Args:
        config: Sizes and kinds.
        number: The layer's number, counted from 1; it decides whether the layer has a
            cross-attention.
    """

    def __init__(self, config: AsyCMSTConfig, number: int) -> None:
        super().__init__()
        self.self_bus = SelfAttentionBlock(config)
        self.self_ceus = SelfAttentionBlock(config)
        self.cross = _cross_attention(config, number)
        self.ffn_bus = FeedForwardBlock(config.dim, config.ffn_dim, config.dropout)
        self.ffn_ceus = FeedForwardBlock(config.dim, config.ffn_dim, config.dropout)

    def forward(self, bus: Tensor, ceus: Tensor, valid: Tensor | None) -> tuple[Tensor, Tensor]:
        """X^(l) to X^(l+1), streams (B, T, N, D)."""
        bus, ceus = self.self_bus(bus, valid), self.self_ceus(ceus, valid)
        bus, ceus = self.cross(bus, ceus, valid)
        return self.ffn_bus(bus), self.ffn_ceus(ceus)


def _cross_attention(config: AsyCMSTConfig, number: int) -> CrossAttentionBlock | SeparateStreams:
    strategy = config.cross_attention
    if strategy is None or number not in config.cross_attention_layers:
        return SeparateStreams()
    attention = (
        AsymmetricAttention(config.dim, config.heads)
        if strategy == "asymmetric"
        else StrategyAttention(config.dim, config.heads, strategy)
    )
    return CrossAttentionBlock(attention, config.dim)
