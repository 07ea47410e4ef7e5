"""The registered operators: schemas, shapes for tracing, and the kernels of each device.

PyTorch's dispatcher decides by device: CPU tensors reach the compiled kernels, CUDA tensors the
Triton ones, every other device (and a build without a compiler) plain PyTorch. The files of the
operators add their autograd formulas with `register_autograd`.
"""

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from asycmst_ops import _cpu, _cuda, _eager, _flops
from asycmst_ops._problem import Backward, Forward, Kernels, UnionBackward, UnionForward

_LIBRARY = torch.library.Library("asycmst", "DEF")
_SIX = "Tensor q_bus, Tensor k_ceus, Tensor v_ceus, Tensor q_ceus, Tensor k_bus, Tensor v_bus"
_MASKS = "Tensor? bus_mask, Tensor? ceus_mask, float scale"
for _schema in (
    "axial(Tensor q, Tensor k, Tensor v, Tensor? key_mask, int dim, float scale) -> Tensor",
    "axial_backward(Tensor grad, Tensor q, Tensor k, Tensor v, Tensor? key_mask, int dim,"
    " float scale) -> (Tensor, Tensor, Tensor)",
    f"acmst({_SIX}, {_MASKS}) -> (Tensor, Tensor)",
    f"acmst_backward(Tensor grad_bus, Tensor grad_ceus, {_SIX}, {_MASKS})"
    " -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
    f"acmst_qkvpacked(Tensor qkv_bus, Tensor qkv_ceus, {_MASKS}) -> (Tensor, Tensor)",
    "acmst_qkvpacked_backward(Tensor grad_bus, Tensor grad_ceus, Tensor qkv_bus, Tensor qkv_ceus,"
    f" {_MASKS}) -> (Tensor, Tensor)",
    f"union({_SIX}, {_MASKS}) -> (Tensor, Tensor)",
    f"union_backward(Tensor grad_bus, Tensor grad_ceus, {_SIX}, {_MASKS})"
    " -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
    "fss_ranking(Tensor scores, Tensor? lengths, float clamp, str reduction) -> (Tensor, Tensor)",
    "fss_ranking_backward(Tensor grad, Tensor scores, Tensor slopes) -> Tensor",
    "gates(Tensor features, int patch, bool split) -> Tensor",
    "gates_backward(Tensor grad, Tensor features, int patch, bool split) -> Tensor",
    "saliency_losses(Tensor saliency, Tensor target, float floor) -> Tensor",
    "saliency_losses_backward(Tensor grad, Tensor saliency, Tensor target, float floor) -> Tensor",
):
    _LIBRARY.define(_schema, tags=(torch.Tag.pt2_compliant_tag, torch.Tag.flexible_layout))

_OPS = torch.ops.asycmst
axial = _OPS.axial.default
axial_backward = _OPS.axial_backward.default
acmst = _OPS.acmst.default
acmst_backward = _OPS.acmst_backward.default
acmst_qkvpacked = _OPS.acmst_qkvpacked.default
acmst_qkvpacked_backward = _OPS.acmst_qkvpacked_backward.default
union = _OPS.union.default
union_backward = _OPS.union_backward.default
fss_ranking = _OPS.fss_ranking.default
fss_ranking_backward = _OPS.fss_ranking_backward.default
gates = _OPS.gates.default
gates_backward = _OPS.gates_backward.default
saliency_losses = _OPS.saliency_losses.default
saliency_losses_backward = _OPS.saliency_losses_backward.default


def _empty(x: Tensor) -> Tensor:
    return torch.empty(x.shape, dtype=x.dtype, device=x.device)


def _rows(x: Tensor) -> Tensor:
    """Kernels take any strides but a strided last dimension."""
    return x if x.stride(-1) == 1 or x.shape[-1] == 1 else x.contiguous()


def _images(x: Tensor, like: Tensor | None = None) -> Tensor:
    """(B, C, H, W) as kernels take it: rows of pixels or pixels of channels without gaps between
    neighbours, in the order of `like` where that is given; any other layout is copied.
    """
    if _channels_last(x if like is None else like):
        return x if x.stride(1) == 1 else x.contiguous(memory_format=torch.channels_last)
    return x if x.stride(3) == 1 else x.contiguous()


def _channels_last(x: Tensor) -> bool:
    return x.stride(1) == 1 and x.stride(3) != 1


