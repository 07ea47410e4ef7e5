"""Ours and its peers: ways to compute the same attention, on the same inputs.

A peer pays for the copies it needs. "sdpa-views" is the best use of scaled_dot_product_attention
there is (four-dimensional views, no copy); "sdpa-copies" is what one commonly writes.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from asycmst_ops import acmst_attention, axial_attention, fss_ranking_loss, reference

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


def _pair(time: Axial, space: Axial) -> Joint:
    return lambda *x: (time(*x[:3]), space(*x[3:]))


JOINT: dict[str, Joint] = {
    "ours": acmst_attention,
    "einsum": reference.acmst_attention,
    "sdpa-views": _pair(sdpa_views_time, sdpa_views_space),
    "sdpa-copies": _pair(sdpa_copies_time, sdpa_copies_space),
    "released": _pair(released_time, released_space),
}


RANKING: dict[str, Callable[[Tensor], Tensor]] = {
    "ours": fss_ranking_loss,
    "eager": reference.fss_ranking_loss,
}


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


def forward_backward(
    function: Callable[..., Tensor | tuple[Tensor, ...]], inputs: list[Tensor], grads: list[Tensor]
) -> Callable[[], object]:
    """A call and the gradients by all its inputs."""
    leaves = [x.detach().requires_grad_() for x in inputs]

    def run() -> object:
        return torch.autograd.grad(function(*leaves), leaves, grads)

    return run
