"""Our operators in plain PyTorch, for graphs that run without this package."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from asycmst_ops import _library, reference

_AXES: dict[int, reference.Axis] = {1: "time", 2: "space"}


def decomposition_table() -> dict[torch._ops.OperatorBase, Callable[..., Any]]:
    """What `torch.export.ExportedProgram.run_decompositions` puts in place of our operators.

    With `program = torch.export.export(...)`, `program.run_decompositions(decomposition_table())`
    replaces every operator by its definition in `asycmst_ops.reference`: the new
    program needs this package no more, and ONNX exporters and AOTInductor take it. As in the
    kernels, float16 and bfloat16 accumulate in float32. The backward operators and the losses
    serve training and are not in the table.

    Returns:
        A new dictionary from each operator to a function of the same arguments.
    """
    return {
        _library.axial: _axial,
        _library.acmst: _acmst,
        _library.acmst_qkvpacked: _acmst_qkvpacked,
        _library.union: _union,
        _library.gates: _gates,
    }


def _wide(*grids: Tensor) -> list[Tensor]:
    half = (torch.float16, torch.bfloat16)
    return [x.float() if x.dtype in half else x for x in grids]


def _narrow(like: Tensor, *grids: Tensor) -> tuple[Tensor, ...]:
    return tuple(x if x.dtype == like.dtype else x.to(like.dtype) for x in grids)


def _axial(
    q: Tensor, k: Tensor, v: Tensor, key_mask: Tensor | None, dim: int, scale: float
) -> Tensor:
    out = reference.axial_attention(
        *_wide(q, k, v), axis=_AXES[dim], scale=scale, key_mask=key_mask
    )
    return _narrow(q, out)[0]


def _acmst(*args: Any) -> tuple[Tensor, ...]:
    grids, (bus_mask, ceus_mask, scale) = _wide(*args[:6]), args[6:]
    both = reference.acmst_attention(*grids, bus_mask=bus_mask, ceus_mask=ceus_mask, scale=scale)
    return _narrow(args[0], *both)


def _acmst_qkvpacked(
    bus: Tensor, ceus: Tensor, bus_mask: Tensor | None, ceus_mask: Tensor | None, scale: float
) -> tuple[Tensor, ...]:
    both = reference.acmst_attention_qkvpacked(
        *_wide(bus, ceus), bus_mask=bus_mask, ceus_mask=ceus_mask, scale=scale
    )
    return _narrow(bus, *both)


def _union(*args: Any) -> tuple[Tensor, ...]:
    grids, (bus_mask, ceus_mask, scale) = _wide(*args[:6]), args[6:]
    both = reference.cross_modal_attention(
        *grids, strategy="symmetric", bus_mask=bus_mask, ceus_mask=ceus_mask, scale=scale
    )
    return _narrow(args[0], *both)


def _gates(features: Tensor, patch: int, split: bool) -> Tensor:
    out = reference.dual_attention_gates(
        *_wide(features), scope="split" if split else "both", patch=patch
    )
    return _narrow(features, out)[0]
