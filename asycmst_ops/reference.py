"""The definition of every operator in plain PyTorch: the only oracle of this repository.

Each function has the name and the meaning of a public operator and runs on any device, in any
floating dtype, with ordinary autograd (second derivatives included). Nothing here is fast; the
attention weights are formed in full.
"""

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Axis = Literal["time", "space"]

_SCORES = {"time": "btnhd,bunhd->bnhtu", "space": "btnhd,btmhd->bthnm"}
_VALUES = {"time": "bnhtu,bunhd->btnhd", "space": "bthnm,btmhd->btnhd"}


def _scale(q: Tensor, scale: float | None) -> float:
    return 1.0 / math.sqrt(q.shape[-1]) if scale is None else scale


def _key_grid(mask: Tensor | None, k: Tensor) -> Tensor | None:
    """A mask broadcast to the key grid (B, L, N) or (B, T, L)."""
    return None if mask is None else torch.broadcast_to(mask, k.shape[:3])


def _only(x: Tensor, keys: Tensor | None) -> Tensor:
    """Zero where the key does not take part, so that NaN or Inf there cannot leak."""
    return x if keys is None else x.masked_fill(~keys[..., None, None], 0.0)


def _softmax(scores: Tensor, keys: Tensor | None) -> Tensor:
    """Softmax over the last dimension among the keys that take part; all zero without any."""
    if keys is None:
        return scores.softmax(-1)
    weights = scores.masked_fill(~keys, -math.inf)
    # A finite stand-in for empty rows: softmax of all -inf is NaN, also in the gradient.
    empty = ~keys.any(-1, keepdim=True)
    return weights.masked_fill(empty, 0.0).softmax(-1).masked_fill(empty, 0.0)


def _weights(q: Tensor, k: Tensor, keys: Tensor | None, axis: Axis, scale: float) -> Tensor:
    """Softmax weights, (B, N, H, T, L) for "time" and (B, T, H, N, L) for "space"."""
    scores = torch.einsum(_SCORES[axis], q, _only(k, keys)) * scale
    if keys is not None:
        # (B, L, N) -> (B, N, 1, 1, L) for "time"; (B, T, L) -> (B, T, 1, 1, L) for "space".
        keys = (keys.transpose(1, 2) if axis == "time" else keys)[:, :, None, None, :]
        keys = keys.expand(scores.shape)
    return _softmax(scores, keys)


def axial_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    axis: Axis,
    scale: float | None = None,
    key_mask: Tensor | None = None,
) -> Tensor:
    """Attention along one axis of a token grid (Eq 8 for "time", Eq 10 for "space").

    Args:
        q: queries, (B, T, N, H, d).
        k: keys, as `q`, or with another length along the attended axis.
        v: values, shaped as `k`.
        axis: "time": token (t, n) attends (t', n); "space": token (t, n) attends (t, n').
        scale: factor on the scores; None means 1/sqrt(d).
        key_mask: bool, broadcastable to `k.shape[:3]`; True means the key takes part.

    Returns:
        (B, T, N, H, d), contiguous.
    """
    keys = _key_grid(key_mask, k)
    weights = _weights(q, k, keys, axis, _scale(q, scale))
    return torch.einsum(_VALUES[axis], weights, _only(v, keys)).contiguous()


def attention_weights(
    q: Tensor,
    k: Tensor,
    *,
    axis: Axis,
    scale: float | None = None,
    key_mask: Tensor | None = None,
) -> Tensor:
    """The softmax weights of `axial_attention`, (B, T, N, H, L), without a gradient."""
    with torch.no_grad():
        weights = _weights(q, k, _key_grid(key_mask, k), axis, _scale(q, scale))
        order = (0, 3, 1, 2, 4) if axis == "time" else (0, 1, 3, 2, 4)
        return weights.permute(order).contiguous()


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
    """Both directions of the asymmetric cross-modal attention (Eq 8 and Eq 10)."""
    return (
        axial_attention(q_bus, k_ceus, v_ceus, axis="time", scale=scale, key_mask=ceus_mask),
        axial_attention(q_ceus, k_bus, v_bus, axis="space", scale=scale, key_mask=bus_mask),
    )


