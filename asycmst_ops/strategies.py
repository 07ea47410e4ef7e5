"""The cross-attention strategies of Table 5 behind one call: only the key set differs."""

from typing import Literal, get_args

import torch.nn.functional as F
from torch import Tensor

from asycmst_ops._checks import check_joint
from asycmst_ops.acmst import acmst_attention
from asycmst_ops.axial import axial_attention
from asycmst_ops.union import union_attention

Strategy = Literal["asymmetric", "symmetric", "spatial", "temporal", "global"]


def cross_modal_attention(
    q_bus: Tensor,
    k_ceus: Tensor,
    v_ceus: Tensor,
    q_ceus: Tensor,
    k_bus: Tensor,
    v_bus: Tensor,
    *,
    strategy: Strategy,
    scale: float | None = None,
    bus_mask: Tensor | None = None,
    ceus_mask: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Cross-modal attention with the key set of one row of Table 5 (Section 4.6).

    Keys of query (t, n): "asymmetric": (t', n) for BUS queries and (t, n') for CEUS queries;
    "spatial": (t, n') for both; "temporal": (t', n) for both; "symmetric": both sets in one
    softmax, the own place once; "global": all (t', n'), by scaled_dot_product_attention.

    Args:
        q_bus, k_ceus, v_ceus, q_ceus, k_bus, v_bus: grids (B, T, N, H, d), as in
            `acmst_attention`.
        strategy: one of the five names.
        scale, bus_mask, ceus_mask: as in `acmst_attention`.

    Returns:
        (att_bus, att_ceus), both (B, T, N, H, d), contiguous.

    Raises:
        TypeError, ValueError: as in `acmst_attention`, and for an unknown strategy.
    """
    if strategy == "asymmetric":
        return acmst_attention(
            q_bus,
            k_ceus,
            v_ceus,
            q_ceus,
            k_bus,
            v_bus,
            scale=scale,
            bus_mask=bus_mask,
            ceus_mask=ceus_mask,
        )
    if strategy not in get_args(Strategy):
        raise ValueError(f"strategy is {strategy!r}; pass one of {', '.join(get_args(Strategy))}")
    grids = (q_bus, k_ceus, v_ceus, q_ceus, k_bus, v_bus)
    c = check_joint(grids, scale, bus_mask, ceus_mask)
    if strategy == "symmetric":
        return union_attention(c)
    if strategy == "global":
        return (
            _everywhere(c.q_bus, c.k_ceus, c.v_ceus, c.scale, c.ceus_mask),
            _everywhere(c.q_ceus, c.k_bus, c.v_bus, c.scale, c.bus_mask),
        )
    axis: Literal["time", "space"] = "space" if strategy == "spatial" else "time"
    return (
        axial_attention(
            c.q_bus, c.k_ceus, c.v_ceus, axis=axis, scale=c.scale, key_mask=c.ceus_mask
        ),
        axial_attention(c.q_ceus, c.k_bus, c.v_bus, axis=axis, scale=c.scale, key_mask=c.bus_mask),
    )


def _everywhere(q: Tensor, k: Tensor, v: Tensor, scale: float, keys: Tensor | None) -> Tensor:
    """Attention over all T*N keys by SDPA, which knows neither NaN under a mask nor empty rows."""
    mask = None
    if keys is not None:
        hidden = ~keys[..., None, None]
        k, v = k.masked_fill(hidden, 0.0), v.masked_fill(hidden, 0.0)
        row = keys.flatten(1)
        # Where no key is left, all (zeroed) values take part: the output and gradients are 0.
        mask = (row | ~row.any(1, keepdim=True))[:, None, None, :]
    flat_q, flat_k, flat_v = (x.flatten(1, 2).transpose(1, 2) for x in (q, k, v))
    out = F.scaled_dot_product_attention(flat_q, flat_k, flat_v, attn_mask=mask, scale=scale)
    return out.transpose(1, 2).reshape(q.shape).contiguous()
