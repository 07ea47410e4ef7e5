"""The asymmetric cross-modal attention: both directions in one call (Section 3.3)."""

from torch import Tensor

from asycmst_ops import _library
from asycmst_ops._checks import (
    cast_for_autocast,
    check_grids,
    check_joint,
    check_mask,
    check_same_shape,
    check_scale,
)


def acmst_attention(
    q_bus: Tensor,
    k_ceus: Tensor,
    v_ceus: Tensor,
    q_ceus: Tensor,
    k_bus: Tensor,
    v_bus: Tensor,
    *,
    scale: float | None = None,
    bus_mask: Tensor | None = None,
    ceus_mask: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """BUS tokens look along time in CEUS, CEUS tokens over space in their BUS frame.

    att_bus[t, n] = softmax over t' of (q_bus[t, n] k_ceus[t', n] * scale) v_ceus[t', n]  (Eq 8)
    att_ceus[t, n] = softmax over n' of (q_ceus[t, n] k_bus[t, n'] * scale) v_bus[t, n']  (Eq 10)

    Args:
        q_bus, k_ceus, v_ceus, q_ceus, k_bus, v_bus: grids (B, T, N, H, d) of one shape, dtype
            (float16, bfloat16, float32 or float64) and device; any strides.
        scale: factor on the scores; None means 1/sqrt(d).
        bus_mask: bool, True where a BUS key takes part (acts on `att_ceus`); broadcasts to
            (B, T, N). Queries are never masked; one without a key gives 0 and zero gradients.
        ceus_mask: the same for CEUS keys (acts on `att_bus`).

    Returns:
        (att_bus, att_ceus), both (B, T, N, H, d) in the dtype of the inputs, contiguous.

    Raises:
        TypeError: mixed or unserved dtypes, mixed devices, a mask that is not bool.
        ValueError: grids of different shapes, a mask that does not broadcast, a scale that is
            not finite.
    """
    grids = (q_bus, k_ceus, v_ceus, q_ceus, k_bus, v_bus)
    return _acmst(*check_joint(grids, scale, bus_mask, ceus_mask))  # type: ignore[no-any-return]


def acmst_attention_qkvpacked(
    qkv_bus: Tensor,
    qkv_ceus: Tensor,
    *,
    scale: float | None = None,
    bus_mask: Tensor | None = None,
    ceus_mask: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """`acmst_attention` on fused projections, read in place (Eq 6-8 and Eq 10).

    Args:
        qkv_bus: (B, T, N, 3, H, d), queries, keys and values of the BUS tokens in this order.
        qkv_ceus: the same of the CEUS tokens.
        scale, bus_mask, ceus_mask: as in `acmst_attention`.

    Returns:
        (att_bus, att_ceus), both (B, T, N, H, d), contiguous. The backward writes one packed
        gradient for each input.

    Raises:
        TypeError, ValueError: as in `acmst_attention`.
    """
    bus, ceus = cast_for_autocast(qkv_bus, qkv_ceus)
    named = {"qkv_bus": bus, "qkv_ceus": ceus}
    check_grids(named, packed=True)
    check_same_shape(named)
    factor = check_scale(scale, bus.shape[-1])
    bus_keys = check_mask("bus_mask", bus_mask, bus)
    ceus_keys = check_mask("ceus_mask", ceus_mask, ceus)
    return _acmst_qkvpacked(bus, ceus, bus_keys, ceus_keys, factor)  # type: ignore[no-any-return]


_acmst = _library.register_recomputing(_library.acmst, _library.acmst_backward, tensors=8)
_acmst_qkvpacked = _library.register_recomputing(
    _library.acmst_qkvpacked, _library.acmst_qkvpacked_backward, tensors=4
)