def _empty_images(x: Tensor) -> Tensor:
    order = torch.channels_last if _channels_last(x) else torch.contiguous_format
    return torch.empty(x.shape, dtype=x.dtype, device=x.device, memory_format=order)


def _register_kernels(key: str, family: Callable[[], Kernels]) -> None:
    """Serve all operators on one dispatch key by a kernel family, looked up at each call."""

    def forward(problems: Sequence[Forward], scale: float) -> None:
        if problems[0].q.shape[0]:
            family().axial_forward(problems, scale)

    def backward(problems: Sequence[Backward], scale: float) -> None:
        if problems[0].q.shape[0]:
            family().axial_backward(problems, scale)

    def run_axial(q: Tensor, k: Tensor, v: Tensor, m: Tensor | None, dim: int, s: float) -> Tensor:
        out = _empty(q)
        forward([Forward(out, _rows(q), _rows(k), _rows(v), m, dim)], s)
        return out

    def run_axial_backward(
        grad: Tensor, q: Tensor, k: Tensor, v: Tensor, m: Tensor | None, dim: int, s: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        dq, dk, dv = _empty(q), _empty(k), _empty(v)
        problem = Backward(dq, dk, dv, _rows(grad), _rows(q), _rows(k), _rows(v), m, dim)
        backward([problem], s)
        return dq, dk, dv

    def run_acmst(*args: Any) -> tuple[Tensor, Tensor]:
        inputs, (bus_mask, ceus_mask, scale) = [_rows(x) for x in args[:6]], args[6:]
        att_bus, att_ceus = _empty(inputs[0]), _empty(inputs[3])
        bus = Forward._make([att_bus, *inputs[:3], ceus_mask, 1])
        ceus = Forward._make([att_ceus, *inputs[3:], bus_mask, 2])
        forward([bus, ceus], scale)
        return att_bus, att_ceus

    def fill_acmst(outs: Sequence[Tensor], args: Sequence[Any]) -> None:
        """Into six gradients, those by the operator's six grids."""
        (g_bus, g_ceus), (bus_mask, ceus_mask, scale) = map(_rows, args[:2]), args[8:]
        inputs = [_rows(x) for x in args[2:8]]
        bus = Backward._make([*outs[:3], g_bus, *inputs[:3], ceus_mask, 1])
        ceus = Backward._make([*outs[3:], g_ceus, *inputs[3:], bus_mask, 2])
        backward([bus, ceus], scale)

    def run_acmst_backward(*args: Any) -> tuple[Tensor, ...]:
        grads = tuple(_empty(x) for x in args[2:8])
        fill_acmst(grads, args)
        return grads

    def run_packed(bus: Tensor, ceus: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
        return run_acmst(*_crossed(bus, ceus), *rest)

    def run_packed_backward(
        g_bus: Tensor, g_ceus: Tensor, bus: Tensor, ceus: Tensor, *rest: Any
    ) -> tuple[Tensor, Tensor]:
        grads = _empty(bus), _empty(ceus)
        fill_acmst(_crossed(*grads), (g_bus, g_ceus, *_crossed(bus, ceus), *rest))
        return grads

    def run_union(*args: Any) -> tuple[Tensor, Tensor]:
        inputs, (bus_mask, ceus_mask, scale) = [_rows(x) for x in args[:6]], args[6:]
        outs = _empty(inputs[0]), _empty(inputs[3])
        bus = UnionForward._make([outs[0], *inputs[:3], ceus_mask])
        ceus = UnionForward._make([outs[1], *inputs[3:], bus_mask])
        if outs[0].shape[0]:
            family().union_forward([bus, ceus], scale)
        return outs

    def run_union_backward(*args: Any) -> tuple[Tensor, ...]:
        (g_bus, g_ceus), (bus_mask, ceus_mask, scale) = map(_rows, args[:2]), args[8:]
        inputs = [_rows(x) for x in args[2:8]]
        grads = tuple(_empty(x) for x in inputs)
        bus = UnionBackward._make([*grads[:3], g_bus, *inputs[:3], ceus_mask])
        ceus = UnionBackward._make([*grads[3:], g_ceus, *inputs[3:], bus_mask])
        if g_bus.shape[0]:
            family().union_backward([bus, ceus], scale)
        return grads

    def run_ranking(
        scores: Tensor, lengths: Tensor | None, clamp: float, reduction: str
    ) -> tuple[Tensor, Tensor]:
        rows, slopes = _ranking_rows(scores)
        if scores.shape[0]:
            family().fss_ranking(rows, slopes, scores, lengths, clamp)
        if reduction == "none":
            return rows, slopes
        if reduction == "mean" and scores.shape[0]:
            return rows.mean(), slopes.div_(scores.shape[0])
        return rows.sum(), slopes  # the mean over no row is taken to be 0

    for name, kernel in (
        ("axial", run_axial),
        ("axial_backward", run_axial_backward),
        ("acmst", run_acmst),
        ("acmst_backward", run_acmst_backward),
        ("acmst_qkvpacked", run_packed),
        ("acmst_qkvpacked_backward", run_packed_backward),
        ("union", run_union),
        ("union_backward", run_union_backward),
        ("fss_ranking", run_ranking),
    ):
        _LIBRARY.impl(name, kernel, key)


def _register_gates(key: str, family: Callable[[], Kernels]) -> None:
    def run_gates(features: Tensor, patch: int, split: bool) -> Tensor:
        out = _empty_images(features)
        if out.shape[0]:
            family().gates_forward(out, _images(features), patch, split)
        return out

    def run_gates_backward(grad: Tensor, features: Tensor, patch: int, split: bool) -> Tensor:
        found = _empty_images(features)
        if found.shape[0]:
            x = _images(features)
            family().gates_backward(found, _images(grad, x), x, patch, split)
        return found

    _LIBRARY.impl("gates", run_gates, key)
    _LIBRARY.impl("gates_backward", run_gates_backward, key)


def _register_saliency_losses(key: str, family: Callable[[], Kernels]) -> None:
    def run(saliency: Tensor, target: Tensor, floor: float) -> Tensor:
        losses = _empty_losses(saliency)
        if losses.shape[0]:
            family().saliency_losses_forward(losses, _rows(target), _rows(saliency), floor)
        return losses

    def run_backward(grad: Tensor, saliency: Tensor, target: Tensor, floor: float) -> Tensor:
        slope = _empty(saliency)
        if slope.shape[0]:
            maps = _rows(target), _rows(saliency)
            family().saliency_losses_backward(slope, grad.contiguous(), *maps, floor)
        return slope

    _LIBRARY.impl("saliency_losses", run, key)
    _LIBRARY.impl("saliency_losses_backward", run_backward, key)


def _empty_losses(x: Tensor) -> Tensor:
    dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
    return torch.empty((x.shape[0], 3), dtype=dtype, device=x.device)


def _crossed(bus: Tensor, ceus: Tensor) -> tuple[Tensor, ...]:
    """Views of two packed grids in the order of the joint operator's six arguments."""
    q_bus, k_bus, v_bus = bus.unbind(3)
    q_ceus, k_ceus, v_ceus = ceus.unbind(3)
    return q_bus, k_ceus, v_ceus, q_ceus, k_bus, v_bus


def _ranking_rows(scores: Tensor) -> tuple[Tensor, Tensor]:
    """Loss of each row (B,) and slopes (B, T): float32, or float64 for float64 scores."""
    dtype = torch.float64 if scores.dtype == torch.float64 else torch.float32
    return (
        torch.empty(scores.shape[:1], dtype=dtype, device=scores.device),
        torch.empty(scores.shape, dtype=dtype, device=scores.device),
    )


def _fake_ranking(
    scores: Tensor, lengths: Tensor | None, clamp: float, reduction: str
) -> tuple[Tensor, Tensor]:
    rows, slopes = _ranking_rows(scores)
    return rows if reduction == "none" else rows.new_empty(()), slopes


def _chain_ranking(grad: Tensor, scores: Tensor, slopes: Tensor) -> Tensor:
    """`grad` is (B,), or () for a loss that the forward has reduced."""
    return (slopes * (grad[:, None] if grad.dim() else grad)).to(scores.dtype)


_said_missing = False


def _cpu_kernels() -> Kernels:
    if _cpu.available:
        return _cpu
    global _said_missing
    if not _said_missing:
        _said_missing = True
        warnings.warn(
            f"asycmst_ops runs on plain PyTorch, slowly: {_cpu.unavailable_reason}. Install a"
            " C++17 compiler and reinstall asycmst to get the compiled kernels.",
            stacklevel=2,
        )
    return _eager


for _key, _family in (
    ("CPU", _cpu_kernels),
    ("CUDA", lambda: _cuda),
    ("CompositeExplicitAutograd", lambda: _eager),
):
    _register_kernels(_key, _family)
    _register_gates(_key, _family)
    _register_saliency_losses(_key, _family)
_LIBRARY.impl("fss_ranking_backward", _chain_ranking, "CompositeExplicitAutograd")

for _name, _fake in (
    ("axial", lambda q, *_: _empty(q)),
    ("axial_backward", lambda grad, q, k, v, *_: (_empty(q), _empty(k), _empty(v))),
    ("acmst", lambda *a: (_empty(a[0]), _empty(a[3]))),
    ("acmst_backward", lambda *a: tuple(map(_empty, a[2:8]))),
    (
        "acmst_qkvpacked",
        lambda bus, ceus, *_: (_empty(bus.select(3, 0)), _empty(ceus.select(3, 0))),
    ),
    (
        "acmst_qkvpacked_backward",
        lambda grad_bus, grad_ceus, bus, ceus, *_: (_empty(bus), _empty(ceus)),
    ),
    ("union", lambda *a: (_empty(a[0]), _empty(a[3]))),
    ("union_backward", lambda *a: tuple(map(_empty, a[2:8]))),
    ("fss_ranking", _fake_ranking),
    ("fss_ranking_backward", _chain_ranking),
    ("gates", lambda features, *_: _empty_images(features)),
    ("gates_backward", lambda grad, features, *_: _empty_images(features)),
    ("saliency_losses", lambda saliency, *_: _empty_losses(saliency)),
    ("saliency_losses_backward", lambda grad, saliency, *_: _empty(saliency)),
):
    torch.library.register_fake(f"asycmst::{_name}", _fake, lib=_LIBRARY)


class _FirstOrder(torch.autograd.Function):
    """A backward operator that runs as it is and refuses to be differentiated itself."""

    @staticmethod
    def forward(ctx: Any, op: Any, *args: Any) -> Any:
        with torch._C._AutoDispatchBelowAutograd():
            return op(*args)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        raise RuntimeError(
            "asycmst_ops has no second derivatives; use the function of the same name in"
            " asycmst_ops.reference where a double backward is needed"
        )


def register_autograd(
    op: Any, backward_op: Any, function: type[torch.autograd.Function]
) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Make `function` the derivative of `op`, and `backward_op` first order only.

    `function.forward(ctx, *args)` takes the operator's arguments and calls the operator below
    autograd; without a tensor that requires a gradient the operator is called directly.

    Returns:
        `op` and `backward_op` to call from Python: in eager mode they save one round through the
        dispatcher, which costs as much as a small kernel.
    """

    def differentiable(args: Sequence[Any]) -> bool:
        return torch.is_grad_enabled() and any(
            isinstance(a, Tensor) and a.requires_grad for a in args
        )

    def run(*args: Any) -> Any:
        if differentiable(args):
            return function.apply(*args)
        with torch._C._AutoDispatchBelowAutograd():
            return op(*args)

    def run_backward(*args: Any) -> Any:
        if differentiable(args):
            return _FirstOrder.apply(backward_op, *args)  # type: ignore[no-untyped-call]
        with torch._C._AutoDispatchBelowAutograd():
            return backward_op(*args)

    def call(*args: Any) -> Any:
        return op(*args) if torch.compiler.is_compiling() else run(*args)

    def call_backward(*args: Any) -> Any:
        return backward_op(*args) if torch.compiler.is_compiling() else run_backward(*args)

    _LIBRARY.impl(op._schema.name.split("::")[1], run, "Autograd")
    _LIBRARY.impl(backward_op._schema.name.split("::")[1], run_backward, "Autograd")
    return call, call_backward


def register_recomputing(op: Any, backward_op: Any, *, tensors: int) -> Callable[..., Any]:
    """Make `backward_op` the derivative of `op`, which then saves nothing but its arguments.

    `backward_op` takes the gradients of the outputs followed by the arguments of `op`, of which
    the first `tensors` are tensors or None.

    Returns:
        `op` to call from Python, as of `register_autograd`.
    """

    class Recomputing(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, *args: Any) -> Any:
            ctx.save_for_backward(*args[:tensors])
            ctx.options = args[tensors:]
            with torch._C._AutoDispatchBelowAutograd():
                return op(*args)

        @staticmethod
        def backward(ctx: Any, *grads: Tensor) -> Any:
            found = call_backward(*grads, *ctx.saved_tensors, *ctx.options)
            found = (found,) if isinstance(found, Tensor) else found
            return (*found, *[None] * (tensors + len(ctx.options) - len(found)))

    call, call_backward = register_autograd(op, backward_op, Recomputing)
    return call


_flops.register_when_counting()