def acmst_attention_qkvpacked(
    qkv_bus: Tensor,
    qkv_ceus: Tensor,
    *,
    scale: float | None = None,
    bus_mask: Tensor | None = None,
    ceus_mask: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """`acmst_attention` of two packed grids (B, T, N, 3, H, d)."""
    q_bus, k_bus, v_bus = qkv_bus.unbind(3)
    q_ceus, k_ceus, v_ceus = qkv_ceus.unbind(3)
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


def _union_weights(
    q: Tensor, k: Tensor, keys: Tensor | None, scale: float
) -> tuple[Tensor, Tensor]:
    """One softmax over the own column and the own frame, the own place once, as two tensors:
    (B, T, N, H, T), and (B, T, N, H, N) with 0 for the own place.
    """
    frames, places = q.shape[1:3]
    k = _only(k, keys)
    column = torch.einsum("btnhd,bunhd->btnhu", q, k)
    frame = torch.einsum("btnhd,btmhd->btnhm", q, k)
    scores = torch.cat((column, frame), -1) * scale
    others = ~torch.eye(places, dtype=torch.bool, device=q.device)
    taking_part = torch.ones(column.shape[:3], dtype=torch.bool, device=q.device)
    in_column = taking_part[..., None].expand(-1, -1, -1, frames)
    in_frame = taking_part[..., None] & others
    if keys is not None:
        in_column = in_column & keys.transpose(1, 2)[:, None]
        in_frame = in_frame & keys[:, :, None, :]
    allowed = torch.cat((in_column, in_frame), -1)[:, :, :, None, :].expand(scores.shape)
    weights = _softmax(scores, allowed)
    return weights[..., :frames], weights[..., frames:]


def union_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    scale: float | None = None,
    key_mask: Tensor | None = None,
) -> Tensor:
    """One direction of the strategy "symmetric": token (t, n) attends all (t', n) and (t, n').

    Args:
        q, k, v: (B, T, N, H, d).
        scale, key_mask: as in `axial_attention`; the mask broadcasts to (B, T, N).

    Returns:
        (B, T, N, H, d), contiguous.
    """
    keys = _key_grid(key_mask, k)
    column, frame = _union_weights(q, k, keys, _scale(q, scale))
    v = _only(v, keys)
    from_column = torch.einsum("btnhu,bunhd->btnhd", column, v)
    return (from_column + torch.einsum("btnhm,btmhd->btnhd", frame, v)).contiguous()


