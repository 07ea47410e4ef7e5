"""Attention along one axis of a token grid: the operation behind every other one here."""

from typing import Literal

from torch import Tensor

from asycmst_ops import _library, reference
from asycmst_ops._checks import (
    cast_for_autocast,
    check_axial_shapes,
    check_grids,
    check_mask,
    check_scale,
)

_DIMS = {"time": 1, "space": 2}


def axial_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    axis: Literal["time", "space"],
    scale: float | None = None,
    key_mask: Tensor | None = None,
) -> Tensor:
    """Attention of every token along the time or the space axis of its grid.

    "time": token (t, n) attends (t', n) for all t' (Eq 8). "space": token (t, n) attends (t, n')
    for all n' (Eq 10). softmax(q k' * scale) v within each head.

    Processors with AVX512_BF16 multiply bfloat16 in pairs: the softmax's weights are rounded to
    bfloat16 before they meet the values, and denormal numbers count as 0.

    Args:
        q: queries (B, T, N, H, d); float16, bfloat16, float32 or float64; any strides.
        k: keys, shaped as `q`; another length is allowed along the attended axis.
        v: values, shaped as `k`.
        axis: "time" or "space".
        scale: factor on the scores; None means 1/sqrt(d).
        key_mask: bool, True where a key takes part; broadcasts to (B, L, N) for "time" and to
            (B, T, L) for "space". A query without a key gives 0 and zero gradients.

    Returns:
        (B, T, N, H, d) in the dtype of the inputs, contiguous.

    Raises:
        TypeError: mixed or unserved dtypes, mixed devices, a mask that is not bool.
        ValueError: shapes that do not fit, an unknown axis, a scale that is not finite.
    """
    dim = _dim(axis)
    q, k, v = cast_for_autocast(q, k, v)
    check_grids({"q": q, "k": k, "v": v})
    check_axial_shapes(q, k, v, dim, axis)
    factor = check_scale(scale, q.shape[-1])
    return _axial(q, k, v, check_mask("key_mask", key_mask, k), dim, factor)  # type: ignore[no-any-return]


def attention_weights(
    q: Tensor,
    k: Tensor,
    *,
    axis: Literal["time", "space"],
    scale: float | None = None,
    key_mask: Tensor | None = None,
) -> Tensor:
    """The softmax weights that `axial_attention` applies, to look at: no gradient flows.

    Args and errors are those of `axial_attention`.

    Returns:
        (B, T, N, H, L), L keys along the axis; each row sums to 1, or to 0 without a key.
    """
    dim = _dim(axis)
    q, k = cast_for_autocast(q, k)
    check_grids({"q": q, "k": k})
    check_axial_shapes(q, k, None, dim, axis)
    factor = check_scale(scale, q.shape[-1])
    mask = check_mask("key_mask", key_mask, k)
    return reference.attention_weights(q, k, axis=axis, scale=factor, key_mask=mask)


def _dim(axis: str) -> int:
    if axis not in _DIMS:
        raise ValueError(f'axis is {axis!r}; pass "time" or "space"')
    return _DIMS[axis]


_axial = _library.register_recomputing(_library.axial, _library.axial_backward, tensors=4)
