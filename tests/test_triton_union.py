"""The softmax over column and frame in Triton: on a GPU where there is one, else interpreted."""

import pytest
import torch
from torch import Tensor

from asycmst_ops import reference
from asycmst_ops._problem import UnionBackward, UnionForward
from asycmst_ops.testing import assert_within_budget, make_grid, make_mask

union = pytest.importorskip("asycmst_ops._triton.union", reason="triton is not installed")

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
DTYPES = [torch.float16, torch.bfloat16, torch.float32]
NAMES = ("out", "dq", "dk", "dv")
needs_gpu = pytest.mark.skipif(DEVICE == "cpu", reason="no CUDA device")


def grids(
    shape: tuple[int, ...], dtype: torch.dtype = torch.float32, layout: str = "contiguous"
) -> list[Tensor]:
    return [make_grid(shape, dtype=dtype, device=DEVICE, layout=layout) for _ in range(4)]


def run(
    q: Tensor, k: Tensor, v: Tensor, grad: Tensor, mask: Tensor | None = None
) -> tuple[Tensor, ...]:
    """out, dq, dk, dv of the kernels, from outputs that held NaN."""
    out, dq, dk, dv = (torch.full(x.shape, torch.nan).to(x) for x in (q, q, k, v))
    union.union_forward([UnionForward(out, q, k, v, mask)], 0.3)
    union.union_backward([UnionBackward(dq, dk, dv, grad, q, k, v, mask)], 0.3)
    return out, dq, dk, dv


def expected(
    q: Tensor, k: Tensor, v: Tensor, grad: Tensor, mask: Tensor | None, dtype: torch.dtype
) -> tuple[Tensor, ...]:
    leaves = [x.detach().to(dtype).requires_grad_() for x in (q, k, v)]
    out, _ = reference.cross_modal_attention(
        *leaves, *leaves, strategy="symmetric", scale=0.3, ceus_mask=mask
    )
    return out.detach(), *torch.autograd.grad(out, leaves, grad.to(dtype))


def check(inputs: list[Tensor], mask: Tensor | None = None) -> tuple[Tensor, ...]:
    actual = run(*inputs, mask)
    plain = expected(*inputs, mask, inputs[0].dtype)
    exact = expected(*inputs, mask, torch.float64)
    for name, a, p, e in zip(NAMES, actual, plain, exact, strict=True):
        # Each result is rounded once more, between the two passes, than plain PyTorch does.
        assert_within_budget(name, a, p, e)
    return actual


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    "shape",
    [(2, 1, 1, 2, 16), (1, 1, 5, 1, 8), (1, 5, 1, 1, 8), (1, 3, 4, 2, 48), (1, 2, 33, 1, 16)],
    ids=str,
)
def test_forward_and_gradients_match_the_reference(
    shape: tuple[int, ...], dtype: torch.dtype
) -> None:
    check(grids(shape, dtype))


@pytest.mark.parametrize(
    "shape", [(1, 66, 2, 1, 16), (1, 2, 66, 1, 8), (1, 2, 3, 1, 131)], ids=str
)
def test_long_axes_and_many_channels(shape: tuple[int, ...]) -> None:
    check(grids(shape, torch.float16))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_masked_keys_neither_act_nor_leak(dtype: torch.dtype) -> None:
    q, k, v, grad = grids((2, 2, 3, 1, 16), dtype)
    mask = make_mask((2, 2, 3)).to(DEVICE)
    clean = check([q, k, v, grad], mask)
    assert not clean[2][~mask].any() and not clean[3][~mask].any()
    # All keys of the first batch are masked: its queries have none.
    assert not clean[0][0].any() and not clean[1][0].any()
    bad_k, bad_v = k.clone(), v.clone()
    bad_k[~mask], bad_v[~mask] = torch.nan, torch.inf
    for x, y in zip(clean, run(q, bad_k, bad_v, grad, mask), strict=True):
        assert torch.equal(x, y)


