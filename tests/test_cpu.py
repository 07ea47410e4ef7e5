"""The compiled CPU kernels, instruction set by instruction set, against the float64 reference."""

import math
import os
import subprocess
import sys
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from asycmst_ops import _cpu, reference
from asycmst_ops._problem import Backward, Forward
from asycmst_ops.testing import Layout, assert_within_budget, make_grid, make_grids

if not _cpu.available:
    pytest.skip(_cpu.unavailable_reason, allow_module_level=True)

ISAS = _cpu._C.isas()
DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
AXES = {1: "time", 2: "space"}
LENGTHS = (1, 2, 5, 13, 16, 17, 33, 49, 64, 65, 196)
WIDTHS = (1, 5, 16, 20, 48, 64, 96, 256)
NAMES = ("out", "dq", "dk", "dv")

each_isa = pytest.mark.parametrize("isa", range(len(ISAS)), ids=ISAS)
each_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: str(d).split(".")[1])
each_dim = pytest.mark.parametrize("dim", AXES, ids=AXES.values())


def grid_shape(dim: int, length: int, width: int) -> tuple[int, ...]:
    """Two samples, two heads and three groups, with `length` along `dim`."""
    return (2, length, 3, 2, width) if dim == 1 else (2, 3, length, 2, width)


def run(
    inputs: Sequence[Tensor],
    grad: Tensor,
    dim: int,
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
    out, dq, dk, dv = outputs
    factor = 1 / math.sqrt(q.shape[-1]) if scale is None else scale
    _cpu.axial_forward([Forward(out, q, k, v, mask, dim)], factor, isa=isa)
    _cpu.axial_backward([Backward(dq, dk, dv, grad, q, k, v, mask, dim)], factor, isa=isa)
    return list(outputs)


def expected(
    inputs: Sequence[Tensor],
    grad: Tensor,
    dim: int,
    dtype: torch.dtype,
    mask: Tensor | None = None,
    scale: float | None = None,
) -> list[Tensor]:
    leaves = [x.detach().to(dtype, copy=True).requires_grad_() for x in inputs]
    axis = "time" if dim == 1 else "space"
    out = reference.axial_attention(*leaves, axis=axis, key_mask=mask, scale=scale)
    return [out.detach(), *torch.autograd.grad(out, leaves, grad.to(dtype))]


def check(inputs: Sequence[Tensor], grad: Tensor, dim: int, isa: int, **options: object) -> None:
    actual = run(inputs, grad, dim, isa=isa, **options)
    plain = expected(inputs, grad, dim, grad.dtype, **options)
    exact = expected(inputs, grad, dim, torch.float64, **options)
    for name, a, p, e in zip(NAMES, actual, plain, exact, strict=True):
        where = f"{name}, keys {tuple(inputs[1].shape)}, queries {tuple(grad.shape)}"
        assert_within_budget(where, a, p, e)


@each_isa
@each_dtype
@pytest.mark.parametrize("length", LENGTHS, ids=lambda n: f"L{n}")
def test_matches_the_reference(isa: int, dtype: torch.dtype, length: int) -> None:
    # On long axes one of the narrow and one of the wide heads keep the reference quick.
    for width in WIDTHS if length < 100 else (5, 96):
        for dim in AXES:
            *inputs, grad = make_grids(4, grid_shape(dim, length, width), dtype=dtype, seed=width)
            check(inputs, grad, dim, isa)


@each_isa
@each_dtype
@each_dim
def test_other_key_lengths_and_masks(isa: int, dtype: torch.dtype, dim: int) -> None:
    for queries, keys in ((1, 5), (49, 2), (13, 65), (66, 17), (5, 33)):
        for width in (20, 64):
            q, grad = make_grids(2, grid_shape(dim, queries, width), dtype=dtype)
            k, v = make_grids(2, grid_shape(dim, keys, width), dtype=dtype, seed=1)
            mask = torch.rand(k.shape[:3]) < 0.6
            check((q, k, v), grad, dim, isa)
            check((q, k, v), grad, dim, isa, mask=mask)
            check((q, k, v), grad, dim, isa, mask=mask[:1, :1].expand(k.shape[:3]))


@each_isa
@each_dim
@pytest.mark.parametrize("length", [1024])
def test_long_axis(isa: int, dim: int, length: int) -> None:
    shape = (1, length, 1, 1, 16) if dim == 1 else (1, 1, length, 1, 16)
    *inputs, grad = make_grids(4, shape)
    check(inputs, grad, dim, isa)


@each_isa
@each_dim
@pytest.mark.parametrize("dtype", (torch.float32, torch.bfloat16), ids=("float32", "bfloat16"))
@pytest.mark.parametrize("layout", ("packed", "permuted", "expanded"))
def test_layouts_change_no_bit(isa: int, dim: int, layout: Layout, dtype: torch.dtype) -> None:
    for length, width in ((49, 64), (17, 20)):
        shape = grid_shape(dim, length, width)
        generator = torch.Generator().manual_seed(0)
        *inputs, grad = (
            make_grid(shape, layout=layout, dtype=dtype, generator=generator) for _ in range(4)
        )
        plain = run([x.contiguous() for x in inputs], grad.contiguous(), dim, isa=isa)
        for one, other in zip(run(inputs, grad, dim, isa=isa), plain, strict=True):
            assert torch.equal(one, other)


@each_isa
@each_dim
def test_strided_outputs_leave_their_neighbours(isa: int, dim: int) -> None:
    for dtype, length, width in (
        (torch.float32, 49, 64),
        (torch.float32, 17, 20),
        (torch.float16, 18, 21),
        (torch.float64, 5, 3),
    ):
        shape = grid_shape(dim, length, width)
        *inputs, grad = make_grids(4, shape, dtype=dtype)
        packed = torch.full((*shape[:3], 6, *shape[3:]), 7.0, dtype=dtype)
        outputs = [packed[:, :, :, i] for i in (0, 1, 3, 5)]
        actual = run(inputs, grad, dim, isa=isa, outputs=outputs)
        for one, other in zip(actual, run(inputs, grad, dim, isa=isa), strict=True):
            assert torch.equal(one, other)
        assert (packed[:, :, :, (2, 4)] == 7).all()


@each_isa
def test_axes_whose_rows_collide_in_the_cache(isa: int) -> None:
    """Rows 16 KiB apart are packed first, like the frames of a large grid."""
    shape = (1, 33, 64, 1, 64)
    *inputs, grad = make_grids(4, shape)
    plain = run(
        [x[:, :, :2].contiguous() for x in inputs], grad[:, :, :2].contiguous(), 1, isa=isa
    )
    for one, other in zip(run(inputs, grad, 1, isa=isa), plain, strict=True):
        assert torch.equal(one[:, :, :2], other)


@each_isa
@each_dtype
@each_dim
def test_masked_keys_never_leak(isa: int, dtype: torch.dtype, dim: int) -> None:
    for length, width in ((49, 64), (18, 5)):
        q, k, v, grad = make_grids(4, grid_shape(dim, length, width), dtype=dtype)
        mask = torch.rand(k.shape[:3]) < 0.6
        mask.select(3 - dim, 1).fill_(False)
        k[~mask], v[~mask] = math.nan, math.inf
        out, dq, dk, dv = run((q, k, v), grad, dim, isa=isa, mask=mask)
        for name, x in zip(NAMES, (out, dq, dk, dv), strict=True):
            assert torch.isfinite(x).all(), name
        for x in (out, dq):
            assert (x.select(3 - dim, 1) == 0).all()
        assert (dk[~mask] == 0).all() and (dv[~mask] == 0).all()


@each_isa
@each_dim
def test_a_mask_equals_leaving_the_keys_out(isa: int, dim: int) -> None:
    q, k, v, grad = make_grids(4, grid_shape(dim, 33, 20))
    kept = torch.rand(33) < 0.5
    mask = kept[:, None] if dim == 1 else kept
    masked = run((q, k, v), grad, dim, isa=isa, mask=mask.expand(k.shape[:3]))
    index = kept.nonzero()[:, 0]
    fewer = [x.index_select(dim, index) for x in (k, v)]
    out, dq, dk, dv = run((q, *fewer), grad, dim, isa=isa)
    assert torch.equal(masked[0], out) and torch.equal(masked[1], dq)
    assert torch.equal(masked[2].index_select(dim, index), dk)
    assert torch.equal(masked[3].index_select(dim, index), dv)


@each_isa
@each_dtype
def test_extreme_logits_stay_finite(isa: int, dtype: torch.dtype) -> None:
    big = 1e4 if dtype == torch.float16 else 1e8
    for length in (17, 64):
        q, k, v, grad = make_grids(4, grid_shape(2, length, 16), dtype=dtype)
        for x, y, scale in (
            (q.sign() * big, k.sign(), 1.0),
            (torch.full_like(q, -100), torch.full_like(k, 6.25), 1.0),
            (q, k, 1e8),
            (q, k, -1e4),
        ):
            for name, result in zip(
                NAMES, run((x, y, v), grad / 1e3, 2, isa=isa, scale=scale), strict=True
            ):
                if dtype != torch.float16 or name in ("out", "dv"):
                    assert torch.isfinite(result).all(), name
        # All logits are equal to -1e4 here: the mean of the values.
        out = run((torch.full_like(q, -100), torch.full_like(k, 6.25), v), grad, 2, isa=isa)[0]
        mean = v.double().mean(2, keepdim=True).expand(out.shape)
        torch.testing.assert_close(out.double(), mean, atol=4 * torch.finfo(dtype).eps, rtol=0)


@each_isa
@each_dtype
def test_a_constant_added_to_the_logits_of_a_query(isa: int, dtype: torch.dtype) -> None:
    """A channel that is 1 in every key moves all logits of a query alike, here without rounding:
    it cancels to the last bit.
    """
    q, k, v, grad = make_grids(4, grid_shape(1, 33, 16), dtype=torch.float64)
    q, k = (x.round().clamp(-2, 2) for x in (q, k))  # exact products in every dtype
    k[..., 0] = 1.0
    q[..., 0] = 0.0
    shifted = q.clone()
    shifted[..., 0] = -512.0
    before, after = (
        run([x.to(dtype) for x in (query, k, v)], grad.to(dtype), 1, isa=isa, scale=0.5)[0]
        for query in (q, shifted)
    )
    assert torch.equal(after, before)


@each_isa
@each_dtype
def test_nan_reaches_what_it_concerns(isa: int, dtype: torch.dtype) -> None:
    for length in (17, 40):
        q, k, v, grad = make_grids(4, grid_shape(2, length, 20), dtype=dtype)
        q[0, 1, length - 1, 0, 3] = math.nan
        out, dq, dk, dv = run((q, k, v), grad, 2, isa=isa)
        assert out.isnan().any(-1).sum() == 1 and out[0, 1, length - 1, 0].isnan().all()
        assert dq.isnan().any(-1).sum() == 1
        for x in (dk, dv):
            assert x[0, 1, :, 0].isnan().all() and x.isnan().any(-1).sum() == length
        k[1, 2, 0, 1, 0] = math.nan
        assert run((q, k, v), grad, 2, isa=isa)[0][1, 2, :, 1].isnan().all()


@each_isa
@pytest.mark.parametrize("dtype", (torch.float16, torch.bfloat16), ids=("float16", "bfloat16"))
@pytest.mark.parametrize("width", (256, 13), ids=("vectors", "single values"))
def test_rounds_to_nearest_even(isa: int, dtype: torch.dtype, width: int) -> None:
    """Every 16-bit value meets its successor: half of the means are ties.

    Where the processor multiplies pairs of bfloat16, it takes and gives 0 for denormal numbers, as
    it does in PyTorch's own products.
    """
    count = 65536 // width
    bits = torch.arange(count * width, dtype=torch.int32)
    v = torch.stack((bits, bits + 1)).to(torch.int16).view(dtype).view(1, 2, count, 1, width)
    zero = torch.zeros_like(v)
    out = run((zero, zero, v), zero, 1, isa=isa)[0]
    seen = v.float()
    if ISAS[isa] == "avx512bf16" and dtype == torch.bfloat16:
        seen = torch.where(seen.abs() < torch.finfo(dtype).tiny, 0.0, seen)
    mean = ((seen[:, 0] + seen[:, 1]) / 2).to(dtype)
    torch.testing.assert_close(out[:, 1], mean, atol=0, rtol=0, equal_nan=True)
    assert torch.equal(out[:, 0].isnan(), mean.isnan())


@each_dtype
def test_one_key_passes_its_value_and_no_gradient(dtype: torch.dtype) -> None:
    q, k, v, grad = make_grids(4, (2, 3, 1, 2, 20), dtype=dtype)
    out, dq, dk, dv = run((q, k, v), grad, 2)
    assert torch.equal(out, v) and torch.equal(dv, grad)
    assert (dq == 0).all() and (dk == 0).all()


def joint(inputs: Sequence[Tensor]) -> list[Tensor]:
    """Forward and backward of both directions in one call each; the last two are gradients."""
    *x, g1, g2 = inputs
    outs = [torch.empty_like(x[0]), torch.empty_like(x[3])]
    _cpu.axial_forward([Forward(outs[0], *x[:3], None, 1), Forward(outs[1], *x[3:], None, 2)], 0.1)
    grads = [torch.empty_like(y) for y in x]
    _cpu.axial_backward(
        [Backward(*grads[:3], g1, *x[:3], None, 1), Backward(*grads[3:], g2, *x[3:], None, 2)], 0.1
    )
    return outs + grads


@pytest.mark.parametrize("shape", [(2, 16, 49, 6, 64), (1, 40, 2, 3, 48)], ids=["groups", "heads"])
def test_threads_repetition_and_joining_change_no_bit(shape: tuple[int, ...]) -> None:
    inputs = make_grids(8, shape)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        first = joint(inputs)
        torch.set_num_threads(2)
        for _ in range(5):
            assert all(map(torch.equal, joint(inputs), first))
        *x, g1, g2 = inputs
        time = run(x[:3], g1, 1, scale=0.1)
        space = run(x[3:], g2, 2, scale=0.1)
    finally:
        torch.set_num_threads(threads)
    singles = [time[0], space[0], *time[1:], *space[1:]]
    assert all(map(torch.equal, singles, first))


FORK = """
import os, torch
from asycmst_ops import _cpu
from asycmst_ops._problem import Forward

torch.set_num_threads(2)
x = torch.randn(2, 16, 49, 6, 64)

def call():
    out = torch.empty_like(x)
    _cpu.axial_forward([Forward(out, x, x, x, None, 2)], 0.1)
    return out

before = call()
child = os.fork()
if child == 0:
    after = call()
    torch.set_num_threads(1)  # torch's own loops would hang
    os._exit(0 if torch.equal(after, before) else 3)
_, status = os.waitpid(child, 0)
assert status == 0, status
assert torch.equal(call(), before)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_a_forked_child_does_not_hang() -> None:
    done = subprocess.run(
        [sys.executable, "-c", FORK], timeout=60, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_info_names_the_build() -> None:
    info = _cpu.info()
    assert info["isa"] == ISAS[0] and ISAS[-1] == "baseline"
    assert info["threads"] == (torch.get_num_threads() if info["openmp"] else 1)


def test_other_dtypes_are_refused() -> None:
    x = torch.zeros(1, 1, 1, 1, 1, dtype=torch.int32)
    with pytest.raises(TypeError, match=r"int32.*float16, bfloat16, float32 and float64"):
        _cpu.axial_forward([Forward(x, x, x, x, None, 1)], 1.0)


@pytest.mark.parametrize(
    ("problem", "message"),
    [
        ([], "must be a tuple"),
        ((1, (1, 1, 1, 1, 1), 1, 0, (0, 0, 0)), "fewer values"),
        ((1, (1, 1, 1, 1)), "expected length"),
        ((1, (1, 1, 1, 1, 1), 1, 0, (0, 0, 0), *(0, (0,) * 5) * 4, 0), "more values"),
    ],
    ids=["list", "short", "sizes", "long"],
)
def test_the_binding_checks_its_tuples(problem: object, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        _cpu._C.axial_forward(0, [problem], 1.0, 1)
