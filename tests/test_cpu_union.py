"""The compiled kernels of attention over two axes at once, instruction set by instruction set."""

import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from asycmst_ops import _cpu, reference
from asycmst_ops._problem import UnionBackward, UnionForward
from asycmst_ops.testing import Layout, assert_within_budget, make_grid, make_grids

if not _cpu.available:
    pytest.skip(_cpu.unavailable_reason, allow_module_level=True)

ISAS = _cpu._C.isas()
DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
# Frames, places, channels: single tokens, tails of vectors, several blocks; either axis is longer.
SIZES = ((1, 1, 5), (1, 9, 16), (6, 1, 16), (3, 4, 1), (16, 49, 64), (49, 5, 20), (5, 66, 96))
NAMES = ("out", "dq", "dk", "dv")

each_isa = pytest.mark.parametrize("isa", range(len(ISAS)), ids=ISAS)
each_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: str(d).split(".")[1])


def run(
    inputs: Sequence[Tensor],
    grad: Tensor,
    *,
    isa: int = 0,
    mask: Tensor | None = None,
    scale: float | None = None,
    outputs: Sequence[Tensor] | None = None,
) -> list[Tensor]:
    """Output and gradients of one problem, in `outputs` where given."""
    q, k, v = inputs
    if outputs is None:
        outputs = [torch.empty(x.shape, dtype=x.dtype) for x in (q, q, k, v)]
    out, *grads = outputs
    factor = 1 / math.sqrt(q.shape[-1]) if scale is None else scale
    _cpu.union_forward([UnionForward(out, q, k, v, mask)], factor, isa=isa)
    _cpu.union_backward([UnionBackward(*grads, grad, q, k, v, mask)], factor, isa=isa)
    return list(outputs)


def expected(
    inputs: Sequence[Tensor], grad: Tensor, dtype: torch.dtype, mask: Tensor | None = None
) -> list[Tensor]:
    leaves = [x.detach().to(dtype, copy=True).requires_grad_() for x in inputs]
    out = reference.union_attention(*leaves, key_mask=mask)
    return [out.detach(), *torch.autograd.grad(out, leaves, grad.to(dtype))]


def check(inputs: Sequence[Tensor], grad: Tensor, isa: int, mask: Tensor | None = None) -> None:
    plain = expected(inputs, grad, grad.dtype, mask)
    exact = expected(inputs, grad, torch.float64, mask)
    found = run(inputs, grad, isa=isa, mask=mask)
    for name, *three in zip(NAMES, found, plain, exact, strict=True):
        assert_within_budget(f"{name}, {tuple(grad.shape)}", *three)


def masks(shape: Sequence[int]) -> list[Tensor]:
    """Random keys; frames and places without any; a single key; none at all."""
    some = torch.rand(tuple(shape)) < 0.6
    bare = some.clone()
    bare[:, 0], bare[:, :, -1] = False, False
    one = torch.zeros_like(some)
    one[-1, -1, 0] = True
    return [some, bare, one, torch.zeros_like(some)]


@each_isa
@each_dtype
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_matches_the_reference(isa: int, dtype: torch.dtype, size: tuple[int, int, int]) -> None:
    frames, places, width = size
    *inputs, grad = make_grids(4, (2, frames, places, 2, width), dtype=dtype)
    small = frames * places < 50
    check(inputs, grad, isa)
    # On large grids two kinds of masks keep the reference quick.
    for mask in masks((2, frames, places))[: 4 if small else 2]:
        check(inputs, grad, isa, mask)


@each_isa
@each_dtype
def test_masked_keys_never_leak(isa: int, dtype: torch.dtype) -> None:
    for size in ((16, 17, 64), (5, 3, 20)):
        q, k, v, grad = make_grids(4, (2, *size[:2], 2, size[2]), dtype=dtype)
        for mask in masks(k.shape[:3]):
            plain = run((q, k, v), grad, isa=isa, mask=mask)
            hidden = ~mask[..., None, None]
            poisoned = q, k.masked_fill(hidden, math.nan), v.masked_fill(hidden, math.inf)
            found = run(poisoned, grad, isa=isa, mask=mask)
            assert all(map(torch.equal, found, plain))
            assert (found[2][~mask] == 0).all() and (found[3][~mask] == 0).all()
            alone = ~(mask.any(1, keepdim=True) | mask.any(2, keepdim=True))
            assert (found[0][alone] == 0).all() and (found[1][alone] == 0).all()