def test_a_query_may_find_its_keys_in_one_pass_only() -> None:
    """Frame 0 keeps no key and frame 1 one: nothing to continue from, or nothing to add."""
    inputs = grids((1, 2, 4, 1, 16))
    mask = torch.zeros(1, 2, 4, dtype=torch.bool, device=DEVICE)
    mask[0, 1, 1] = True
    check(inputs, mask)


def test_the_own_key_counts_once() -> None:
    q, k, v, grad = grids((1, 3, 4, 1, 16))
    out, *_ = run(q, torch.zeros_like(k), v, grad)
    for t in range(3):
        for n in range(4):
            total = v[0, :, n].sum(0) + v[0, t].sum(0) - v[0, t, n]
            torch.testing.assert_close(out[0, t, n], total / 6, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("layout", ["packed", "permuted", "expanded"])
@pytest.mark.parametrize("d", [16, 20])
def test_strided_grids_are_read_in_place(layout: str, d: int) -> None:
    mask = make_mask((2, 1, 3)).to(DEVICE).expand(2, 2, 3)
    check(grids((2, 2, 3, 1, d), torch.float16, layout), mask)


def test_an_expanded_gradient_is_not_taken_for_a_dense_one() -> None:
    q, k, v, grad = grids((2, 3, 4, 1, 16))
    check([q, k, v, grad[0, 0, 0, 0].expand(q.shape)])


def test_huge_equal_logits_share_equally() -> None:
    q, k, v, grad = grids((1, 3, 4, 1, 16))
    out, dq, dk, dv = run(torch.full_like(q, 1e4), torch.full_like(k, 1e4), v, grad)
    plain = run(q, torch.zeros_like(k), v, grad)
    torch.testing.assert_close(out, plain[0])
    torch.testing.assert_close(dv, plain[3])
    assert torch.isfinite(dq).all() and torch.isfinite(dk).all()


def test_runs_are_bitwise_equal_and_problems_independent() -> None:
    first, second = grids((1, 2, 3, 1, 16)), grids((1, 2, 3, 1, 16))
    apart = [run(*first), run(*second)]
    results = [tuple(torch.full_like(first[0], torch.nan) for _ in range(4)) for _ in "ab"]
    pairs = list(zip(results, (first, second), strict=True))
    union.union_forward([UnionForward(r[0], *x[:3], None) for r, x in pairs], 0.3)
    union.union_backward([UnionBackward(*r[1:], x[3], *x[:3], None) for r, x in pairs], 0.3)
    for one, other in zip(apart, results, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_what_is_served() -> None:
    def grid(*shape: int, dtype: torch.dtype = torch.float16) -> Tensor:
        return torch.empty(shape, dtype=dtype, device="meta")

    assert union.supports(grid(32, 16, 196, 6, 64))
    assert not union.supports(grid(1, 2, 2, 1, 8, dtype=torch.float64))
    assert not union.supports(grid(2**11, 2**10, 2, 2**10, 1))
    assert not union.supports(grid(2**11, 2, 2**10, 2**10, 1))


@needs_gpu
@pytest.mark.gpu
def test_a_captured_graph_replays() -> None:
    inputs = grids((1, 16, 49, 2, 64), torch.bfloat16)
    eager = run(*inputs)
    q, k, v, grad = inputs
    replayed = tuple(torch.full_like(x, torch.nan) for x in eager)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        union.union_forward([UnionForward(replayed[0], q, k, v, None)], 0.3)
        union.union_backward([UnionBackward(*replayed[1:], grad, q, k, v, None)], 0.3)
    graph.replay()
    for x, y in zip(eager, replayed, strict=True):
        assert torch.equal(x, y)


@needs_gpu
@pytest.mark.gpu
def test_the_papers_shape_and_more_columns_than_a_grid_dimension_holds() -> None:
    check(grids((2, 16, 49, 6, 64), torch.bfloat16))
    check(grids((1400, 2, 50, 1, 8), torch.float16))
