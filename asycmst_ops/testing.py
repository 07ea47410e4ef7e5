"""Inputs and error budgets that tests and benchmarks share.

The budget of a kernel is derived from the data: its error against the float64 reference may not
exceed that of plain PyTorch in the kernel's own dtype by more than a factor and a rounding band.
"""

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor

Layout = Literal["contiguous", "packed", "permuted", "expanded", "strided"]
LAYOUTS: tuple[Layout, ...] = ("contiguous", "packed", "permuted", "expanded", "strided")
FeatureLayout = Literal[
    "contiguous", "channels_last", "sliced", "sliced channels_last", "transposed", "expanded"
]
FEATURE_LAYOUTS: tuple[FeatureLayout, ...] = get_args(FeatureLayout)

# Accumulation order differs from one implementation to the next; both stay within this factor.
_FACTOR = 2.0
# Rounding of the result itself, in units of the dtype's epsilon at the largest value; in float64
# the reference rounds as much as the kernel does.
_BAND = 4.0
_BAND_FLOAT64 = 64.0


def make_grid(
    shape: Sequence[int],
    *,
    layout: Layout = "contiguous",
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
    generator: torch.Generator | None = None,
) -> Tensor:
    """A normal random token grid (B, T, N, H, d) in one of the layouts users have.

    "packed": a slice of a fused projection; "permuted": dense with places before frames;
    "expanded": stride 0 over the batch; "strided": every second channel, which forces a copy.
    """
    b, t, n, h, d = shape
    stored = {
        "contiguous": (b, t, n, h, d),
        "packed": (b, t, n, 3, h, d),
        "permuted": (b, n, t, h, d),
        "expanded": (1, t, n, h, d),
        "strided": (b, t, n, h, 2 * d),
    }[layout]
    x = torch.randn(stored, generator=generator, dtype=torch.float64).to(device, dtype)
    if layout == "packed":
        return x[:, :, :, 1]
    if layout == "permuted":
        return x.transpose(1, 2)
    if layout == "expanded":
        return x.expand(b, t, n, h, d)
    return x[..., ::2] if layout == "strided" else x


def make_grids(
    count: int, shape: Sequence[int], *, seed: int = 0, **options: object
) -> list[Tensor]:
    """`count` grids from one seed; the options are those of `make_grid`."""
    generator = torch.Generator().manual_seed(seed)
    return [make_grid(shape, generator=generator, **options) for _ in range(count)]  # type: ignore[arg-type]


def make_features(
    shape: Sequence[int],
    *,
    layout: FeatureLayout = "contiguous",
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
    seed: int = 0,
) -> Tensor:
    """Random feature maps (B, C, H, W) in one of the layouts users have.

    "sliced" and "sliced channels_last": the second half of the channels of a wider tensor;
    "transposed": rows and columns exchanged, which forces a copy; "expanded": stride 0 everywhere.
    """
    b, c, h, w = shape
    generator = torch.Generator().manual_seed(seed)
    stored = {
        "sliced": (b, 2 * c, h, w),
        "sliced channels_last": (b, 2 * c, h, w),
        "transposed": (b, c, w, h),
        "expanded": (1, 1, 1, 1),
    }.get(layout, (b, c, h, w))
    x = torch.randn(stored, generator=generator, dtype=torch.float64).to(device, dtype)
    if layout.endswith("channels_last"):
        x = x.contiguous(memory_format=torch.channels_last)
    if layout.startswith("sliced"):
        return x[:, c:]
    if layout == "expanded":
        return x.expand(b, c, h, w)
    return x.transpose(2, 3) if layout == "transposed" else x


def make_mask(shape: Sequence[int], *, seed: int = 0, keep: float = 0.7) -> Tensor:
    """A random key mask whose first group of keys (first index, all of the rest) is empty."""
    generator = torch.Generator().manual_seed(seed)
    mask = torch.rand(tuple(shape), generator=generator) < keep
    mask[0] = False
    return mask


def assert_within_budget(name: str, actual: Tensor, plain: Tensor, exact: Tensor) -> None:
    """Hold a result to the error of plain PyTorch in the same dtype.

    Args:
        name: what is compared, for the message.
        actual: the kernel's result.
        plain: the reference run in the kernel's dtype.
        exact: the reference run in float64.

    Raises:
        AssertionError: another shape or dtype, a value that is not finite, or a larger error.
    """
    assert actual.shape == exact.shape, f"{name}: shape {actual.shape}, expected {exact.shape}"
    assert actual.dtype == plain.dtype, f"{name}: {actual.dtype}, expected {plain.dtype}"
    assert torch.isfinite(actual).all(), f"{name}: values that are not finite"
    if not exact.numel():
        return
    error = (actual.double().cpu() - exact.cpu()).abs().max().item()
    plain_error = (plain.double().cpu() - exact.cpu()).abs().max().item()
    size = max(exact.abs().max().item(), 1e-3)
    band = _BAND_FLOAT64 if actual.dtype == torch.float64 else _BAND
    budget = _FACTOR * plain_error + band * torch.finfo(actual.dtype).eps * size
    assert error <= budget, f"{name}: error {error:.3g} exceeds the budget {budget:.3g}"
