"""What a call must satisfy, checked once in the public functions. Nothing looks at values."""

import math
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_LARGEST_HEAD = 256


def cast_for_autocast(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Under autocast, floating inputs take its dtype as SDPA's do; float64 stays."""
    if not all(isinstance(x, Tensor) for x in tensors):
        return tensors  # `check_grids` says which one
    device = tensors[0].device.type
    if not torch.amp.is_autocast_available(device) or not torch.is_autocast_enabled(device):
        return tensors
    dtype = torch.get_autocast_dtype(device)
    return tuple(
        x.to(dtype) if x.is_floating_point() and x.dtype != torch.float64 else x for x in tensors
    )


def check_grids(grids: Mapping[str, Tensor], *, packed: bool = False) -> None:
    """Tensors, dimensions, dtypes and devices of the token grids of one call.

    Raises:
        TypeError: not a tensor, a dtype outside the four served, or mixed dtypes or devices.
        ValueError: a wrong number of dimensions, an empty axis, or a head wider than 256.
    """
    layout = "(B, T, N, 3, H, d)" if packed else "(B, T, N, H, d)"
    first_name, first = next(iter(grids.items()))
    for name, x in grids.items():
        if not isinstance(x, Tensor):
            raise TypeError(f"{name} is a {type(x).__name__}; pass a tensor {layout}")
        shape = tuple(x.shape)
        if x.dim() != 5 + packed or (packed and shape[3] != 3):
            raise ValueError(f"{name} has shape {shape}; pass {layout}")
        if 0 in shape[1:]:
            raise ValueError(f"{name} has shape {shape}; only the batch of {layout} may be 0")
        if shape[-1] > _LARGEST_HEAD:
            raise ValueError(
                f"{name} has {shape[-1]} channels a head; at most {_LARGEST_HEAD} are served:"
                " use more heads"
            )
        if x.dtype not in _DTYPES:
            raise TypeError(f"{name} is {x.dtype}; pass float16, bfloat16, float32 or float64")
        if x.dtype != first.dtype:
            raise TypeError(
                f"{name} is {x.dtype} but {first_name} is {first.dtype}; cast one, nothing is"
                " promoted"
            )
        if x.device != first.device:
            raise TypeError(
                f"{name} is on {x.device} but {first_name} is on {first.device}; move one"
            )


def check_same_shape(grids: Mapping[str, Tensor]) -> None:
    """All grids of a joint call have one shape."""
    first_name, first = next(iter(grids.items()))
    for name, x in grids.items():
        if x.shape != first.shape:
            raise ValueError(
                f"{name} has shape {tuple(x.shape)} but {first_name} has {tuple(first.shape)};"
                " both modalities need the same grid (axial_attention allows other key lengths)"
            )


def check_axial_shapes(q: Tensor, k: Tensor, v: Tensor | None, dim: int, axis: str) -> None:
    """Keys may differ from queries along the attended dimension only; values are as the keys."""
    expected = list(q.shape)
    expected[dim] = k.shape[dim]
    if list(k.shape) != expected:
        raise ValueError(
            f"k has shape {tuple(k.shape)} but q has {tuple(q.shape)}; with axis={axis!r} they may"
            f" differ in dimension {dim} only"
        )
    if v is not None and v.shape != k.shape:
        raise ValueError(
            f"v has shape {tuple(v.shape)} but k has {tuple(k.shape)}; they must be the same"
        )


def check_scale(scale: float | None, width: int) -> float:
    """The factor on the scores; None means 1/sqrt(d)."""
    if scale is None:
        return 1.0 / math.sqrt(width)
    if isinstance(scale, bool) or not isinstance(scale, (int, float)):
        raise TypeError(f"scale is a {type(scale).__name__}; pass a float, or None for 1/sqrt(d)")
    if not math.isfinite(scale):
        raise ValueError(f"scale is {scale}; pass a finite float, or None for 1/sqrt(d)")
    return float(scale)


def check_mask(name: str, mask: Tensor | None, keys: Tensor) -> Tensor | None:
    """A key mask broadcast (without a copy) to the first three sizes of the keys.

    Raises:
        TypeError: not a bool tensor, or on another device.
        ValueError: a shape that does not broadcast to the key grid.
    """
    if mask is None:
        return None
    grid = tuple(keys.shape[:3])
    if not isinstance(mask, Tensor) or mask.dtype != torch.bool:
        got = mask.dtype if isinstance(mask, Tensor) else type(mask).__name__
        raise TypeError(f"{name} is {got}; pass a bool tensor, True where the key takes part")
    if mask.device != keys.device:
        raise TypeError(f"{name} is on {mask.device} but the keys are on {keys.device}; move one")
    shape = (1,) * (3 - mask.dim()) + tuple(mask.shape)
    if len(shape) > 3 or any(
        have not in (1, want) for have, want in zip(shape, grid, strict=False)
    ):
        raise ValueError(
            f"{name} has shape {tuple(mask.shape)}; it must broadcast to the key grid {grid}"
        )
    return mask.expand(grid)


class JointCall(NamedTuple):
    """The checked arguments of both directions, in the order of the registered operator."""

    q_bus: Tensor
    k_ceus: Tensor
    v_ceus: Tensor
    q_ceus: Tensor
    k_bus: Tensor
    v_bus: Tensor
    bus_mask: Tensor | None
    ceus_mask: Tensor | None
    scale: float


def check_joint(
    grids: tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor],
    scale: float | None,
    bus_mask: Tensor | None,
    ceus_mask: Tensor | None,
) -> JointCall:
    """Cast under autocast, then check, the six grids and the options of a joint call."""
    names = JointCall._fields[:6]
    q_bus, k_ceus, v_ceus, q_ceus, k_bus, v_bus = cast_for_autocast(*grids)
    named = dict(zip(names, (q_bus, k_ceus, v_ceus, q_ceus, k_bus, v_bus), strict=True))
    check_grids(named)
    check_same_shape(named)
    return JointCall(
        **named,
        bus_mask=check_mask("bus_mask", bus_mask, k_bus),
        ceus_mask=check_mask("ceus_mask", ceus_mask, k_ceus),
        scale=check_scale(scale, q_bus.shape[-1]),
    )
