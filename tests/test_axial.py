"""Attention along one axis (Eq 8 and Eq 10) against the float64 reference."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from asycmst_ops import attention_weights, axial_attention, reference
from asycmst_ops.testing import LAYOUTS, assert_within_budget, make_grid, make_grids, make_mask

AXES = ("time", "space")
DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
# (T, N, d): ones, primes, powers of two and their neighbours.
SIZES = (
    (1, 1, 1),
    (1, 5, 16),
    (2, 1, 5),
    (13, 5, 20),
    (16, 49, 64),
    (33, 2, 48),
    (17, 65, 96),
    (64, 3, 128),
    (3, 64, 256),
    (5, 70, 33),
)


def with_gradients(function: Callable[..., Tensor], grad: Tensor, *inputs: Tensor) -> list[Tensor]:
    leaves = [x.detach().requires_grad_() for x in inputs]
    out = function(*leaves)
    return [out.detach(), *torch.autograd.grad(out, leaves, grad.to(out.dtype))]


def check(inputs: list[Tensor], grad: Tensor, **options: Any) -> None:
    """Forward and the three gradients within the budget of plain PyTorch."""
    actual = with_gradients(lambda *x: axial_attention(*x, **options), grad, *inputs)
    plain = with_gradients(lambda *x: reference.axial_attention(*x, **options), grad, *inputs)
    wide = [x.double() for x in inputs]
    exact = with_gradients(
        lambda *x: reference.axial_attention(*x, **options), grad.double(), *wide
    )
    for name, a, p, e in zip(("out", "dq", "dk", "dv"), actual, plain, exact, strict=True):
        assert_within_budget(name, a, p, e)


@pytest.mark.parametrize("axis", AXES)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("size", SIZES, ids=lambda s: "T{}-N{}-d{}".format(*s))
def test_matches_the_float64_reference(
    axis: str, dtype: torch.dtype, size: tuple[int, int, int], device: str
) -> None:
    frames, places, width = size
    *inputs, grad = make_grids(4, (2, frames, places, 2, width), dtype=dtype, device=device)
    check(inputs, grad, axis=axis)


@pytest.mark.parametrize("axis", AXES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_reads_every_layout(axis: str, layout: Any, device: str) -> None:
    generator = torch.Generator().manual_seed(1)
    grids = [
        make_grid((2, 7, 9, 2, 24), layout=layout, device=device, generator=generator)
        for _ in range(4)
    ]
    check(grids[:3], grids[3], axis=axis)


@pytest.mark.parametrize("axis", AXES)
@pytest.mark.parametrize("lengths", [(3, 8), (8, 3), (1, 17), (20, 1)], ids=str)
def test_keys_may_have_their_own_length(axis: str, lengths: tuple[int, int], device: str) -> None:
    def shape(length: int) -> tuple[int, ...]:
        return (2, length, 5, 2, 16) if axis == "time" else (2, 4, length, 2, 16)

    generator = torch.Generator().manual_seed(0)
    q, grad = (make_grid(shape(lengths[0]), device=device, generator=generator) for _ in "qg")
    k, v = (make_grid(shape(lengths[1]), device=device, generator=generator) for _ in "kv")
    check([q, k, v], grad, axis=axis)


@pytest.mark.parametrize("axis", AXES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64], ids=str)
def test_masked_keys_take_no_part(axis: str, dtype: torch.dtype, device: str) -> None:
    *inputs, grad = make_grids(4, (3, 6, 11, 2, 16), dtype=dtype, device=device)
    mask = make_mask((3, 6, 11)).to(device)
    check(inputs, grad, axis=axis, key_mask=mask)
    check(inputs, grad, axis=axis, key_mask=mask[1:2, :, :1])


@pytest.mark.parametrize("axis", AXES)
@pytest.mark.parametrize("poison", [float("nan"), float("inf")], ids=["nan", "inf"])
def test_poison_under_the_mask_does_not_leak(axis: str, poison: float, device: str) -> None:
    q, k, v, grad = make_grids(4, (2, 5, 6, 2, 16), device=device)
    mask = make_mask((2, 5, 6)).to(device)
    clean = with_gradients(lambda *x: axial_attention(*x, axis=axis, key_mask=mask), grad, q, k, v)
    k, v = (x.masked_fill(~mask[..., None, None], poison) for x in (k, v))
    dirty = with_gradients(lambda *x: axial_attention(*x, axis=axis, key_mask=mask), grad, q, k, v)
    for name, a, b in zip(("out", "dq", "dk", "dv"), clean, dirty, strict=True):
        assert torch.equal(a, b), name
    assert dirty[2][~mask].abs().max() == 0
    assert dirty[3][~mask].abs().max() == 0


@pytest.mark.parametrize("axis", AXES)
def test_a_query_without_keys_gives_zero(axis: str, device: str) -> None:
    *inputs, grad = make_grids(4, (2, 4, 5, 1, 8), device=device)
    none = torch.zeros((), dtype=torch.bool, device=device)
    results = with_gradients(
        lambda *x: axial_attention(*x, axis=axis, key_mask=none), grad, *inputs
    )
    assert all(r.abs().max() == 0 for r in results)


@pytest.mark.parametrize("axis", AXES)
def test_only_the_own_column_or_frame_is_reached(axis: str, device: str) -> None:
    """Locality: the gradient by keys and values elsewhere is exactly zero."""
    inputs = [x.requires_grad_() for x in make_grids(3, (2, 4, 5, 2, 8), device=device)]
    axial_attention(*inputs, axis=axis)[1, 2, 3].sum().backward()
    for x in inputs[1:]:
        reached = x.grad.abs().sum((3, 4)) > 0
        expected = torch.zeros_like(reached)
        if axis == "time":
            expected[1, :, 3] = True
        else:
            expected[1, 2, :] = True
        assert torch.equal(reached, expected)


@pytest.mark.parametrize("axis", AXES)
def test_gradcheck(axis: str) -> None:
    inputs = [x.requires_grad_() for x in make_grids(3, (2, 3, 4, 2, 5), dtype=torch.float64)]
    mask = make_mask((2, 3, 4))
    assert torch.autograd.gradcheck(
        lambda *x: axial_attention(*x, axis=axis, scale=0.7, key_mask=mask), inputs
    )


@pytest.mark.parametrize("axis", AXES)
def test_a_single_key_returns_its_value(axis: str, device: str) -> None:
    shape = (2, 1, 6, 2, 8) if axis == "time" else (2, 6, 1, 2, 8)
    q, k, v, grad = make_grids(4, shape, device=device)
    out, dq, dk, dv = with_gradients(lambda *x: axial_attention(*x, axis=axis), grad, q, k, v)
    assert torch.equal(out, v)
    assert torch.equal(dv, grad)
    assert dq.abs().max() <= 1e-6
    assert dk.abs().max() <= 1e-6


@pytest.mark.parametrize("axis", AXES)
def test_equal_keys_give_the_mean_of_the_values(axis: str, device: str) -> None:
    q, k, v = make_grids(3, (1, 6, 7, 1, 8), dtype=torch.float64, device="cpu")
    k = k[:, :1, :1].expand_as(k)
    out = axial_attention(q.to(device), k.to(device), v.to(device), axis=axis).cpu()
    mean = v.mean(1 if axis == "time" else 2, keepdim=True).expand_as(v)
    torch.testing.assert_close(out, mean)


@pytest.mark.parametrize("axis", AXES)
def test_permuting_keys_with_their_values_changes_nothing(axis: str, device: str) -> None:
    q, k, v = make_grids(3, (2, 6, 7, 2, 8), device=device)
    dim = 1 if axis == "time" else 2
    order = torch.randperm(k.shape[dim]).to(device)
    moved = axial_attention(q, k.index_select(dim, order), v.index_select(dim, order), axis=axis)
    torch.testing.assert_close(moved, axial_attention(q, k, v, axis=axis), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("axis", AXES)
@pytest.mark.parametrize("size", [1e4, 1e8])
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_extreme_scores_stay_finite(axis: str, size: float, sign: float, device: str) -> None:
    """Scores of +-1e4 to 1e8: one constant for all keys of a query changes nothing."""
    q, k, v, grad = make_grids(4, (1, 5, 6, 1, 8), device=device)
    q[..., 0], k[..., 0] = size, sign
    results = with_gradients(lambda *x: axial_attention(*x, axis=axis, scale=1.0), grad, q, k, v)
    assert all(torch.isfinite(x).all() for x in results)
    low = v.amin(1 if axis == "time" else 2, keepdim=True)
    high = v.amax(1 if axis == "time" else 2, keepdim=True)
    assert ((results[0] >= low - 1e-5) & (results[0] <= high + 1e-5)).all()


@pytest.mark.parametrize("axis", AXES)
def test_nan_in_a_query_stays_in_its_row(axis: str, device: str) -> None:
    q, k, v = make_grids(3, (1, 4, 5, 1, 8), device=device)
    q[0, 2, 3] = float("nan")
    out = axial_attention(q, k, v, axis=axis)
    assert out[0, 2, 3].isnan().all()
    out[0, 2, 3] = 0
    assert torch.isfinite(out).all()


@pytest.mark.parametrize("axis", AXES)
def test_runs_are_bitwise_equal(axis: str, device: str) -> None:
    *inputs, grad = make_grids(4, (2, 16, 49, 2, 64), device=device)
    runs = [
        with_gradients(lambda *x: axial_attention(*x, axis=axis), grad, *inputs) for _ in range(3)
    ]
    for run in runs[1:]:
        for a, b in zip(runs[0], run, strict=True):
            assert torch.equal(a, b)


def test_an_expanded_gradient_is_read_by_its_strides(device: str) -> None:
    inputs = [x.requires_grad_() for x in make_grids(3, (2, 4, 5, 2, 8), device=device)]
    axial_attention(*inputs, axis="time").sum().backward()
    dense = torch.ones((2, 4, 5, 2, 8), device=device)
    expected = with_gradients(lambda *x: axial_attention(*x, axis="time"), dense, *inputs)
    for x, e in zip(inputs, expected[1:], strict=True):
        assert torch.equal(x.grad, e)


def test_a_second_derivative_names_the_reference(device: str) -> None:
    inputs = [x.requires_grad_() for x in make_grids(3, (1, 2, 3, 1, 4), device=device)]
    out = axial_attention(*inputs, axis="time").square().sum()
    (dq,) = torch.autograd.grad(out, inputs[0], create_graph=True)
    with pytest.raises(RuntimeError, match=r"asycmst_ops\.reference"):
        dq.sum().backward()


def test_an_empty_batch_gives_empty_results(device: str) -> None:
    inputs = [x.requires_grad_() for x in make_grids(3, (0, 4, 5, 2, 8), device=device)]
    out = axial_attention(*inputs, axis="space")
    assert out.shape == (0, 4, 5, 2, 8)
    out.sum().backward()
    assert inputs[0].grad.shape == (0, 4, 5, 2, 8)


@pytest.mark.parametrize("axis", AXES)
def test_weights_rebuild_the_output(axis: str, device: str) -> None:
    q, k, v = make_grids(3, (2, 4, 5, 2, 8), device=device)
    mask = make_mask((2, 4, 5)).to(device)
    weights = attention_weights(q, k, axis=axis, key_mask=mask)
    assert not weights.requires_grad
    keys = "bunhd" if axis == "time" else "btlhd"
    letters = "btnhu" if axis == "time" else "btnhl"
    out = torch.einsum(f"{letters},{keys}->btnhd", weights, v)
    torch.testing.assert_close(
        out, axial_attention(q, k, v, axis=axis, key_mask=mask), atol=1e-5, rtol=1e-4
    )
    total = weights.sum(-1)
    assert ((total - 1).abs().lt(1e-5) | total.eq(0)).all()


@pytest.mark.parametrize("axis", AXES)
@pytest.mark.parametrize("offset", [-1e4, 1e4], ids=str)
def test_scores_around_1e4_match_float64_to_their_own_rounding(
    axis: str, offset: float, device: str
) -> None:
    q, k, v = make_grids(3, (1, 7, 6, 1, 8), device=device)
    q[..., 0], k[..., 0] = 1 + q[..., 0].abs(), offset
    out = axial_attention(q, k, v, axis=axis, scale=1.0)
    wide = [x.double() for x in (q, k, v)]
    exact = reference.axial_attention(*wide, axis=axis, scale=1.0)
    rounding = 2 * torch.finfo(torch.float32).eps * (q[..., 0] * k[..., 0]).abs().max().item()
    spread = (v.amax() - v.amin()).item()
    torch.testing.assert_close(out.double(), exact, atol=rounding * spread, rtol=0)


@pytest.mark.parametrize("axis", AXES)
def test_scores_up_to_1e8_choose_the_largest_as_in_float64(axis: str, device: str) -> None:
    q, k, v, grad = make_grids(4, (1, 7, 6, 1, 8), device=device)
    q[..., 0] *= 1e8
    found = with_gradients(lambda *x: axial_attention(*x, axis=axis, scale=1.0), grad, q, k, v)
    exact = with_gradients(
        lambda *x: reference.axial_attention(*x, axis=axis, scale=1.0),
        grad.double(),
        *(x.double() for x in (q, k, v)),
    )
    for index in (0, 3):  # the output and dv
        torch.testing.assert_close(found[index].double(), exact[index], atol=1e-6, rtol=1e-6)


G = make_grids(1, (2, 3, 4, 2, 8))[0]


@pytest.mark.parametrize(
    ("error", "match", "change"),
    [
        (ValueError, r'axis is .*"time" or "space"', {"axis": "height"}),
        (TypeError, r"k is torch.float64 but q is torch.float32", {"k": G.double()}),
        (TypeError, r"v is a list", {"v": [1.0]}),
        (TypeError, r"q is torch.int64; pass float16", {"q": G.long()}),
        (TypeError, r"k is on meta but q is on cpu", {"k": G.to("meta")}),
        (ValueError, r"q has shape .*pass \(B, T, N, H, d\)", {"q": G[0]}),
        (ValueError, r"only the batch", {"k": G[:, :0]}),
        (ValueError, r"k has shape .* differ in dimension 1 only", {"k": G[:, :, :2]}),
        (ValueError, r"v has shape .* must be the same", {"v": G[:, :2]}),
        (ValueError, r"at most 256", {x: torch.zeros(1, 1, 1, 1, 257) for x in "qkv"}),
        (ValueError, r"scale is inf; pass a finite float", {"scale": float("inf")}),
        (TypeError, r"scale is a str", {"scale": "1"}),
        (TypeError, r"key_mask is torch.float32; pass a bool", {"key_mask": G[..., 0, 0]}),
        (ValueError, r"key_mask has shape .*broadcast", {"key_mask": torch.ones(5).bool()}),
    ],
    ids=lambda x: x if isinstance(x, str) else "",
)
def test_bad_input_is_one_clear_line(
    error: type[Exception], match: str, change: dict[str, Any]
) -> None:
    call: dict[str, Any] = {"q": G, "k": G, "v": G, "axis": "time", **change}
    with pytest.raises(error, match=match) as caught:
        axial_attention(**call)
    assert "\n" not in str(caught.value)
