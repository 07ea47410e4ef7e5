"""Random shapes, strides and masks on every instruction set, in buffers without a byte to spare.

Under AddressSanitizer, with which `.ci/run` runs this file, a read or write beyond
a tensor ends the run; without it, wrong values and writes between the rows are still seen.
"""

import math
import random
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from asycmst_ops import _cpu, reference
from asycmst_ops._problem import Backward, Forward, UnionBackward, UnionForward
from asycmst_ops.testing import assert_within_budget

if not _cpu.available:
    pytest.skip(_cpu.unavailable_reason, allow_module_level=True)

ISAS = _cpu._C.isas()
DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
AXES: dict[int, reference.Axis] = {1: "time", 2: "space"}
CASES = 40
GAP = 7.0  # what lies between the rows of a grid


def tight_grid(shape: tuple[int, ...], dtype: torch.dtype, rng: random.Random) -> Tensor:
    """A grid whose dimensions lie in random order with random gaps, the last one densely, and
    whose storage ends with its last element.
    """
    order = [0, 1, 2, 3]
    rng.shuffle(order)
    strides, step = [1] * 5, shape[4]
    for dim in order:
        step += rng.choice((0, 0, 1, 3))
        strides[dim] = step
        step *= shape[dim]
    length = 1 + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
    stored = torch.full((length,), GAP, dtype=dtype)
    return stored.as_strided(shape, strides)


def filled(x: Tensor, generator: torch.Generator) -> Tensor:
    return x.copy_(torch.randn(x.shape, generator=generator, dtype=torch.float64))


def untouched_between(x: Tensor) -> bool:
    """Whether everything in the storage that is not part of the grid is as it was."""
    stored = torch.empty(0, dtype=x.dtype).set_(x.untyped_storage())
    inside = torch.zeros(stored.shape, dtype=torch.bool)
    inside.as_strided(x.shape, x.stride()).fill_(True)
    return bool((stored[~inside] == GAP).all())


def check(
    case: int,
    inputs: Sequence[Tensor],
    grad: Tensor,
    found: Sequence[Tensor],
    axis: reference.Axis | None,
    mask: Tensor | None,
) -> None:
    """Against the reference along one axis, or along both at once, within the error budget."""
    results = []
    for kind in (grad.dtype, torch.float64):
        leaves = [x.detach().to(kind, copy=True).requires_grad_() for x in inputs]
        if axis is None:
            wanted = reference.union_attention(*leaves, key_mask=mask)
        else:
            wanted = reference.axial_attention(*leaves, axis=axis, key_mask=mask)
        gradients = torch.autograd.grad(wanted, leaves, grad.to(kind))
        results.append([wanted.detach(), *gradients])
    for name, actual, plain, exact in zip(("out", "dq", "dk", "dv"), found, *results, strict=True):
        assert_within_budget(f"case {case}: {name}", actual, plain, exact)
        assert untouched_between(actual), f"case {case}: {name}"


@pytest.mark.parametrize("isa", range(len(ISAS)), ids=ISAS)
@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: str(d).split(".")[1])
def test_random_problems(isa: int, dtype: torch.dtype) -> None:
    for case in range(CASES):
        rng = random.Random(f"{case}{dtype}")
        generator = torch.Generator().manual_seed(case)
        dim = rng.choice((1, 2))
        shape = [rng.randint(1, 3), rng.randint(1, 4), rng.randint(1, 4), rng.randint(1, 3)]
        shape[dim] = rng.choice((1, 2, 3, 7, 16, 31, 49, 63, 64, 65, 80, 130))
        width = rng.choice((1, 2, 3, 15, 16, 17, 32, 33, 64, 65, 100))
        q_shape = (*shape, width)
        k_shape = list(q_shape)
        if rng.random() < 0.5:
            k_shape[dim] = rng.randint(1, 70)
        q, grad = (filled(tight_grid(q_shape, dtype, rng), generator) for _ in range(2))
        k, v = (filled(tight_grid(tuple(k_shape), dtype, rng), generator) for _ in range(2))
        mask = None
        if rng.random() < 0.5:
            mask = torch.rand(k_shape[:3], generator=generator) < rng.choice((0.1, 0.5, 0.9))
        outs = [tight_grid(tuple(x.shape), dtype, rng) for x in (q, q, k, v)]
        out, dq, dk, dv = outs
        factor = 1 / math.sqrt(width)
        _cpu.axial_forward([Forward(out, q, k, v, mask, dim)], factor, isa=isa)
        _cpu.axial_backward([Backward(dq, dk, dv, grad, q, k, v, mask, dim)], factor, isa=isa)
        check(case, (q, k, v), grad, outs, AXES[dim], mask)


@pytest.mark.parametrize("isa", range(len(ISAS)), ids=ISAS)
@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: str(d).split(".")[1])
def test_random_unions(isa: int, dtype: torch.dtype) -> None:
    for case in range(CASES):
        rng = random.Random(f"union {case}{dtype}")
        generator = torch.Generator().manual_seed(case)
        sides = [rng.choice((1, 2, 3, 7, 16, 31, 49, 65)), rng.randint(1, 9)]
        rng.shuffle(sides)
        width = rng.choice((1, 2, 3, 15, 16, 17, 32, 33, 64, 65, 100))
        shape = (rng.randint(1, 3), *sides, rng.randint(1, 3), width)
        q, k, v, grad = (filled(tight_grid(shape, dtype, rng), generator) for _ in range(4))
        mask = None
        if rng.random() < 0.5:
            mask = torch.rand(shape[:3], generator=generator) < rng.choice((0.1, 0.5, 0.9))
        outs = [tight_grid(shape, dtype, rng) for _ in range(4)]
        factor = 1 / math.sqrt(width)
        _cpu.union_forward([UnionForward(outs[0], q, k, v, mask)], factor, isa=isa)
        _cpu.union_backward([UnionBackward(*outs[1:], grad, q, k, v, mask)], factor, isa=isa)
        check(case, (q, k, v), grad, outs, None, mask)