@each_isa
@pytest.mark.parametrize("dtype", (torch.float32, torch.bfloat16), ids=("float32", "bfloat16"))
@pytest.mark.parametrize("layout", ("packed", "permuted", "expanded"))
def test_layouts_change_no_bit(isa: int, dtype: torch.dtype, layout: Layout) -> None:
    generator = torch.Generator().manual_seed(0)
    for shape in ((2, 16, 49, 2, 64), (2, 7, 5, 2, 20)):
        options: dict[str, Any] = {"layout": layout, "dtype": dtype, "generator": generator}
        *inputs, grad = (make_grid(shape, **options) for _ in range(4))
        mask = make_grid((*shape[:3], 1, 1), layout="permuted")[..., 0, 0] > 0
        plain = [x.contiguous() for x in inputs]
        for keys in (None, mask):
            first = run(inputs, grad, isa=isa, mask=keys)
            second = run(
                plain,
                grad.contiguous(),
                isa=isa,
                mask=None if keys is None else keys.contiguous(),
            )
            assert all(map(torch.equal, first, second))


@each_isa
@each_dtype
def test_strided_outputs_leave_their_neighbours(isa: int, dtype: torch.dtype) -> None:
    for size in ((6, 17, 64), (5, 3, 21)):
        shape = (2, *size[:2], 2, size[2])
        *inputs, grad = make_grids(4, shape, dtype=dtype)
        packed = torch.full((*shape[:3], 6, *shape[3:]), 7.0, dtype=dtype)
        outputs = [packed[:, :, :, i] for i in (0, 1, 3, 5)]
        found = run(inputs, grad, isa=isa, outputs=outputs)
        assert all(map(torch.equal, found, run(inputs, grad, isa=isa)))
        assert (packed[:, :, :, (2, 4)] == 7).all()


@each_isa
def test_a_masked_place_equals_leaving_it_out(isa: int) -> None:
    q, k, v, grad = make_grids(4, (2, 6, 33, 2, 20), dtype=torch.float64)
    kept = torch.rand(33) < 0.5
    grad = grad * kept[:, None, None]  # what is asked at the others must not count
    masked = run((q, k, v), grad, isa=isa, mask=kept.expand(2, 6, 33))
    fewer = run([x[:, :, kept] for x in (q, k, v)], grad[:, :, kept], isa=isa)
    for one, other in zip(masked, fewer, strict=True):
        torch.testing.assert_close(one[:, :, kept], other)


@each_isa
@each_dtype
@pytest.mark.parametrize("axis", ["column", "frame"])
def test_either_axis_may_outweigh_the_other(isa: int, dtype: torch.dtype, axis: str) -> None:
    """Scores of 100 along one axis and 0 along the other: the mean of the former's values."""
    v, grad = make_grids(2, (1, 5, 20, 1, 40), dtype=dtype)
    code = torch.zeros_like(v)  # of a token's place or frame, orthogonal to the others
    for t in range(5):
        for n in range(20):
            code[0, t, n, 0, n if axis == "column" else t] = 10
    q = k = code
    out, *grads = run((q, k, v), grad, isa=isa, scale=1.0)
    mean = v.double().mean(1 if axis == "column" else 2, keepdim=True).expand(v.shape)
    torch.testing.assert_close(out.double(), mean, atol=4 * torch.finfo(dtype).eps, rtol=0)
    assert all(torch.isfinite(x).all() for x in grads)


@each_isa
@each_dtype
def test_extreme_logits_stay_finite(isa: int, dtype: torch.dtype) -> None:
    big = 1e4 if dtype == torch.float16 else 1e8
    for size in ((4, 17), (33, 3)):
        q, k, v, grad = make_grids(4, (2, *size, 2, 16), dtype=dtype)
        for x, y, scale in ((q.sign() * big, k.sign(), 1.0), (q, k, 1e8), (q, k, -1e4)):
            found = run((x, y, v), grad / 1e3, isa=isa, scale=scale)
            for name, result in zip(NAMES, found, strict=True):
                if dtype != torch.float16 or name in ("out", "dv"):
                    assert torch.isfinite(result).all(), name


