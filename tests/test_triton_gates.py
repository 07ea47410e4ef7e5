"""The Triton kernels of the gates, called directly: on a GPU if there is one, else interpreted."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from asycmst_ops import reference
from asycmst_ops.testing import make_features

gates = pytest.importorskip("asycmst_ops._triton.gates", reason="triton is not installed")

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
# The interpreter truncates where a GPU rounds.
LIMITS = {torch.float32: 3e-6, torch.bfloat16: 1.6e-2, torch.float16: 2e-3}


def gate(x: Tensor, grad: Tensor, patch: int = 4, split: bool = False) -> tuple[Tensor, Tensor]:
    """Value and gradient, into memory that held NaN."""
    x, grad = x.to(DEVICE), grad.to(DEVICE)
    last = x.stride(1) == 1 and x.stride(3) != 1
    order = torch.channels_last if last else torch.contiguous_format
    out = torch.full_like(x, math.nan, memory_format=order)
    dx = torch.full_like(x, math.nan, memory_format=order)
    gates.gates_forward(out, x, patch, split)
    gates.gates_backward(dx, grad, x, patch, split)
    return out.cpu(), dx.cpu()


def check(x: Tensor, grad: Tensor, patch: int = 4, split: bool = False) -> None:
    scope: Any = "split" if split else "both"
    leaf = x.detach().double().requires_grad_()
    exact = reference.dual_attention_gates(leaf, scope=scope, patch=patch)
    (slope,) = torch.autograd.grad(exact, leaf, grad.double())
    for found, wanted in zip(gate(x, grad, patch, split), (exact.detach(), slope), strict=True):
        limit = LIMITS[x.dtype] * max(1.0, wanted.abs().max().item())
        torch.testing.assert_close(found.double(), wanted, rtol=0, atol=limit)


def features(shape: tuple[int, ...], dtype: torch.dtype = torch.float32, **options: Any) -> Any:
    return [make_features(shape, dtype=dtype, seed=seed, **options) for seed in (0, 1)]


@pytest.mark.parametrize("size", [(1, 1), (3, 6), (9, 5)], ids=str)
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("split", [False, True], ids=["both", "split"])
def test_matches_the_definition(split: bool, layout: Any, size: Any) -> None:
    check(*features((1, 4, *size), layout=layout), split=split)


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_features_are_gated_in_float32(dtype: torch.dtype, layout: Any) -> None:
    check(*features((1, 2, 6, 9), dtype, layout=layout))


@pytest.mark.parametrize("patch", [1, 3, 6, 40])
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_any_patch(layout: Any, patch: int) -> None:
    check(*features((1, 2, 7, 9), layout=layout), patch=patch)


def test_the_side_of_a_patch_counts_only_within_the_map() -> None:
    assert gates.supports(torch.empty(1, 2, 14, 14), 100)
    assert not gates.supports(torch.empty(1, 2, 14, 100), 100)


def test_maps_whose_places_outgrow_32_bits_are_left_to_the_fallback() -> None:
    assert gates.supports(torch.empty(1, 1, 2**15, 2**15, device="meta"), 4)
    assert not gates.supports(torch.empty(1, 1, 2**15, 2**15 + 1, device="meta"), 4)


def test_maps_of_many_blocks() -> None:
    """A block holds 256 patches of one map, or 8 of 32 channels, in the backward fewer."""
    check(*features((1, 1, 50, 90)))
    check(*features((1, 34, 9, 12), layout="channels_last"))


@pytest.mark.parametrize("layout", ["sliced", "sliced channels_last"])
def test_slices_are_read_in_place(layout: Any) -> None:
    check(*features((1, 4, 5, 9), layout=layout), split=True)


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_a_large_mean_does_not_drown_the_variance(layout: Any) -> None:
    x, grad = features((1, 2, 40, 40), layout=layout)
    x += 3e3
    out, _ = gate(x, grad, split=True)
    exact = x.double().var((2, 3), keepdim=True).sigmoid()[:, :1]
    opened = out[:, :1].double() / x[:, :1].double()
    torch.testing.assert_close(opened, exact.expand(opened.shape), atol=2e-6, rtol=0)


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")  # of the interpreter
@pytest.mark.parametrize("first", [math.inf, 1e8], ids=str)
def test_what_is_not_finite_or_large_stays_where_it_acts(first: float) -> None:
    x, grad = features((1, 4, 12, 4))
    clean = gate(x, grad, split=True)
    x[0, 1, 2, 3] = math.nan
    x[0, 3, 0, 0] = first
    dirty = gate(x, grad, split=True)
    for before, after in zip(clean, dirty, strict=True):
        assert torch.equal(before[:, [0, 2]], after[:, [0, 2]])
        assert after[0, 1].isnan().all()
        torch.testing.assert_close(before[0, 3, 8:], after[0, 3, 8:])


def test_runs_are_bitwise_equal() -> None:
    x, grad = features((1, 2, 9, 9))
    for first, second in zip(gate(x, grad), gate(x, grad), strict=True):
        assert torch.equal(first, second)


@pytest.mark.parametrize("dim", [0, 2])
def test_offsets_beyond_32_bits(dim: int) -> None:
    """The last image or row lies 2^31 elements after the first; only touched pages exist."""
    strides = [[2**31 + 64, 16, 4, 1], [16, 16, 2**30, 1]][dim > 0]
    shape = (2, 1, 3, 4)
    size = 1 + sum((n - 1) * stride for n, stride in zip(shape, strides, strict=True))
    storage = torch.from_numpy(np.zeros(size, dtype=np.float16)).to(DEVICE)
    x = storage.as_strided(shape, strides)
    x.copy_(make_features(shape))
    check(x, make_features(shape, dtype=torch.float16, seed=1))


def test_new_sizes_need_no_new_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    """Height, width, channels and batch are run-time numbers."""
    launched: set[Any] = set()
    grids: list[tuple[int, ...]] = []

    class Kernel:
        def __init__(self, name: str) -> None:
            self.name = name

        def __getitem__(self, grid: tuple[int, ...]) -> Any:
            grids.append(grid)
            return lambda *_, **keywords: launched.add((self.name, *sorted(keywords.items())))

    for name in ("collect_kernel", "settle_kernel", "write_kernel"):
        monkeypatch.setattr(gates, name, Kernel(name))
    for shape in ((1, 64, 224, 224), (2, 128, 112, 90), (3, 512, 28, 28), (1, 1024, 14, 7)):
        for order in (torch.contiguous_format, torch.channels_last):
            x = torch.empty(shape, dtype=torch.bfloat16, device="meta", memory_format=order)
            gates.gates_forward(x, x, 4, False)
            gates.gates_backward(x, x, x, 4, False)
    assert len(launched) == 10
    assert {len(grid) for grid in grids} == {1}
