"""The kernels that the audit compiles: one case for each branch of the launch tables.

Whoever adds a kernel or a branch of a launch table adds its case here.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

_POINTERS = {torch.float16: "*fp16", torch.bfloat16: "*bf16", torch.float32: "*fp32"}
_NAMES = {torch.float16: "fp16", torch.bfloat16: "bf16", torch.float32: "fp32"}


class Case(NamedTuple):
    """One kernel with everything that selects its compiled form."""

    kernel: str  # a name that `kernel_of` knows
    configuration: str
    pointers: dict[str, str]  # pointer argument -> type; "" stands for every other pointer
    keywords: dict[str, Any]
    wide: bool  # all tensor accesses should be 128-bit
    products: bool  # there should be tensor-core instructions
    scalars: bool = False  # one float32 a row is accessed beside the grids


def attention_case(
    kernel: str,
    q_length: int,
    k_length: int,
    channels: int,
    dtype: torch.dtype = torch.bfloat16,
    *,
    has_mask: bool = False,
    aligned: bool = True,
    precision: str = "ieee",
) -> Case:
    """The launch that attention of these sizes makes; `kernel` is "forward" or "backward"."""
    from asycmst_ops._triton import axial, layout

    launch = axial.launch_for(
        q_length,
        k_length,
        channels,
        dtype,
        precision=precision,
        aligned=aligned,
        backward=kernel == "backward",
    )
    threads = 32 * launch.num_warps
    smallest_tile = min(launch.block_q, launch.block_k) * launch.block_d * dtype.itemsize
    unit = layout.ALIGNMENT // dtype.itemsize if aligned else 1
    return Case(
        kernel,
        _configuration(q_length, k_length, channels, dtype, precision, has_mask, aligned),
        {"mask": "*i1" if has_mask else _POINTERS[dtype], "": _POINTERS[dtype]},
        axial.compile_keywords(launch, channels, unit, has_mask, precision),
        aligned and smallest_tile >= layout.ALIGNMENT * threads,
        dtype != torch.float32 or precision == "tf32",
    )


_PASSES: dict[str, tuple[str, dict[str, Any]]] = {
    # The flags of each launch in `blocks` and `union`, by the name of its row in the table.
    "axis fwd": ("forward", {"CONTINUE": False, "SAVE": False, "SKIP_SELF": False}),
    "axis dq": ("query", {"BEGIN": "new", "SAVE": True, "WRITE": "set", "SKIP_SELF": False}),
    "axis dkv": ("key", {"WRITE": "set", "SKIP_SELF": False}),
    "frame fwd": ("forward", {"CONTINUE": False, "SAVE": True, "SKIP_SELF": False}),
    "col fwd": ("forward", {"CONTINUE": True, "SAVE": False, "SKIP_SELF": True}),
    "frame row": ("state", {"BEGIN": "new", "SAVE": True, "WRITE": "no", "SKIP_SELF": False}),
    "col dq": ("query", {"BEGIN": "continued", "SAVE": True, "WRITE": "set", "SKIP_SELF": True}),
    "col dkv": ("key", {"WRITE": "set", "SKIP_SELF": True}),
    "frame dq": ("query", {"BEGIN": "given", "SAVE": False, "WRITE": "add", "SKIP_SELF": False}),
    # Narrow accesses to wide rows: the state and the gradient apart.
    "col row": ("state", {"BEGIN": "continued", "SAVE": True, "WRITE": "no", "SKIP_SELF": True}),
    "axis late": ("query", {"BEGIN": "given", "SAVE": False, "WRITE": "set", "SKIP_SELF": False}),
    "frame dkv": ("key", {"WRITE": "add", "SKIP_SELF": False}),
}


def block_case(
    name: str,
    length: int,
    channels: int,
    dtype: torch.dtype = torch.bfloat16,
    *,
    has_mask: bool = False,
    aligned: bool = True,
    precision: str = "ieee",
) -> Case:
    """A launch of the kernels that work in blocks: "axis" of long axes, else of the union."""
    from asycmst_ops._triton import blocks, layout

    kernel, flags = _PASSES[name]
    launch = blocks.launch_for(
        kernel, length, length, channels, dtype, precision=precision, aligned=aligned
    )
    unit = layout.ALIGNMENT // dtype.itemsize if aligned else 1
    return Case(
        name,
        _configuration(length, length, channels, dtype, precision, has_mask, aligned),
        {
            "mask": "*i1" if has_mask else _POINTERS[dtype],
            "state": _POINTERS[dtype] if name == "axis fwd" else "*fp32",
            "": _POINTERS[dtype],
        },
        blocks.compile_keywords(launch, channels, unit, has_mask, precision, **flags),
        aligned,
        dtype != torch.float32 or precision == "tf32",
        name != "axis fwd",
    )


def _configuration(
    q_length: int,
    k_length: int,
    channels: int,
    dtype: torch.dtype,
    precision: str,
    has_mask: bool,
    aligned: bool,
) -> str:
    words = [f"{q_length}x{k_length}", f"d={channels}", _NAMES[dtype]]
    words += [precision] if dtype == torch.float32 else []
    words += ["masked"] if has_mask else []
    words += [] if aligned else ["unaligned"]
    return " ".join(words)


def ranking_case(frames: int, *, has_lengths: bool = False) -> Case:
    """The launch that the ranking loss of float32 scores makes."""
    from asycmst_ops._triton import ranking

    return Case(
        "ranking",
        f"T={frames} fp32" + (" lengths" if has_lengths else ""),
        {"lengths": "*i64" if has_lengths else "*fp32", "": "*fp32"},
        ranking.compile_keywords(frames, has_lengths),
        False,
        False,
    )


def gates_case(
    kernel: str,
    dtype: torch.dtype = torch.bfloat16,
    *,
    channels_last: bool = False,
    backward: bool = False,
) -> Case:
    """The launch that gates of maps in patches of 4 make; "collect", "settle" or "write"."""
    from asycmst_ops._triton import gates

    way = "backward" if backward else "forward"
    if kernel == "settle":
        return Case(kernel, way, {"": "*fp32"}, gates.settle_keywords(backward), False, False)
    return Case(
        kernel,
        f"{way} {_NAMES[dtype]} {'channels last' if channels_last else 'rows'}",
        {**dict.fromkeys(_GATES_OWN, "*fp32"), "": _POINTERS[dtype]},
        gates.compile_keywords(64, 4, channels_last, backward),
        False,
        False,
    )


_GATES_OWN = ("gates", "pulls", "statistics", "settled")


def saliency_losses_case(
    kernel: str, dtype: torch.dtype = torch.float32, *, backward: bool = True
) -> Case:
    """A launch of the saliency losses; "collect", "settle" or "write", which has no forward."""
    from asycmst_ops._triton import saliency_losses

    own = dict.fromkeys(("settled", "grad"), "*fp32") | {"statistics": "*fp64"}
    return Case(
        f"losses {kernel}",
        f"{'backward' if backward else 'forward'} {_NAMES[dtype]}",
        {**own, "signs": "*i8" if backward else "*fp32", "": _POINTERS[dtype]},
        saliency_losses.compile_keywords(kernel, backward),
        False,
        False,
    )


def shipped_cases() -> list[Case]:
    """The launches that are audited: each branch of the launch table, masks and alignment."""
    cases = []
    for kernel in ("forward", "backward"):
        cases += [
            attention_case(kernel, 16, 16, 64),
            attention_case(kernel, 16, 16, 64, has_mask=True),
            attention_case(kernel, 16, 16, 128),
            attention_case(kernel, 24, 16, 64),
            attention_case(kernel, 32, 32, 128),
            attention_case(kernel, 49, 49, 48, torch.float16),
            attention_case(kernel, 49, 49, 64),
            attention_case(kernel, 49, 49, 64, has_mask=True),
            attention_case(kernel, 49, 49, 64, aligned=False),
            attention_case(kernel, 49, 49, 96),
            attention_case(kernel, 49, 49, 256),
            attention_case(kernel, 16, 16, 64, torch.float32),
            attention_case(kernel, 32, 32, 64, torch.float32),
            attention_case(kernel, 32, 32, 64, torch.float32, precision="tf32"),
            attention_case(kernel, 49, 49, 64, torch.float32),
            attention_case(kernel, 49, 49, 64, torch.float32, precision="tf32"),
        ]
    cases += [*_long_cases(), *_union_cases(), *_ranking_cases(), *_gates_cases()]
    return [*cases, *_saliency_losses_cases()]


_TOGETHER = ("axis dq", "col dq")
_APART = ("col row", "axis late")


def _cases(name: str, length: int, widths: Sequence[int]) -> list[Case]:
    """A launch with a mask for each row of its table and each of these widths."""
    half: dict[str, Any] = {"dtype": torch.bfloat16}
    ieee: dict[str, Any] = {"dtype": torch.float32, "precision": "ieee"}
    tf32: dict[str, Any] = {"dtype": torch.float32, "precision": "tf32"}
    cases = []
    for channels in widths:
        apart = channels > 128 and name in _TOGETHER
        narrow = [] if apart else [half, ieee] if channels > 128 else [half, tf32, ieee]
        wide = [] if name in _APART else [half, tf32, ieee]
        for aligned, kinds in ((True, wide), (False, narrow)):
            cases += [
                block_case(name, length, channels, has_mask=True, aligned=aligned, **kind)
                for kind in kinds
            ]
    return cases


def _long_cases() -> list[Case]:
    cases = _cases("axis late", 196, [256])
    for name in ("axis fwd", "axis dq", "axis dkv"):
        cases += _cases(name, 196, [64, 128, 256])
        cases += [
            block_case(name, 196, 48, torch.float16),
            block_case(name, 196, 64),
            block_case(name, 196, 96),
            block_case(name, 196, 256),
        ]
    return cases


def _union_cases() -> list[Case]:
    cases = _cases("col row", 16, [256])
    for name in (
        "frame fwd",
        "col fwd",
        "frame row",
        "col dq",
        "col dkv",
        "frame dq",
        "frame dkv",
    ):
        length = 49 if name.startswith("frame") else 16
        cases += [block_case(name, length, 64), block_case(name, length, 256)]
        cases += _cases(name, length, [64, 128, 256] if name == "frame row" else [64])
    return cases


def _ranking_cases() -> list[Case]:
    return [ranking_case(16), ranking_case(64, has_lengths=True)]


def _gates_cases() -> list[Case]:
    cases = []
    for backward in (False, True):
        cases.append(gates_case("settle", backward=backward))
        for kernel in ("collect", "write"):
            cases += [
                gates_case(kernel, channels_last=last, backward=backward) for last in (False, True)
            ]
    cases += [gates_case(kernel, torch.float32, backward=True) for kernel in ("collect", "write")]
    return cases


def _saliency_losses_cases() -> list[Case]:
    cases = [saliency_losses_case("settle", backward=backward) for backward in (False, True)]
    for dtype in (torch.float32, torch.bfloat16):
        cases += [
            saliency_losses_case("collect", dtype, backward=False),
            saliency_losses_case("collect", dtype),
            saliency_losses_case("write", dtype),
        ]
    return cases


def kernel_of(case: Case) -> Any:
    """The Triton function that a case names."""
    from asycmst_ops._triton import (
        axial_kernels,
        blocks,
        gates_kernels,
        ranking,
        saliency_losses_kernels,
    )

    kernels = {
        "forward": axial_kernels.forward_kernel,
        "backward": axial_kernels.backward_kernel,
        "ranking": ranking.ranking_kernel,
        "collect": gates_kernels.collect_kernel,
        "settle": gates_kernels.settle_kernel,
        "write": gates_kernels.write_kernel,
        "losses collect": saliency_losses_kernels.collect_kernel,
        "losses settle": saliency_losses_kernels.settle_kernel,
        "losses write": saliency_losses_kernels.write_kernel,
    }
    if case.kernel in kernels:
        return kernels[case.kernel]
    return blocks.KERNELS[_PASSES[case.kernel][0]]
