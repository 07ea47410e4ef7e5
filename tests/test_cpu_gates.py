"""The compiled gates, instruction set by instruction set, against their definition."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from asycmst_ops import _cpu, reference
from asycmst_ops.testing import assert_within_budget, make_features

if not _cpu.available:
    pytest.skip(_cpu.unavailable_reason, allow_module_level=True)

ISAS = _cpu._C.isas()
DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
# Rows of less than a vector, of several and a rest; strips of less than a patch; one pixel.
SIZES = ((1, 1), (2, 3), (4, 16), (14, 14), (9, 37), (33, 5), (8, 70))

each_isa = pytest.mark.parametrize("isa", range(len(ISAS)), ids=ISAS)
each_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: str(d).split(".")[1])


def gate(x: Tensor, grad: Tensor, patch: int, split: bool, isa: int) -> tuple[Tensor, Tensor]:
    """Into memory that held NaN, with a margin on all sides that must stay NaN."""
    b, c, h, w = (size + 2 for size in x.shape)
    last = x.stride(1) == 1 and x.stride(3) != 1
    found = []
    for call in ("forward", "backward"):
        room = torch.full((b, h, w, c) if last else (b, c, h, w), math.nan, dtype=x.dtype)
        room = room.permute(0, 3, 1, 2) if last else room
        inner = room[1:-1, 1:-1, 1:-1, 1:-1]
        if call == "forward":
            _cpu.gates_forward(inner, x, patch, split, isa=isa)
        else:
            _cpu.gates_backward(inner, grad, x, patch, split, isa=isa)
        found.append(inner.clone())
        inner.fill_(math.nan)
        assert room.isnan().all(), f"{call} wrote beside its output"
    return found[0], found[1]


def defined(x: Tensor, grad: Tensor, patch: int, split: bool) -> tuple[Tensor, Tensor]:
    leaf = x.detach().requires_grad_()
    scope: Any = "split" if split else "both"
    out = reference.dual_attention_gates(leaf, scope=scope, patch=patch)
    return out.detach(), torch.autograd.grad(out, leaf, grad)[0]


def check(x: Tensor, grad: Tensor, patch: int, split: bool, isa: int) -> None:
    found = gate(x, grad, patch, split, isa)
    plain = defined(x, grad, patch, split)
    exact = defined(x.double(), grad.double(), patch, split)
    for name, *three in zip(("value", "gradient"), found, plain, exact, strict=True):
        assert_within_budget(f"{name} {tuple(x.shape)} patch {patch}", *three)


@each_isa
@each_dtype
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("split", [False, True], ids=["both", "split"])
def test_matches_the_definition(split: bool, layout: Any, dtype: torch.dtype, isa: int) -> None:
    for size in SIZES:
        shape = (2, 6, *size)
        x = make_features(shape, layout=layout, dtype=dtype)
        check(x, make_features(shape, layout=layout, dtype=dtype, seed=1), 4, split, isa)


@each_isa
@pytest.mark.parametrize("channels", [1, 15, 16, 17, 40, 66])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
def test_any_number_of_channels(dtype: torch.dtype, channels: int, isa: int) -> None:
    """Channels last are worked on in groups, which the two scopes must not share."""
    shape = (1, 2 * channels, 6, 5)
    x = make_features(shape, layout="channels_last", dtype=dtype)
    grad = make_features(shape, layout="channels_last", dtype=dtype, seed=1)
    for split in (False, True):
        check(x, grad, 4, split, isa)


@each_isa
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("patch", [1, 2, 3, 4, 5, 8, 17, 50])
def test_any_patch(patch: int, layout: Any, isa: int) -> None:
    x = make_features((1, 4, 19, 22), layout=layout)
    check(x, make_features((1, 4, 19, 22), layout=layout, seed=1), patch, False, isa)


@each_isa
@pytest.mark.parametrize("layout", ["sliced", "sliced channels_last"])
def test_slices_are_read_in_place(layout: Any, isa: int) -> None:
    x = make_features((2, 18, 7, 9), layout=layout)
    check(x, make_features((2, 18, 7, 9), layout=layout, seed=1), 4, True, isa)


@each_isa
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_large_maps(layout: Any, isa: int) -> None:
    x = make_features((1, 4, 130, 226), layout=layout) + 100
    check(x, make_features((1, 4, 130, 226), layout=layout, seed=1), 4, False, isa)


@each_isa
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_nan_and_infinity_stay_in_their_channel(layout: Any, isa: int) -> None:
    x = make_features((1, 34, 6, 6), layout=layout)
    grad = torch.ones_like(x)
    clean = gate(x, grad, 4, False, isa)
    others = [c for c in range(34) if c not in (1, 20)]
    x[0, 1, 2, 3] = math.nan
    x[0, 20, 0, 0] = math.inf
    for before, after in zip(clean, gate(x, grad, 4, False, isa), strict=True):
        assert torch.equal(before[:, others], after[:, others])
        assert after[0, 1].isnan().all()


@each_isa
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("bad", [math.nan, math.inf, 1e8], ids=str)
def test_under_the_spatial_gate_alone_they_stay_near_their_patch(
    bad: float, layout: Any, isa: int
) -> None:
    x = make_features((1, 4, 16, 8), layout=layout)
    grad = torch.ones_like(x)
    clean = gate(x, grad, 4, True, isa)
    x[0, 3, 0, 0] = bad
    for before, after in zip(clean, gate(x, grad, 4, True, isa), strict=True):
        torch.testing.assert_close(before[0, 3, 8:], after[0, 3, 8:])
        assert torch.equal(before[:, :3], after[:, :3])
