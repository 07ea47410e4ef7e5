"""Cross-modal attention between the two streams: Eq 6-11, and the other key sets of Table 5.

In all classes `valid` is None or bool (B, T, 1); keys in frames where it is False take no part.
"""

from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from asycmst.config import Strategy
from asycmst.dropout import Dropout
from asycmst_ops import acmst_attention, acmst_attention_qkvpacked, axial_attention
from asycmst_ops import cross_modal_attention as attend_by_strategy


class StreamProjection(nn.Linear):
    """Q, K and V of one stream by one linear map D -> 3D (Eq 6-7), as (B, T, N, H, d).

    The three outputs lie one after another, head h on channels h * d to (h + 1) * d - 1 of each.
    """

    def __init__(self, dim: int, heads: int, bias: bool) -> None:
        super().__init__(dim, 3 * dim, bias)
        self.heads = heads

    def packed(self, tokens: Tensor) -> Tensor:
        """All three of the same tokens, (B, T, N, 3, H, d)."""
        qkv: Tensor = self(tokens).unflatten(-1, (3, self.heads, -1))
        return qkv

    def query(self, tokens: Tensor) -> Tensor:
        """Q alone."""
        dim = self.in_features
        bias = None if self.bias is None else self.bias[:dim]
        query: Tensor = F.linear(tokens, self.weight[:dim], bias).unflatten(-1, (self.heads, -1))
        return query

    def key_value(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """K and V, by one product."""
        dim = self.in_features
        bias = None if self.bias is None else self.bias[dim:]
        both = F.linear(tokens, self.weight[dim:], bias).unflatten(-1, (2, self.heads, -1))
        key, value = both.unbind(3)
        return key, value


class KeySet:
    """Which keys of the other stream a query sees, for both directions or for one.

    Grids are (B, T, N, H, d), packed ones (B, T, N, 3, H, d).
    """

    def packed(
        self, qkv_bus: Tensor, qkv_ceus: Tensor, valid: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Both directions of packed projections."""
        q_bus, k_bus, v_bus = qkv_bus.unbind(3)
        q_ceus, k_ceus, v_ceus = qkv_ceus.unbind(3)
        return self.both(q_bus, k_ceus, v_ceus, q_ceus, k_bus, v_bus, valid)

    def both(
        self,
        q_bus: Tensor,
        k_ceus: Tensor,
        v_ceus: Tensor,
        q_ceus: Tensor,
        k_bus: Tensor,
        v_bus: Tensor,
        valid: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        """Both directions."""
        raise NotImplementedError

    def of_bus(self, q: Tensor, k: Tensor, v: Tensor, valid: Tensor | None) -> Tensor:
        """BUS queries over CEUS keys."""
        raise NotImplementedError

    def of_ceus(self, q: Tensor, k: Tensor, v: Tensor, valid: Tensor | None) -> Tensor:
        """CEUS queries over BUS keys."""
        raise NotImplementedError


class AsymmetricKeys(KeySet):
    """ACMST: BUS reads its place in all CEUS frames (Eq 8), CEUS its BUS frame (Eq 10)."""

    def packed(
        self, qkv_bus: Tensor, qkv_ceus: Tensor, valid: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Both directions of packed projections, read in place."""
        return acmst_attention_qkvpacked(qkv_bus, qkv_ceus, bus_mask=valid, ceus_mask=valid)

    def both(
        self,
        q_bus: Tensor,
        k_ceus: Tensor,
        v_ceus: Tensor,
        q_ceus: Tensor,
        k_bus: Tensor,
        v_bus: Tensor,
        valid: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        """Both directions."""
        return acmst_attention(
            q_bus, k_ceus, v_ceus, q_ceus, k_bus, v_bus, bus_mask=valid, ceus_mask=valid
        )

    def of_bus(self, q: Tensor, k: Tensor, v: Tensor, valid: Tensor | None) -> Tensor:
        """BUS queries over CEUS keys, Eq 8."""
        return axial_attention(q, k, v, axis="time", key_mask=valid)

    def of_ceus(self, q: Tensor, k: Tensor, v: Tensor, valid: Tensor | None) -> Tensor:
        """CEUS queries over BUS keys, Eq 10."""
        return axial_attention(q, k, v, axis="space", key_mask=valid)


class UniformKeys(KeySet):
    """The same kind of keys in both directions: the other strategies of Table 5."""

    def __init__(self, strategy: Literal["symmetric", "spatial", "temporal", "global"]) -> None:
        self.strategy = strategy

    def both(
        self,
        q_bus: Tensor,
        k_ceus: Tensor,
        v_ceus: Tensor,
        q_ceus: Tensor,
        k_bus: Tensor,
        v_bus: Tensor,
        valid: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        """Both directions."""
        return attend_by_strategy(
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

    def of_bus(self, q: Tensor, k: Tensor, v: Tensor, valid: Tensor | None) -> Tensor:
        """BUS queries over CEUS keys; the operator's second direction is computed and dropped."""
        return self.both(q, k, v, q, k, v, valid)[0]

    def of_ceus(self, q: Tensor, k: Tensor, v: Tensor, valid: Tensor | None) -> Tensor:
        """CEUS queries over BUS keys, as `of_bus`."""
        return self.of_bus(q, k, v, valid)


class RecordedKeys(KeySet):
    """Another key set that notes the queries and keys of every call in `calls`.

    A call of both directions leaves (Q_B, K_C, Q_C, K_B), one of a single direction its half.
    """

    def __init__(self, keys: KeySet) -> None:
        self.keys = keys
        self.calls: list[tuple[Tensor, ...]] = []

    def both(
        self,
        q_bus: Tensor,
        k_ceus: Tensor,
        v_ceus: Tensor,
        q_ceus: Tensor,
        k_bus: Tensor,
        v_bus: Tensor,
        valid: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        """Both directions."""
        self.calls.append((q_bus, k_ceus, q_ceus, k_bus))
        return self.keys.both(q_bus, k_ceus, v_ceus, q_ceus, k_bus, v_bus, valid)

    def of_bus(self, q: Tensor, k: Tensor, v: Tensor, valid: Tensor | None) -> Tensor:
        """BUS queries over CEUS keys."""
        self.calls.append((q, k))
        return self.keys.of_bus(q, k, v, valid)

    def of_ceus(self, q: Tensor, k: Tensor, v: Tensor, valid: Tensor | None) -> Tensor:
        """CEUS queries over BUS keys."""
        self.calls.append((q, k))
        return self.keys.of_ceus(q, k, v, valid)


class CrossModalAttention(nn.Module):
    """Projections around an attention between the streams.

    `project_bus` makes Q_B, K_B, V_B and `project_ceus` Q_C, K_C, V_C; `output_bus` is W_B^O
    (Eq 9) and `output_ceus` W_C^O (Eq 11).

    Args:
        dim: Token width D.
        heads: M; they divide `dim`.
        keys: Which keys a query sees.
        dropout: Probability on the attention's output.
        bias: Whether the linear maps have one.
    """

    def __init__(
        self, dim: int, heads: int, keys: KeySet, dropout: float = 0.0, bias: bool = True
    ) -> None:
        super().__init__()
        self.keys = keys
        self.project_bus = StreamProjection(dim, heads, bias)
        self.project_ceus = StreamProjection(dim, heads, bias)
        self.output_bus = nn.Linear(dim, dim, bias)
        self.output_ceus = nn.Linear(dim, dim, bias)
        self.dropout = Dropout(dropout)

    def forward(self, bus: Tensor, ceus: Tensor, valid: Tensor | None) -> tuple[Tensor, Tensor]:
        """What each stream reads from the other, both as they are (Algorithm 2).

        Args:
            bus: Shape (B, T, N, D).
            ceus: Shape (B, T, N, D).
            valid: See above.

        Returns:
            Att_{B->C} W_B^O and Att_{C->B} W_C^O, each (B, T, N, D).
        """
        qkv_bus, qkv_ceus = self.project_bus.packed(bus), self.project_ceus.packed(ceus)
        att_bus, att_ceus = self.keys.packed(qkv_bus, qkv_ceus, valid)
        return self._out_bus(att_bus), self._out_ceus(att_ceus)

    def read_earlier(
        self, bus: Tensor, ceus: Tensor, from_bus: Tensor, from_ceus: Tensor, valid: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """As `forward`, but the queries of `bus` and `ceus` read `from_ceus` and `from_bus`."""
        k_bus, v_bus = self.project_bus.key_value(from_bus)
        k_ceus, v_ceus = self.project_ceus.key_value(from_ceus)
        q_bus, q_ceus = self.project_bus.query(bus), self.project_ceus.query(ceus)
        att_bus, att_ceus = self.keys.both(q_bus, k_ceus, v_ceus, q_ceus, k_bus, v_bus, valid)
        return self._out_bus(att_bus), self._out_ceus(att_ceus)

    def read_ceus(self, bus: Tensor, from_ceus: Tensor, valid: Tensor | None) -> Tensor:
        """What the BUS stream reads from CEUS tokens, (B, T, N, D)."""
        query, (key, value) = self.project_bus.query(bus), self.project_ceus.key_value(from_ceus)
        return self._out_bus(self.keys.of_bus(query, key, value, valid))

    def read_bus(self, ceus: Tensor, from_bus: Tensor, valid: Tensor | None) -> Tensor:
        """What the CEUS stream reads from BUS tokens, (B, T, N, D)."""
        query, (key, value) = self.project_ceus.query(ceus), self.project_bus.key_value(from_bus)
        return self._out_ceus(self.keys.of_ceus(query, key, value, valid))

    def _out_bus(self, attended: Tensor) -> Tensor:
        out: Tensor = self.output_bus(self.dropout(attended.flatten(-2)))
        return out

    def _out_ceus(self, attended: Tensor) -> Tensor:
        out: Tensor = self.output_ceus(self.dropout(attended.flatten(-2)))
        return out


def key_set(strategy: Strategy) -> KeySet:
    """The key set of a strategy of Table 5."""
    return AsymmetricKeys() if strategy == "asymmetric" else UniformKeys(strategy)
