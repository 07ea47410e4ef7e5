"""The axial Triton kernels, called directly: on a GPU where there is one, else interpreted."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from asycmst_ops import reference
from asycmst_ops._problem import Backward, Forward
from asycmst_ops.testing import assert_within_budget, make_grid, make_mask

axial = pytest.importorskip("asycmst_ops._triton.axial", reason="triton is not installed")
layout = pytest.importorskip("asycmst_ops._triton.layout")

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
AXES = {"time": 1, "space": 2}
DTYPES = [torch.float16, torch.bfloat16, torch.float32]
needs_gpu = pytest.mark.skipif(DEVICE == "cpu", reason="no CUDA device")


def grid_shape(axis: str, length: int, d: int, *, others: int = 2, heads: int = 2) -> list[int]:
    shape = [1, others, others, heads, d]
    shape[AXES[axis]] = length
    return shape


def poisoned(like: Tensor) -> Tensor:
    return torch.full(like.shape, torch.nan, dtype=like.dtype, device=like.device)


def run(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    grad: Tensor,
    axis: str,
    mask: Tensor | None = None,
    scale: float | None = None,
    gradients: tuple[Tensor, Tensor, Tensor] | None = None,
) -> tuple[Tensor, ...]:
    """out, dq, dk, dv of the kernels, from outputs that held NaN."""
    dim, factor = AXES[axis], q.shape[4] ** -0.5 if scale is None else scale
    out = poisoned(q)
    dq, dk, dv = (poisoned(q), poisoned(k), poisoned(v)) if gradients is None else gradients
    axial.axial_forward([Forward(out, q, k, v, mask, dim)], factor)
    axial.axial_backward([Backward(dq, dk, dv, grad, q, k, v, mask, dim)], factor)
    return out, dq, dk, dv


def expected(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    grad: Tensor,
    axis: str,
    mask: Tensor | None = None,
    scale: float | None = None,
    dtype: torch.dtype = torch.float64,
) -> tuple[Tensor, ...]:
    leaves = [x.detach().to(dtype).requires_grad_() for x in (q, k, v)]
    out = reference.axial_attention(*leaves, axis=axis, scale=scale, key_mask=mask)
    return out.detach(), *torch.autograd.grad(out, leaves, grad.to(dtype))


def check(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    grad: Tensor,
    axis: str,
    mask: Tensor | None = None,
    scale: float | None = None,
    gradients: tuple[Tensor, Tensor, Tensor] | None = None,
) -> tuple[Tensor, ...]:
    actual = run(q, k, v, grad, axis, mask, scale, gradients)
    plain = expected(q, k, v, grad, axis, mask, scale, q.dtype)
    exact = expected(q, k, v, grad, axis, mask, scale)
    for name, a, p, e in zip(("out", "dq", "dk", "dv"), actual, plain, exact, strict=True):
        assert_within_budget(name, a, p, e)
    return actual


def grids(shape: list[int], dtype: torch.dtype = torch.float32, **options: str) -> list[Tensor]:
    return [make_grid(shape, dtype=dtype, device=DEVICE, **options) for _ in range(4)]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("axis", AXES)
@pytest.mark.parametrize(
    ("length", "d"),
    [
        (1, 16),
        (2, 5),
        (13, 48),
        (16, 64),
        (16, 96),
        (33, 64),
        (49, 64),
        (64, 16),
        (65, 16),
        (130, 48),
    ],
)
def test_forward_and_gradients_match_the_reference(
    axis: str, length: int, d: int, dtype: torch.dtype
) -> None:
    few = 2 if length <= 64 else 1
    check(*grids(grid_shape(axis, length, d, others=2, heads=few), dtype), axis)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    ("length", "d"), [(16, 256), (20, 160), (33, 21), (49, 136), (64, 256), (66, 131), (70, 256)]
)
def test_channels_that_fill_no_tile_or_several(length: int, d: int, dtype: torch.dtype) -> None:
    check(*grids(grid_shape("space", length, d, others=1, heads=1), dtype), "space")


@pytest.mark.parametrize("axis", AXES)
def test_every_batch_group_and_head_is_its_own_problem(axis: str) -> None:
    q, k, v, grad = grids([2, 3, 4, 3, 16])
    check(q, k, v, grad, axis)
    dim = AXES[axis]
    k2, v2 = k.clone(), v.clone()
    # Other keys in group 1 of batch 1, head 0: no other output and no other gradient may move.
    index = (1, slice(None), 1, 0) if dim == 1 else (1, 1, slice(None), 0)
    k2[index], v2[index] = -k[index], -v[index]
    before, after = run(q, k, v, grad, axis), run(q, k2, v2, grad, axis)
    for x, y in zip(before, after, strict=True):
        moved = (x != y).any(-1)
        assert moved[index].any()
        moved[index] = False
        assert not moved.any()


@pytest.mark.parametrize("axis", AXES)
@pytest.mark.parametrize(
    ("queries", "keys"), [(5, 16), (16, 5), (3, 33), (33, 1), (64, 20), (5, 70), (70, 1), (97, 66)]
)
def test_query_and_key_lengths_differ(axis: str, queries: int, keys: int) -> None:
    q, _, _, grad = grids(grid_shape(axis, queries, 16), torch.float16)
    _, k, v, _ = grids(grid_shape(axis, keys, 16), torch.float16)
    mask = make_mask(k.shape[:3]).to(DEVICE)
    mask[0] = True
    mask.select(AXES[axis], keys // 2)[:] = False
    check(q, k, v, grad, axis)
    check(q, k, v, grad, axis, mask)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("axis", AXES)
@pytest.mark.parametrize(("length", "d"), [(7, 16), (20, 48), (49, 80), (80, 24)])
def test_masked_keys_neither_act_nor_leak(
    axis: str, length: int, d: int, dtype: torch.dtype
) -> None:
    shape = [2, 2, 2, 1, d] if length <= 64 else [2, 1, 1, 1, d]
    shape[AXES[axis]] = length
    q, k, v, grad = grids(shape, dtype)
    mask = make_mask(k.shape[:3]).to(DEVICE)
    _, dq, dk, dv = check(q, k, v, grad, axis, mask)
    assert not dk[~mask].any() and not dv[~mask].any()

    bad_k, bad_v = k.clone(), v.clone()
    bad_k[~mask], bad_v[~mask] = torch.nan, torch.inf
    clean, dirty = run(q, k, v, grad, axis, mask), run(q, bad_k, bad_v, grad, axis, mask)
    for x, y in zip(clean, dirty, strict=True):
        assert torch.equal(x, y)
    # All keys of the first batch are masked: its queries have none.
    assert not clean[0][0].any() and not dq[0].any()


@pytest.mark.parametrize("axis", AXES)
@pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")  # interpreter
@pytest.mark.parametrize(("length", "d"), [(20, 16), (20, 160), (70, 16)])
def test_gradients_without_a_share_stay_zero_when_upstream_is_not_finite(
    axis: str, length: int, d: int
) -> None:
    q, k, v, grad = grids(grid_shape(axis, length, d, heads=1), torch.float16)
    mask = torch.ones(k.shape[:3], dtype=torch.bool, device=DEVICE)
    mask[:, -1] = False
    mask[:, :, -1] = False
    grad[:] = torch.inf
    _, dq, dk, dv = run(q, k, v, grad, axis, mask)
    assert not dk[~mask].any() and not dv[~mask].any()
    keyless = ~mask.any(AXES[axis], keepdim=True).expand(mask.shape)
    assert keyless.any() and not dq[keyless].any()


@pytest.mark.parametrize("axis", AXES)
@pytest.mark.parametrize("layout", ["packed", "permuted", "expanded"])
@pytest.mark.parametrize(("length", "d"), [(4, 16), (4, 20), (66, 8), (66, 4)])
def test_strided_grids_are_read_in_place(axis: str, layout: str, length: int, d: int) -> None:
    shape = [2, 2, 2, 1, d]
    shape[AXES[axis]] = length
    q, k, v, grad = grids(shape, torch.float16, layout=layout)
    mask = make_mask((2, 1, shape[2])).to(DEVICE).expand(shape[:3])
    check(q, k, v, grad, axis, mask)


@pytest.mark.parametrize("axis", AXES)
@pytest.mark.parametrize("length", [4, 67])
def test_gradients_go_into_one_packed_buffer(axis: str, length: int) -> None:
    q, k, v, grad = grids(grid_shape(axis, length, 16))
    buffer = q.new_full((*q.shape[:3], 3, *q.shape[3:]), torch.nan)
    dq, dk, dv = buffer.unbind(3)
    check(q, k, v, grad, axis, gradients=(dq, dk, dv))
    assert torch.isfinite(buffer).all()


@pytest.mark.parametrize(("frames", "d"), [(3, 1), (3, 64), (65, 16)])
def test_an_expanded_gradient_is_not_taken_for_a_dense_one(frames: int, d: int) -> None:
    q, k, v, _ = grids([2, frames, 2, 1, d])
    row = torch.randn(d, device=DEVICE)
    check(q, k, v, row.expand(q.shape), "time")


@pytest.mark.parametrize("frames", [5, 68])
def test_odd_addresses_use_narrow_accesses_and_give_the_same_result(frames: int) -> None:
    q, k, v, grad = grids([1, frames, 2, 1, 64], torch.bfloat16)
    aligned = run(q, k, v, grad, "time")
    assert layout.unit_and_strides((q, k, v), 1)[0] == 8
    shifted = [
        torch.empty(x.numel() + 1, dtype=x.dtype, device=DEVICE)[1:].view(x.shape).copy_(x)
        for x in (q, k, v, grad)
    ]
    assert layout.unit_and_strides(tuple(shifted), 1)[0] == 1
    for x, y in zip(aligned, run(*shifted, "time"), strict=True):
        torch.testing.assert_close(x, y, rtol=2**-7, atol=2**-8)


def test_alignment_ignores_the_strides_of_single_elements() -> None:
    storage = torch.randn(2, 4, 3, 16, device=DEVICE)
    one_head = storage.as_strided((2, 4, 3, 1, 16), (192, 48, 16, 7, 1))
    unit, strides = layout.unit_and_strides((one_head,), 1)
    assert (unit, strides) == (4, [48, 4, 12, 0])
    assert layout.unit_and_strides((one_head,), 2)[1] == [48, 12, 4, 0]
    assert layout.unit_and_strides((storage.view(2, 4, 3, 8, 2),), 1)[0] == 1


@pytest.mark.parametrize("length", [13, 75])
@pytest.mark.parametrize("size", [1e4, 1e8])
def test_huge_logits_stay_finite(size: float, length: int) -> None:
    q, k, v, grad = grids(grid_shape("time", length, 16, others=1))
    q = q.sign() * size
    out, *gradients = run(q, k, v, grad, "time", scale=1.0)
    assert all(torch.isfinite(x).all() for x in (out, *gradients))
    low, high = v.amin(1, keepdim=True), v.amax(1, keepdim=True)
    assert (out >= low - 1e-5).all() and (out <= high + 1e-5).all()


@pytest.mark.parametrize("length", [13, 75])
def test_equal_logits_of_any_size_share_equally(length: int) -> None:
    """Beside a logit of 1e8 the logarithm of a sum of weights would be rounded away."""
    q, k, v, grad = grids(grid_shape("time", length, 16, others=1, heads=1))
    q[:], k[:] = 1e4, 1e3
    out, dq, dk, dv = run(q, k, v, grad, "time", scale=1.0)
    for found, shared in ((out, v), (dv, grad)):
        mean = shared.mean(1, keepdim=True).expand_as(shared)
        torch.testing.assert_close(found, mean, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(dq, torch.zeros_like(dq), rtol=0, atol=0.05)
    assert torch.isfinite(dk).all()


@pytest.mark.parametrize("length", [33, 70])
@pytest.mark.parametrize("scale", [-0.7, 0.0, 3.0])
def test_any_finite_scale(scale: float, length: int) -> None:
    check(*grids(grid_shape("space", length, 16, others=1)), "space", scale=scale)


@pytest.mark.parametrize("axis", AXES)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("queries", [1, 65])
def test_a_single_key_passes_its_value_through(
    axis: str, dtype: torch.dtype, queries: int
) -> None:
    q, _, _, grad = grids(grid_shape(axis, queries, 64, others=1), dtype)
    _, k, v, _ = grids(grid_shape(axis, 1, 64, others=1), dtype)
    out, dq, dk, dv = run(q, k, v, grad, axis)
    assert torch.equal(out, v.expand_as(out))
    torch.testing.assert_close(dv.float(), grad.float().sum(AXES[axis], True), rtol=1e-2, atol=0.1)
    assert not dq.any() and not dk.any()


@pytest.mark.parametrize("length", [49, 81])
def test_runs_are_bitwise_equal(length: int) -> None:
    inputs = grids(grid_shape("space", length, 64), torch.bfloat16)
    for x, y in zip(run(*inputs, "space"), run(*inputs, "space"), strict=True):
        assert torch.equal(x, y)


def test_one_call_takes_several_problems() -> None:
    first, second = grids([1, 3, 4, 1, 16]), grids([1, 3, 4, 1, 16])
    outs = [poisoned(first[0]), poisoned(second[0])]
    problems = [
        Forward(outs[0], *first[:3], None, 1),
        Forward(outs[1], *second[:3], None, 2),
    ]
    axial.axial_forward(problems, 0.25)
    torch.testing.assert_close(outs[0], run(*first, "time", scale=0.25)[0])
    torch.testing.assert_close(outs[1], run(*second, "space", scale=0.25)[0])


@pytest.mark.parametrize(
    ("q_shape", "k_shape", "dim", "dtype", "word"),
    [
        ((1, 64, 196, 1, 8), (1, 64, 196, 1, 8), 1, torch.float32, None),
        ((1, 64, 196, 1, 8), (1, 64, 196, 1, 8), 2, torch.float32, None),
        ((1, 64, 1, 1, 8), (1, 65, 1, 1, 8), 1, torch.float16, None),
        ((1, 2, 2, 1, 257), (1, 2, 2, 1, 257), 1, torch.float16, "channels"),
        ((1, 2, 2, 1, 8), (1, 2, 2, 1, 8), 1, torch.float64, "float64"),
        ((2**11, 2, 2**10, 2**10, 1), (2**11, 2, 2**10, 2**10, 1), 1, torch.float16, "groups"),
        ((2**9, 65, 2**10, 2**10, 1), (2**9, 65, 2**10, 2**10, 1), 1, torch.float16, "blocks"),
    ],
)
def test_what_the_kernels_serve(
    q_shape: tuple[int, ...],
    k_shape: tuple[int, ...],
    dim: int,
    dtype: torch.dtype,
    word: str | None,
) -> None:
    q, k = (torch.empty(s, dtype=dtype, device="meta") for s in (q_shape, k_shape))
    reason = axial.refusal(q, k, dim)
    assert axial.supports(q, k, dim) is (word is None)
    assert (reason is None) if word is None else (reason is not None and word in reason)


@pytest.fixture
def matmul_settings() -> Iterator[None]:
    matmul = torch.backends.cuda.matmul
    before = matmul.fp32_precision
    yield
    torch.set_float32_matmul_precision("highest")
    matmul.fp32_precision = before


@pytest.mark.usefixtures("matmul_settings")
def test_float32_products_follow_the_settings_of_torch() -> None:
    matmul = torch.backends.cuda.matmul
    for older, wanted in (("highest", "ieee"), ("high", "tf32"), ("medium", "tf32")):
        torch.set_float32_matmul_precision(older)
        matmul.fp32_precision = "none"
        assert layout.matmul_precision(torch.float32) == wanted, older
    for newer in ("tf32", "ieee"):
        matmul.fp32_precision = newer
        assert layout.matmul_precision(torch.float32) == newer
    assert layout.matmul_precision(torch.bfloat16) == "ieee"


@needs_gpu
@pytest.mark.gpu
@pytest.mark.parametrize("frames", [2, 66])
def test_more_columns_than_a_grid_dimension_holds(frames: int) -> None:
    check(*grids([1, frames, 70_000, 1, 8], torch.float16), "time")


@needs_gpu
@pytest.mark.gpu
@pytest.mark.parametrize("frames", [16, 100])
def test_a_captured_graph_replays(frames: int) -> None:
    q, k, v, grad = grids([1, frames, 49, 2, 64], torch.bfloat16)
    out = run(q, k, v, grad, "time")
    replayed = tuple(poisoned(x) for x in out)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        axial.axial_forward([Forward(replayed[0], q, k, v, None, 1)], 0.125)
        axial.axial_backward([Backward(*replayed[1:], grad, q, k, v, None, 1)], 0.125)
    graph.replay()
    for x, y in zip(out, replayed, strict=True):
        assert torch.equal(x, y)
