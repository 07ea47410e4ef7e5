"""What the static audit compiles: the launches that the operators make for the usual shapes."""

from typing import Any, NamedTuple

import torch

_POINTERS = {torch.float16: "*fp16", torch.bfloat16: "*bf16", torch.float32: "*fp32"}
_NAMES = {torch.float16: "fp16", torch.bfloat16: "bf16", torch.float32: "fp32"}


class Case(NamedTuple):
    """One kernel with everything that selects its compiled form."""

    kernel: str  # "forward", "backward" or "ranking"
    configuration: str
    pointers: dict[str, str]  # pointer argument -> type; "" stands for every other pointer
    keywords: dict[str, Any]
    wide: bool  # all tensor accesses should be 128-bit
    products: bool  # there should be tensor-core instructions


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
    from asycmst_ops._triton import axial

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
    unit = axial.ALIGNMENT // dtype.itemsize if aligned else 1
    words = [f"{q_length}x{k_length}", f"d={channels}", _NAMES[dtype]]
    words += [precision] if dtype == torch.float32 else []
    words += ["masked"] if has_mask else []
    words += [] if aligned else ["unaligned"]
    return Case(
        kernel,
        " ".join(words),
        {"mask": "*i1" if has_mask else _POINTERS[dtype], "": _POINTERS[dtype]},
        axial.compile_keywords(launch, channels, unit, has_mask, precision),
        aligned and smallest_tile >= axial.ALIGNMENT * threads,
        dtype != torch.float32 or precision == "tf32",
    )


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
    return [*cases, ranking_case(16), ranking_case(64, has_lengths=True)]
