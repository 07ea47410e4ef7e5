"""Attention along the axes of paired video token grids, a ranking loss, gates, saliency losses.

Both directions of asymmetric cross-modal spatio-temporal attention are one operation, attention
along one axis of a grid (B, T, N, H, d). Compiled C++ serves CPU tensors, Triton CUDA tensors,
plain PyTorch every other device; `reference` defines what they all compute.
"""

from asycmst_ops import reference
from asycmst_ops._info import info
from asycmst_ops.acmst import acmst_attention, acmst_attention_qkvpacked
from asycmst_ops.axial import attention_weights, axial_attention
from asycmst_ops.decompositions import decomposition_table
from asycmst_ops.gates import dual_attention_gates
from asycmst_ops.ranking import fss_ranking_loss
from asycmst_ops.saliency_losses import saliency_losses
from asycmst_ops.strategies import cross_modal_attention

__all__ = [
    "acmst_attention",
    "acmst_attention_qkvpacked",
    "attention_weights",
    "axial_attention",
    "cross_modal_attention",
    "decomposition_table",
    "dual_attention_gates",
    "fss_ranking_loss",
    "info",
    "reference",
    "saliency_losses",
]