@each_isa
@each_dtype
@pytest.mark.parametrize("where", range(4), ids=("q", "k", "v", "grad"))
def test_nan_reaches_what_it_reaches_in_the_reference(
    isa: int, dtype: torch.dtype, where: int
) -> None:
    for size in ((4, 17, 20), (17, 1, 16), (1, 18, 64)):
        grids = make_grids(4, (2, *size[:2], 2, size[2]), dtype=dtype)
        grids[where][1, -1, 0, 1, 3] = math.nan
        mask = torch.ones(2, *size[:2], dtype=torch.bool)
        mask[1, 0, -1] = size[0] * size[1] < 20
        found = run(grids[:3], grids[3], isa=isa, mask=mask)
        for name, x, y in zip(
            NAMES, found, expected(grids[:3], grids[3], torch.float64, mask), strict=True
        ):
            assert torch.equal(x.isnan(), y.isnan()), name


def both(inputs: Sequence[Tensor], scale: float) -> list[Tensor]:
    """Two problems forward and backward in one call each; the last two inputs are gradients."""
    *x, g1, g2 = inputs
    outs = [torch.empty_like(x[0]), torch.empty_like(x[3])]
    _cpu.union_forward(
        [UnionForward(outs[0], *x[:3], None), UnionForward(outs[1], *x[3:], None)], scale
    )
    grads = [torch.empty_like(y) for y in x]
    _cpu.union_backward(
        [
            UnionBackward(*grads[:3], g1, *x[:3], None),
            UnionBackward(*grads[3:], g2, *x[3:], None),
        ],
        scale,
    )
    return outs + grads


@pytest.mark.parametrize("dtype", (torch.float32, torch.bfloat16), ids=("float32", "bfloat16"))
@pytest.mark.parametrize("shape", [(2, 16, 49, 6, 64), (1, 3, 33, 3, 48)], ids=["groups", "heads"])
def test_threads_repetition_and_joining_change_no_bit(
    shape: tuple[int, ...], dtype: torch.dtype
) -> None:
    inputs = make_grids(8, shape, dtype=dtype)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        first = both(inputs, 0.1)
        torch.set_num_threads(2)
        for _ in range(5):
            assert all(map(torch.equal, both(inputs, 0.1), first))
        *x, g1, g2 = inputs
        one, other = run(x[:3], g1, scale=0.1), run(x[3:], g2, scale=0.1)
    finally:
        torch.set_num_threads(threads)
    assert all(map(torch.equal, [one[0], other[0], *one[1:], *other[1:]], first))


@pytest.mark.parametrize(
    "shape", [(3, 64, 66, 1, 64), (2, 64, 130, 2, 64)], ids=["samples", "heads"]
)
def test_portions_of_large_problems_change_no_bit(shape: tuple[int, ...]) -> None:
    """Gradients that wait for the second axis take 3 and 6 MiB a head here, of 8 at a time."""
    *inputs, grad = make_grids(4, shape, dtype=torch.bfloat16)
    mask = torch.rand(shape[:3]) < 0.8
    whole = run(inputs, grad, mask=mask)
    for b in range(shape[0]):
        for h in range(shape[3]):
            part = [x[b : b + 1, :, :, h : h + 1] for x in inputs]
            found = run(part, grad[b : b + 1, :, :, h : h + 1], mask=mask[b : b + 1])
            for x, y in zip(whole, found, strict=True):
                assert torch.equal(x[b : b + 1, :, :, h : h + 1], y)


def test_a_union_needs_equal_sizes() -> None:
    def problem(shape: tuple[int, ...], keys: int) -> tuple[Any, ...]:
        return (1, shape, keys, 0, (0, 0, 0), *(0, (0,) * 5) * 4)

    one, other = problem((1, 2, 3, 1, 4), 2), problem((1, 2, 4, 1, 4), 2)
    for problems in ([problem((1, 2, 3, 1, 4), 3)], [one, other]):
        with pytest.raises(ValueError, match="must have the same sizes"):
            _cpu._C.union_forward(0, problems, 1.0, 1)
