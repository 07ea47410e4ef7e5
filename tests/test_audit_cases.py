"""The list of what the audit compiles: every kernel, and each configuration once."""

import pytest

pytest.importorskip("triton", reason="triton is not installed")

from asycmst_ops import audit_cases
from asycmst_ops._triton import (
    axial_kernels,
    block_kernels,
    blocks,
    gates_kernels,
    ranking,
    saliency_losses_kernels,
)


def test_every_kernel_appears_once_per_configuration() -> None:
    names = [case[:2] for case in audit_cases.shipped_cases()]
    assert {audit_cases.kernel_of(case) for case in audit_cases.shipped_cases()} == {
        axial_kernels.forward_kernel,
        axial_kernels.backward_kernel,
        block_kernels.forward_kernel,
        block_kernels.query_kernel,
        block_kernels.key_kernel,
        ranking.ranking_kernel,
        gates_kernels.collect_kernel,
        gates_kernels.settle_kernel,
        gates_kernels.write_kernel,
        saliency_losses_kernels.collect_kernel,
        saliency_losses_kernels.settle_kernel,
        saliency_losses_kernels.write_kernel,
    }
    assert len(names) == len(set(names))


def test_every_row_of_the_block_table_is_listed() -> None:
    """Each kernel at each kind of operand and each width, by what selects its compiled form."""
    named = {"axis fwd": "forward", "frame row": "state", "axis dq": "query", "axis dkv": "key"}
    named["axis late"] = "query"
    cases = audit_cases.shipped_cases()
    for kernel, kinds in blocks.TABLE.items():
        for kind, sizes in kinds.items():
            operands = ("*bf16", "ieee") if "half" in kind else ("*fp32", kind.split()[0])
            for column, size in enumerate(sizes):
                found = [
                    case
                    for case in cases
                    if named.get(case.kernel) == kernel
                    and (case.pointers[""], case.keywords["PRECISION"]) == operands
                    and case.keywords["BLOCK_D"] == (64, 128, 256)[column]
                    and (case.keywords["UNIT"] == 1) == ("narrow" in kind)
                    and case.keywords["HAS_MASK"]
                ]
                names = ("BLOCK_Q", "BLOCK_K", "num_warps", "num_stages")
                assert [tuple(c.keywords[n] for n in names) for c in found] == [size]
