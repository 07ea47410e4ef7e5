"""Attention over the own column and the own frame in one softmax: "symmetric" in Table 5."""

from torch import Tensor

from asycmst_ops import _library
from asycmst_ops._checks import JointCall


def union_attention(call: JointCall) -> tuple[Tensor, Tensor]:
    """Both directions of a checked call: token (t, n) attends all (t', n) and (t, n').

    Returns:
        (att_bus, att_ceus), both (B, T, N, H, d), contiguous.
    """
    return _union(*call)  # type: ignore[no-any-return]


_union = _library.register_recomputing(_library.union, _library.union_backward, tensors=8)
