"""What the asymmetric cross-attention looks at: when (Eq 8) and where (Eq 10)."""

from typing import NamedTuple

from torch import Tensor

from asycmst.encoders import feature_grid
from asycmst.model import AsyCMST, attention_inputs
from asycmst_ops import attention_weights


class CrossAttentionMaps(NamedTuple):
    """Attention weights averaged over the heads; every distribution sums to 1.

    Attributes:
        when_by_place: shape (B, h, w, T, T), for each place of the feature grid the weights of a
            BUS frame (fourth axis) over the CEUS frames (last axis).
        when: shape (B, T, T), its mean over the places.
        where: shape (B, T, h, w), the weights of a CEUS frame over the places of the BUS frame of
            the same time, averaged over the asking places.
    """

    when_by_place: Tensor
    when: Tensor
    where: Tensor


def has_cross_attention_maps(model: AsyCMST) -> bool:
    """Whether a model has the attention that :func:`cross_attention_maps` shows."""
    config = model.config
    return config.cross_attention == "asymmetric" and bool(config.cross_attention_layers)


def cross_attention_maps(
    model: AsyCMST, bus: Tensor, ceus: Tensor, layer: int | None = None
) -> CrossAttentionMaps:
    """The weights of one layer's asymmetric cross-attention.

    Args:
        model: in evaluation mode, with asymmetric cross-attention.
        bus: float, shape (B, 3, T, H', W'), values in [0, 1].
        ceus: as `bus`.
        layer: the layer, counted from 1; None is the last one with a cross-attention.

    Returns:
        The maps, float32.

    Raises:
        ValueError: the model is in training mode, has another kind of cross-attention or none,
            or has none in `layer`.
    """
    if not has_cross_attention_maps(model):
        raise ValueError(
            f"the model's cross_attention is {model.config.cross_attention!r} in layers "
            f"{model.config.cross_attention_layers}: maps of when and where need the asymmetric "
            "one in at least one layer"
        )
    layers = model.config.cross_attention_layers
    chosen = layers[-1] if layer is None else layer
    if chosen not in layers:
        raise ValueError(f"layer {chosen} has no cross-attention: choose one of {layers}")
    inputs = attention_inputs(model, bus, ceus)[layers.index(chosen)]
    when = attention_weights(inputs.q_bus, inputs.k_ceus, axis="time").float().mean(dim=3)
    where = attention_weights(inputs.q_ceus, inputs.k_bus, axis="space").float().mean(dim=(2, 3))
    grid = feature_grid(model.config)
    by_place = when.transpose(1, 2)
    return CrossAttentionMaps(
        when_by_place=by_place.unflatten(1, grid),
        when=by_place.mean(dim=1),
        where=where.unflatten(2, grid),
    )
