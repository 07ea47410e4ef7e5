"""The Triton kernels of the saliency losses, called directly: on a GPU if there is one, else
interpreted.
"""

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from asycmst_ops import reference

losses = pytest.importorskip(
    "asycmst_ops._triton.saliency_losses", reason="triton is not installed"
)

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
# The interpreter truncates where a GPU rounds.
LIMITS = {torch.float32: 3e-6, torch.bfloat16: 1.6e-2, torch.float16: 2e-3}


def pair(*shape: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    """256ths, which have ties, and whose differences no dtype rounds."""
    target, saliency = (torch.randint(0, 257, (2, *shape)) / 256).to(DEVICE, dtype)
    return target, saliency


def run(
    target: Tensor, saliency: Tensor, grad: Tensor, floor: float = 0.01
) -> tuple[Tensor, Tensor]:
    """Losses and gradient, into memory that held NaN."""
    out = torch.full((target.shape[0], 3), math.nan, device=DEVICE)
    slope = torch.full_like(saliency, math.nan, memory_format=torch.contiguous_format)
    losses.saliency_losses_forward(out, target, saliency, floor)
    losses.saliency_losses_backward(slope, grad.to(DEVICE), target, saliency, floor)
    return out.cpu(), slope.cpu()


def check(target: Tensor, saliency: Tensor, floor: float = 0.01) -> None:
    for which in range(3):
        grad = torch.zeros(target.shape[0], 3)
        grad[:, which] = torch.linspace(0.5, 2, target.shape[0])
        leaf = saliency.cpu().double().requires_grad_()
        exact = reference.saliency_losses(target.cpu().double(), leaf, floor=floor)
        (slope,) = torch.autograd.grad(exact, leaf, grad.double())
        value, found = run(target, saliency, grad, floor)
        torch.testing.assert_close(value.double(), exact.detach(), rtol=3e-6, atol=1e-7)
        limit = LIMITS[saliency.dtype] * max(1e-3, slope.abs().max().item())
        torch.testing.assert_close(found.double(), slope, rtol=0, atol=limit)


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (7, 1), (3, 6), (9, 5)], ids=str)
@pytest.mark.parametrize("floor", [1e-8, 0.01])
def test_matches_the_definition(floor: float, size: tuple[int, int]) -> None:
    check(*pair(2, *size), floor)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_images_are_compared_in_float32(dtype: torch.dtype) -> None:
    check(*pair(1, 6, 9, dtype=dtype))


def test_images_of_many_blocks() -> None:
    """A block holds 512 pixels, which begin and end anywhere in a row."""
    check(*pair(1, 29, 40))


def test_slices_are_read_in_place() -> None:
    target, saliency = pair(2, 9, 14)
    check(target[:, 2:7, 3:9], saliency[:, 1:6, 5:11])


def test_a_map_like_its_target_keeps_the_digits_of_a_small_affinity() -> None:
    target = torch.rand(1, 30, 30, device=DEVICE)
    saliency = 0.5 * target + 1e-4 * torch.rand(1, 30, 30, device=DEVICE)
    found = run(target, saliency, torch.ones(1, 3), 1e-8)[0][0, 2].item()
    wide = target.cpu().double(), saliency.cpu().double()
    exact = reference.saliency_losses(*wide, floor=1e-8)[0, 2].item()
    assert 0 < exact < 1e-6
    assert found == pytest.approx(exact, rel=1e-2)


def test_a_floor_below_any_float32_leaves_a_flat_map_without_loss() -> None:
    flat = torch.full((1, 5, 5), 0.5, device=DEVICE)
    assert run(flat, flat, torch.ones(1, 3), 1e-300)[0][0].tolist() == [0.25, 0.0, 0.0]


def test_runs_are_bitwise_equal() -> None:
    target, saliency = pair(1, 30, 30)
    grad = torch.rand(1, 3)
    first, second = (run(target, saliency, grad) for _ in range(2))
    assert all(map(torch.equal, first, second))


@pytest.mark.parametrize("strides", [(2**31 + 64, 4, 1), (16, 2**30, 1)], ids=str)
def test_offsets_beyond_32_bits(strides: tuple[int, ...]) -> None:
    """The last image or row lies 2^31 elements after the first; only touched pages exist."""
    shape = (2, 3, 4)
    size = 1 + sum((n - 1) * stride for n, stride in zip(shape, strides, strict=True))
    storage = torch.from_numpy(np.zeros(size, dtype=np.float16)).to(DEVICE)
    target, saliency = pair(*shape, dtype=torch.float16)
    far = storage.as_strided(shape, strides)
    far.copy_(target)
    check(far, saliency)
    far.copy_(saliency)
    check(target, far)


def test_new_sizes_need_no_new_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    """Height, width and batch are run-time numbers."""
    launched: set[Any] = set()
    grids: list[tuple[int, ...]] = []

    class Kernel:
        def __init__(self, name: str) -> None:
            self.name = name

        def __getitem__(self, grid: tuple[int, ...]) -> Any:
            grids.append(grid)
            return lambda *_, **keywords: launched.add((self.name, *sorted(keywords.items())))

    for name in ("collect_kernel", "settle_kernel", "write_kernel"):
        monkeypatch.setattr(losses, name, Kernel(name))
    for shape in ((1, 224, 224), (64, 112, 90), (3, 1, 1000), (16, 14, 7)):
        x = torch.empty(shape, device="meta")
        losses.saliency_losses_forward(x, x, x, 0.01)
        losses.saliency_losses_backward(x, x[:, 0, :3], x, x, 0.01)
    assert len(launched) == 5
    assert {len(grid) for grid in grids} == {1}