def union_weights(
    q: Tensor, k: Tensor, *, scale: float | None = None, key_mask: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The softmax weights of `union_attention` without a gradient: those of the column,
    (B, T, N, H, T), and of the frame, (B, T, N, H, N) with 0 for the own place.
    """
    with torch.no_grad():
        return _union_weights(q, k, _key_grid(key_mask, k), _scale(q, scale))


def _everywhere(q: Tensor, k: Tensor, v: Tensor, scale: float, mask: Tensor | None) -> Tensor:
    """Attention over all T*N keys."""
    keys = _key_grid(mask, k)
    scores = torch.einsum("btnhd,bumhd->btnhum", q, _only(k, keys)).flatten(-2) * scale
    if keys is not None:
        keys_row = keys.flatten(1)[:, None, None, None, :].expand(scores.shape)
        weights = _softmax(scores, keys_row)
    else:
        weights = scores.softmax(-1)
    values = _only(v, keys).flatten(1, 2)
    return torch.einsum("btnhl,blhd->btnhd", weights, values).contiguous()


def cross_modal_attention(
    q_bus: Tensor,
    k_ceus: Tensor,
    v_ceus: Tensor,
    q_ceus: Tensor,
    k_bus: Tensor,
    v_bus: Tensor,
    *,
    strategy: Literal["asymmetric", "symmetric", "spatial", "temporal", "global"],
    scale: float | None = None,
    bus_mask: Tensor | None = None,
    ceus_mask: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The cross-attention strategies compared in Table 5: the same sums over other key sets."""
    bus = (q_bus, k_ceus, v_ceus)
    ceus = (q_ceus, k_bus, v_bus)
    factor = _scale(q_bus, scale)
    if strategy == "symmetric":
        return (
            union_attention(*bus, scale=scale, key_mask=ceus_mask),
            union_attention(*ceus, scale=scale, key_mask=bus_mask),
        )
    if strategy == "global":
        return _everywhere(*bus, factor, ceus_mask), _everywhere(*ceus, factor, bus_mask)
    bus_axis: Axis = "space" if strategy == "spatial" else "time"
    ceus_axis: Axis = "time" if strategy == "temporal" else "space"
    return (
        axial_attention(*bus, axis=bus_axis, scale=scale, key_mask=ceus_mask),
        axial_attention(*ceus, axis=ceus_axis, scale=scale, key_mask=bus_mask),
    )


def fss_ranking_loss(
    scores: Tensor,
    *,
    clamp: float = 0.9,
    lengths: Tensor | None = None,
    reduction: Literal["none", "mean", "sum"] = "mean",
) -> Tensor:
    """Frame self-sorting loss (Eq 3-4) of frame scores (B, T): later frames must score higher.

    The pair term -log min(sigmoid(s_i - s_t), clamp) is computed as
    max(softplus(s_t - s_i), -log clamp), which does not overflow.
    """
    frames = scores.shape[1]
    wide = scores if scores.dtype == torch.float64 else scores.float()
    count = torch.full_like(wide[:, 0], frames, dtype=torch.int64)
    if lengths is not None:
        count = lengths.clamp(0, frames).to(torch.int64)
    # A row without a pair takes no part at all, so that not even NaN reaches its gradient.
    count = count.masked_fill(count < 2, 0)
    taking_part = torch.arange(frames, device=scores.device) < count[:, None]
    wide = wide.masked_fill(~taking_part, 0.0)
    gap = wide[:, :, None] - wide[:, None, :]
    pair = (taking_part[:, :, None] & taking_part[:, None, :]).triu(1)
    floor = -math.log(clamp)
    # -logsigmoid is softplus with gradient exactly 1/2 at 0 and no cut-over to the identity.
    term = -F.logsigmoid(-gap)
    term = torch.where(term <= floor, torch.full_like(term, floor), term)  # keeps NaN
    total = term.masked_fill(~pair, 0.0).sum((1, 2))
    pairs = (count * (count - 1)).clamp(min=1)
    rows = total * (2.0 / pairs.to(wide.dtype))
    return {"none": rows, "mean": rows.mean() if rows.numel() else rows.sum(), "sum": rows.sum()}[
        reduction
    ]


def dual_attention_gates(
    features: Tensor, *, scope: Literal["both", "split"] = "both", patch: int = 4
) -> Tensor:
    """Features under a channel gate and a patch-wise spatial gate, before their projection.

    Args:
        features: (B, C, H, W).
        scope: "both": features * (channel + spatial); "split": the first half of the channels
            under the channel gate alone, the second half under the spatial gate alone.
        patch: side p of the square patches of the spatial gate.

    The channel gate is sigmoid(variance over H x W), unbiased, 0 for a single pixel. The spatial
    gate is the sigmoid of the mean of each patch, bilinear in between (corners not aligned). The
    patches at the lower and right border may be cut off; their means are over real pixels, and
    the interpolation runs on the grid of whole patches before it is cut to H x W.
    """
    height, width = features.shape[2:]
    patch = min(patch, height + width)  # one that holds the map, without asking which is larger
    pixels = features.flatten(2)
    variance = pixels.var(2) if height * width > 1 else torch.zeros_like(pixels[:, :, 0])
    channel = variance.sigmoid()[:, :, None, None]
    means = F.avg_pool2d(features, patch, ceil_mode=True)
    whole = F.interpolate(means.sigmoid(), scale_factor=patch, mode="bilinear")
    spatial = whole[:, :, :height, :width]
    if scope == "both":
        return features * channel + features * spatial
    half = features.shape[1] // 2
    gated = (features[:, :half] * channel[:, :half], features[:, half:] * spatial[:, half:])
    return torch.cat(gated, 1)


def saliency_losses(target: Tensor, saliency: Tensor, *, floor: float) -> Tensor:
    """Losses of each saliency map M against its target I, computed in float32 or wider.

    Args:
        target: I, (n, H, W).
        saliency: M, (n, H, W).
        floor: added to the mean change, positive.

    Returns:
        (n, 3). Reconstruction: mean |I M - I|. Boundary: mean |S_x * D| + mean |S_y * D| with
        D = I - M, Sobel's S, and an image that goes on as it ends: with zeros there the border
        itself would be an edge, which a map copies by its brightness. Affinity: the mean squared
        difference of the `affinities`.
    """
    target, saliency = (x if x.dtype == torch.float64 else x.float() for x in (target, saliency))
    reconstruction = (target * saliency - target).abs().mean((1, 2))
    gap = F.pad((target - saliency)[:, None], (1, 1, 1, 1), mode="replicate")
    boundary = F.conv2d(gap, sobel_kernels(target)).abs().mean((2, 3)).sum(1)
    difference = affinities(target, floor) - affinities(saliency, floor)
    return torch.stack((reconstruction, boundary, difference.square().mean((1, 2))), 1)


def sobel_kernels(like: Tensor) -> Tensor:
    """S_x and S_y, (2, 1, 3, 3)."""
    rise = like.new_tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]])
    return torch.stack((rise, rise.T))[:, None]


def changes(maps: Tensor) -> Tensor:
    """|forward difference| down plus to the right of every pixel, 0 at the end of each."""
    down = F.pad(maps.diff(dim=1).abs(), (0, 0, 0, 1))
    return down + F.pad(maps.diff(dim=2).abs(), (0, 1))


def affinities(maps: Tensor, floor: float) -> Tensor:
    """The `changes` of each map over their mean plus `floor`."""
    found = changes(maps)
    return found / (found.mean((1, 2), keepdim=True) + floor)
