"""The compiled saliency losses, instruction set by instruction set, against their definition."""

import math

import pytest
import torch
from torch import Tensor

from asycmst_ops import _cpu, reference
from asycmst_ops.testing import assert_within_budget

if not _cpu.available:
    pytest.skip(_cpu.unavailable_reason, allow_module_level=True)

ISAS = _cpu._C.isas()
DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
# One pixel, one row, one column; rows of less than a vector, of several and a rest, and so wide
# that they are summed in pieces.
SIZES = ((1, 1), (1, 33), (9, 1), (2, 3), (3, 16), (9, 37), (33, 5), (4, 1100))

each_isa = pytest.mark.parametrize("isa", range(len(ISAS)), ids=ISAS)
each_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: str(d).split(".")[1])


def framed(x: Tensor) -> tuple[Tensor, Tensor]:
    """A copy with NaN on all sides, and all of that memory."""
    room = torch.full([size + 2 for size in x.shape], math.nan, dtype=x.dtype)
    inner = room[1:-1, 1:-1, 1:-1]
    inner.copy_(x)
    return inner, room


def run(
    target: Tensor, saliency: Tensor, grad: Tensor, floor: float, isa: int
) -> tuple[Tensor, Tensor]:
    """From and into memory amid NaN, which must neither be used nor be written to."""
    losses = torch.full((target.shape[0] + 2, 3), math.nan, dtype=grad.dtype)
    (target, _), (saliency, _) = framed(target), framed(saliency)
    slope, room = framed(torch.full_like(saliency, math.nan))
    _cpu.saliency_losses_forward(losses[1:-1], target, saliency, floor, isa=isa)
    _cpu.saliency_losses_backward(slope, grad, target, saliency, floor, isa=isa)
    found = losses[1:-1].clone(), slope.clone()
    losses[1:-1] = slope[:] = math.nan
    assert losses.isnan().all() and room.isnan().all(), "wrote beside the output"
    return found


def defined(target: Tensor, saliency: Tensor, grad: Tensor, floor: float) -> tuple[Tensor, Tensor]:
    leaf = saliency.detach().requires_grad_()
    out = reference.saliency_losses(target, leaf, floor=floor)
    return out.detach(), torch.autograd.grad(out, leaf, grad)[0]


def check(target: Tensor, saliency: Tensor, floor: float, isa: int) -> None:
    wide = torch.float64 if target.dtype == torch.float64 else torch.float32
    for which in range(3):
        grad = torch.zeros(target.shape[0], 3, dtype=wide)
        grad[:, which] = torch.linspace(0.5, 2, target.shape[0])
        found = run(target, saliency, grad, floor, isa)
        plain = defined(target, saliency, grad, floor)
        exact = defined(target.double(), saliency.double(), grad.double(), floor)
        for name, *three in zip(("losses", "slope"), found, plain, exact, strict=True):
            for i in range(3 if name == "losses" else 1):
                column = slice(i, i + 1) if name == "losses" else slice(None)
                assert_within_budget(
                    f"{name} {i} of gradient {which}, {tuple(target.shape)}",
                    *(x[:, column] for x in three),
                )


@each_isa
@each_dtype
@pytest.mark.parametrize("floor", [1e-8, 0.01])
def test_matches_the_definition(floor: float, dtype: torch.dtype, isa: int) -> None:
    """256ths have ties, and no dtype rounds their differences."""
    for size in SIZES:
        target, saliency = (torch.randint(0, 257, (2, 3, *size)) / 256).to(dtype)
        check(target, saliency, floor, isa)


@each_isa
def test_every_width(isa: int) -> None:
    for width in range(1, 40):
        target, saliency = torch.randint(0, 257, (2, 1, 5, width)) / 256
        check(target, saliency, 0.01, isa)


@each_isa
def test_large_images(isa: int) -> None:
    """As many pixels as training has, whose sums must not lose digits."""
    target, saliency = torch.randint(0, 257, (2, 1, 224, 224)) / 256
    check(target, saliency, 0.01, isa)


@each_isa
def test_a_map_like_its_target_keeps_the_digits_of_a_small_affinity(isa: int) -> None:
    """A difference of sums of squares would have none left."""
    target = torch.rand(1, 30, 30)
    saliency = 0.5 * target + 1e-4 * torch.rand(1, 30, 30)
    grad = torch.zeros(1, 3)
    found = run(target, saliency, grad, 1e-8, isa)[0][0, 2].item()
    exact = defined(target.double(), saliency.double(), grad.double(), 1e-8)[0][0, 2].item()
    assert 0 < exact < 1e-6
    assert found == pytest.approx(exact, rel=1e-2)


@each_isa
def test_a_floor_below_any_float32_leaves_a_flat_map_without_loss(isa: int) -> None:
    flat = torch.full((1, 5, 5), 0.5)
    losses, slope = run(flat, flat, torch.ones(1, 3), 1e-300, isa)
    assert losses[0].tolist() == [0.25, 0.0, 0.0]
    torch.testing.assert_close(slope, torch.full_like(flat, -0.5 / 25))
