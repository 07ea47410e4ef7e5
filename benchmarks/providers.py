"""Ours and its peers: ways to compute the same attention, on the same inputs.

A peer pays for the copies it needs. "sdpa-views" is the best use of scaled_dot_product_attention
there is (four-dimensional views, no copy); "sdpa-copies" is what one commonly writes.
"""

from collections.abc import Callable
from functools import lru_cache, partial

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention

from asycmst_ops import (
    acmst_attention,
    axial_attention,
    cross_modal_attention,
    dual_attention_gates,
    fss_ranking_loss,
    reference,
    saliency_losses,
)

Joint = Callable[..., tuple[Tensor, Tensor]]
Axial = Callable[[Tensor, Tensor, Tensor], Tensor]


def _time_views(x: Tensor) -> Tensor:
    """(B, T, N, H, d) seen as (B, N*H, T, d)."""
    return x.flatten(2, 3).transpose(1, 2)


def _space_views(x: Tensor) -> Tensor:
    """(B, T, N, H, d) seen as (B*T, H, N, d)."""
    return x.flatten(0, 1).transpose(1, 2)


def sdpa_views_time(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    out = F.scaled_dot_product_attention(*map(_time_views, (q, k, v)))
    return out.transpose(1, 2).unflatten(2, q.shape[2:4])


def sdpa_views_space(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    out = F.scaled_dot_product_attention(*map(_space_views, (q, k, v)))
    return out.transpose(1, 2).unflatten(0, q.shape[:2])


def sdpa_copies_time(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    b, t, n, h, d = q.shape
    q, k, v = (x.permute(0, 2, 3, 1, 4).reshape(b * n, h, t, d) for x in (q, k, v))
    out = F.scaled_dot_product_attention(q, k, v).view(b, n, h, t, d)
    return out.permute(0, 3, 1, 2, 4).contiguous()


def sdpa_copies_space(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    b, t, n, h, d = q.shape
    q, k, v = (x.transpose(2, 3).reshape(b * t, h, n, d) for x in (q, k, v))
    out = F.scaled_dot_product_attention(q, k, v).view(b, t, h, n, d)
    return out.transpose(2, 3).contiguous()


def released_time(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """As the authors' released code arranges it: places into the batch, weights written out."""
    b, t, n, h, d = q.shape
    q, k, v = (
        x.permute(0, 2, 1, 3, 4).contiguous().view(b * n, t, h, d).transpose(1, 2)
        for x in (q, k, v)
    )
    out = _written_out(q, k, v).transpose(1, 2).contiguous().view(b, n, t, h, d)
    return out.permute(0, 2, 1, 3, 4).contiguous()


def released_space(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """The same with frames in the batch."""
    b, t = q.shape[:2]
    q, k, v = (x.flatten(0, 1).transpose(1, 2) for x in (q, k, v))
    return _written_out(q, k, v).transpose(1, 2).contiguous().unflatten(0, (b, t))


def _written_out(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    scores = torch.matmul(q, k.transpose(-2, -1)) / q.shape[-1] ** 0.5
    return torch.matmul(scores.softmax(-1), v)


AXIAL: dict[str, dict[str, Axial]] = {
    "time": {
        "ours": lambda q, k, v: axial_attention(q, k, v, axis="time"),
        "einsum": lambda q, k, v: reference.axial_attention(q, k, v, axis="time"),
        "sdpa-views": sdpa_views_time,
        "sdpa-copies": sdpa_copies_time,
        "released": released_time,
    },
    "space": {
        "ours": lambda q, k, v: axial_attention(q, k, v, axis="space"),
        "einsum": lambda q, k, v: reference.axial_attention(q, k, v, axis="space"),
        "sdpa-views": sdpa_views_space,
        "sdpa-copies": sdpa_copies_space,
        "released": released_space,
    },
}


def pair(time: Axial, space: Axial) -> Joint:
    """Two single directions as one joint operator: of the first and of the last three inputs."""
    return lambda *x: (time(*x[:3]), space(*x[3:]))


JOINT: dict[str, Joint] = {
    "ours": acmst_attention,
    "einsum": reference.acmst_attention,
    "sdpa-views": pair(sdpa_views_time, sdpa_views_space),
    "sdpa-copies": pair(sdpa_copies_time, sdpa_copies_space),
    "released": pair(released_time, released_space),
}


def sdpa_union(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """The own column and the own frame in one softmax: SDPA over all tokens with a mask."""
    frames, places = q.shape[1:3]
    flat = [x.flatten(1, 2).transpose(1, 2) for x in (q, k, v)]
    allowed = _union_mask(frames, places, q.device)
    out = F.scaled_dot_product_attention(*flat, attn_mask=allowed)
    return out.transpose(1, 2).unflatten(1, (frames, places))


@lru_cache(maxsize=8)
def _union_mask(frames: int, places: int, device: torch.device) -> Tensor:
    token = torch.arange(frames * places, device=device)
    query, key = token[:, None], token[None, :]
    return (query % places == key % places) | (query // places == key // places)


SYMMETRIC: dict[str, Joint] = {
    "ours": partial(cross_modal_attention, strategy="symmetric"),
    "einsum": partial(reference.cross_modal_attention, strategy="symmetric"),
    "sdpa-mask": pair(sdpa_union, sdpa_union),
}
# Another key set: what an attention over all T*N tokens costs.
GLOBAL: Joint = partial(cross_modal_attention, strategy="global")


SDPA_BACKENDS = {
    "flash": SDPBackend.FLASH_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "cudnn": SDPBackend.CUDNN_ATTENTION,
    "math": SDPBackend.MATH,
}


def by_backend(providers: dict[str, Callable[..., object]]) -> dict[str, Callable[..., object]]:
    """Every "sdpa-..." provider once for each backend of SDPA; the others as they are."""
    made: dict[str, Callable[..., object]] = {}
    for name, function in providers.items():
        if name.startswith("sdpa"):
            for backend, kind in SDPA_BACKENDS.items():
                made[f"{name}-{backend}"] = partial(_on_backend, kind, function)
        else:
            made[name] = function
    return made


def _on_backend(kind: SDPBackend, function: Callable[..., object], *inputs: Tensor) -> object:
    with sdpa_kernel(kind):
        return function(*inputs)


def flex(support: str, *, attend: Callable[..., Tensor] = flex_attention) -> Axial:
    """FlexAttention over all tokens with the mask of "time", "space" or "symmetric".

    It is meant to be compiled: `attend` is then `compiled(flex_attention)`.
    """

    def run(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        frames, places = q.shape[1:3]
        flat = [x.flatten(1, 2).transpose(1, 2) for x in (q, k, v)]
        out = attend(*flat, block_mask=_flex_mask(support, frames, places, str(q.device)))
        return out.transpose(1, 2).unflatten(1, (frames, places))

    return run


@lru_cache(maxsize=8)
def _flex_mask(support: str, frames: int, places: int, device: str) -> BlockMask:
    def allowed(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        same_place = query % places == key % places
        same_frame = query // places == key // places
        if support == "symmetric":
            return same_place | same_frame
        return same_place if support == "time" else same_frame

    tokens = frames * places
    return create_block_mask(allowed, None, None, tokens, tokens, device=device)


RANKING: dict[str, Callable[[Tensor], Tensor]] = {
    "ours": fss_ranking_loss,
    "eager": reference.fss_ranking_loss,
}


def gates_as_written(features: Tensor) -> Tensor:
    """Both gates as one writes them."""
    height, width = features.shape[2:]
    channel = features.var((2, 3), keepdim=True).sigmoid()
    means = F.avg_pool2d(features, 4, ceil_mode=True).sigmoid()
    spatial = F.interpolate(means, scale_factor=4, mode="bilinear")[:, :, :height, :width]
    return features * (channel + spatial)


GATES: dict[str, Callable[[Tensor], Tensor]] = {
    "ours": dual_attention_gates,
    "eager": gates_as_written,
}
# Channels of both branches of an encoder together and the side of their maps, for an image of
# 224 x 224.
GATES_SCALES = tuple((64 * 2**scale, 224 // 2**scale) for scale in range(5))


def saliency_providers(target: Tensor) -> dict[str, Callable[[Tensor], Tensor]]:
    """The losses of a saliency map (n, H, W) against one target."""

    def against(losses: Callable[..., Tensor]) -> Callable[[Tensor], Tensor]:
        return lambda saliency: losses(target.to(saliency.dtype), saliency, floor=1e-2)

    return {"ours": against(saliency_losses), "eager": against(reference.saliency_losses)}


def compiled(function: Callable[..., object]) -> Callable[..., object]:
    """A peer through torch.compile, for the shapes at hand."""
    made: Callable[..., object] = torch.compile(function, dynamic=False)
    return made


def forward(function: Callable[..., object], inputs: list[Tensor]) -> Callable[[], object]:
    """A call without gradients."""

    def run() -> object:
        with torch.no_grad():
            return function(*inputs)

    return run


def backward(
    function: Callable[..., Tensor | tuple[Tensor, ...]], inputs: list[Tensor], grads: list[Tensor]
) -> Callable[[], object]:
    """The gradients alone, of a call made here and now."""
    leaves = [x.detach().requires_grad_() for x in inputs]
    outputs = function(*leaves)

    def run() -> object:
        return torch.autograd.grad(outputs, leaves, grads, retain_graph=True)

    return run


def forward_backward(
    function: Callable[..., Tensor | tuple[Tensor, ...]], inputs: list[Tensor], grads: list[Tensor]
) -> Callable[[], object]:
    """A call and the gradients by all its inputs."""
    leaves = [x.detach().requires_grad_() for x in inputs]

    def run() -> object:
        return torch.autograd.grad(function(*leaves), leaves, grads)

    return run
