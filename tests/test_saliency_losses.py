"""The losses of a saliency map against its target: reconstruction, boundary, affinity."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import sobel
from torch import Tensor
from torch.library import opcheck

from asycmst_ops import _eager, reference, saliency_losses
from asycmst_ops.testing import assert_within_budget

OPS = torch.ops.asycmst
DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
SIZES = ((1, 1), (1, 9), (7, 1), (2, 2), (3, 16), (14, 14), (33, 7), (5, 70))


def pair(
    *shape: int, dtype: torch.dtype = torch.float64, device: str = "cpu", seed: int = 0
) -> tuple[Tensor, Tensor]:
    """Target and saliency of 256ths, which have ties, and whose differences no dtype rounds."""
    generator = torch.Generator().manual_seed(seed)
    both = torch.randint(0, 257, (2, *shape), generator=generator) / 256
    target, saliency = both.to(device, dtype)
    return target, saliency


def value_and_gradient(
    function: Any, target: Tensor, saliency: Tensor, grad: Tensor, floor: float = 0.01
) -> tuple[Tensor, Tensor]:
    leaf = saliency.detach().requires_grad_()
    out = function(target, leaf, floor=floor)
    return out.detach(), torch.autograd.grad(out, leaf, grad.to(out.dtype))[0]


def check(target: Tensor, saliency: Tensor, floor: float = 0.01, losses: int = 3) -> None:
    """The first losses and their gradients against the definition in float64, within PyTorch's
    error.
    """
    for which in range(losses):
        grad = torch.zeros(target.shape[0], 3, device=target.device)
        grad[:, which] = torch.linspace(0.5, 2, target.shape[0])
        found = value_and_gradient(saliency_losses, target, saliency, grad, floor)
        plain = value_and_gradient(reference.saliency_losses, target, saliency, grad, floor)
        exact = value_and_gradient(
            reference.saliency_losses, target.double(), saliency.double(), grad.double(), floor
        )
        for name, *three in zip(("value", "gradient"), found, plain, exact, strict=True):
            assert_within_budget(f"{name} {which} {tuple(target.shape)}", *three)


def test_reconstruction_is_what_the_map_leaves_out(device: str) -> None:
    target, saliency = pair(2, 9, 12, device=device)
    wanted = (target * (1 - saliency)).mean((1, 2))
    torch.testing.assert_close(saliency_losses(target, saliency, floor=1.0)[:, 0], wanted)
    assert not saliency_losses(target, torch.ones_like(target), floor=1.0)[:, 0].any()


def test_boundary_compares_sobel_edges(device: str) -> None:
    target, saliency = pair(2, 9, 12)
    found = saliency_losses(target.to(device), saliency.to(device), floor=1.0)[:, 1].tolist()
    for one, marks, loss in zip(target, saliency, found, strict=True):
        edges = [
            sobel(one.numpy(), axis, mode="nearest") - sobel(marks.numpy(), axis, mode="nearest")
            for axis in (0, 1)
        ]
        assert loss == pytest.approx(sum(np.abs(edge).mean() for edge in edges))


def test_affinity_by_its_definition(device: str) -> None:
    target, saliency = pair(2, 4, 5)

    def normalised(image: Tensor) -> Tensor:
        g = torch.zeros_like(image)
        for y in range(4):
            for x in range(5):
                g[y, x] += abs(image[y + 1, x] - image[y, x]) if y < 3 else 0
                g[y, x] += abs(image[y, x + 1] - image[y, x]) if x < 4 else 0
        return g / (g.mean() + 0.01)

    found = saliency_losses(target.to(device), saliency.to(device), floor=0.01)[:, 2].tolist()
    for one, marks, loss in zip(target, saliency, found, strict=True):
        assert loss == pytest.approx(float((normalised(one) - normalised(marks)).square().mean()))


def test_affinity_is_blind_to_scale_and_offset(device: str) -> None:
    target, _ = pair(2, 9, 12, device=device)
    assert float(saliency_losses(target, 0.3 * target + 0.1, floor=1e-8)[:, 2].max()) < 1e-12
    assert float(saliency_losses(target, target.flip(2), floor=1e-8)[:, 2].min()) > 0.1


def test_a_flat_map_has_no_edge_at_the_border_and_no_pull(device: str) -> None:
    flat = torch.full((1, 8, 8), 0.7, device=device)
    for which in (1, 2):
        grad = torch.zeros(1, 3, device=device)
        grad[0, which] = 1
        target = torch.zeros_like(flat)
        found = value_and_gradient(saliency_losses, target, flat, grad, floor=1e-8)
        assert not found[0][0, which] and not found[1].any()


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("floor", [1e-8, 0.01])
def test_matches_the_definition(
    floor: float, dtype: torch.dtype, size: tuple[int, int], device: str
) -> None:
    check(*pair(2, *size, dtype=dtype, device=device), floor)


# In float32 without the affinity: where a map of a few pixels hardly changes, its gradient is a
# difference of nearly equal numbers, and no budget by dtype holds for whatever could be drawn. For
# the same reason the examples are always the same.
@settings(max_examples=30, deadline=None, derandomize=True)
@given(
    shape=st.tuples(st.integers(1, 3), st.integers(1, 20), st.integers(1, 40)),
    seed=st.integers(0, 1000),
)
def test_random_sizes(shape: tuple[int, int, int], seed: int) -> None:
    check(*pair(*shape, seed=seed))
    check(*pair(*shape, dtype=torch.float32, seed=seed), losses=2)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
def test_any_layout(dtype: torch.dtype, device: str) -> None:
    wide = pair(3, 14, 22, dtype=dtype, device=device)
    views = [
        lambda x: x[:, 3:9, 5:16],
        lambda x: x.transpose(1, 2),
        lambda x: x[:, ::2, ::2],
        lambda x: x[:1].expand(3, 14, 22),
        lambda x: x[:, :1, :1].expand(3, 6, 8),
        lambda x: x[:, :, :1],
    ]
    for view in views:
        target, saliency = map(view, wide)
        check(target, saliency)
        check(target.contiguous(), saliency)
        found = value_and_gradient(saliency_losses, target, saliency, torch.ones(3, 3).to(device))
        assert all(x.is_contiguous() for x in found)


@pytest.mark.parametrize("size", [(1, 1), (1, 2), (4, 1), (3, 6), (5, 4)], ids=str)
def test_gradcheck(size: tuple[int, int], device: str) -> None:
    target, saliency = torch.rand(2, 2, *size, dtype=torch.float64).to(device)
    saliency.requires_grad_()
    assert torch.autograd.gradcheck(lambda m: saliency_losses(target, m, floor=0.1), saliency)


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_written_out_backward_is_that_of_the_definition(size: tuple[int, int]) -> None:
    """What serves devices without kernels."""
    target, saliency = pair(2, *size)
    grad = torch.rand(2, 3).double()
    slope = torch.empty_like(saliency)
    _eager.saliency_losses_backward(slope, grad, target, saliency, 0.01)
    wanted = value_and_gradient(reference.saliency_losses, target, saliency, grad)[1]
    torch.testing.assert_close(slope, wanted)


def test_an_image_is_the_same_bits_in_any_batch_on_any_number_of_threads(device: str) -> None:
    target, saliency = torch.rand(2, 5, 90, 100).to(device)
    grad = torch.rand(5, 3).to(device)
    before = torch.get_num_threads()
    found = []
    for threads in (1, 2, 2):
        torch.set_num_threads(threads)
        found.append(value_and_gradient(saliency_losses, target, saliency, grad))
    torch.set_num_threads(before)
    for other in found[1:]:
        assert all(map(torch.equal, found[0], other))
    if device == "cpu":
        one = value_and_gradient(saliency_losses, target[3:4], saliency[3:4], grad[3:4])
        assert all(torch.equal(a, b[3:4]) for a, b in zip(one, found[0], strict=True))


def test_nan_stays_in_its_image(device: str) -> None:
    target, saliency = pair(3, 6, 6, dtype=torch.float32, device=device)
    grad = torch.ones(3, 3, device=device)
    clean = value_and_gradient(saliency_losses, target, saliency, grad)
    saliency[1, 2, 3] = math.nan
    for before, after in zip(
        clean, value_and_gradient(saliency_losses, target, saliency, grad), strict=True
    ):
        assert torch.equal(before[[0, 2]], after[[0, 2]])
        assert after[1].isnan().any()


@pytest.mark.parametrize("needs_grad", [False, True], ids=["no-grad", "grad"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
def test_opcheck(dtype: torch.dtype, needs_grad: bool, device: str) -> None:
    target, saliency = pair(2, 5, 6, dtype=dtype, device=device)
    grad = torch.rand(2, 3, device=device)
    opcheck(OPS.saliency_losses_backward.default, (grad, saliency, target, 0.01))
    opcheck(OPS.saliency_losses.default, (saliency.requires_grad_(needs_grad), target, 0.01))


@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_compiles_whole_forward_and_backward(backend: str, device: str) -> None:
    def total(target: Tensor, saliency: Tensor, floor: float) -> Tensor:
        return saliency_losses(target, saliency.sigmoid(), floor=floor).square()

    both = torch.randn(2, 2, 5, 6, device=device)
    made = torch.compile(total, fullgraph=True, backend=backend)
    grad = torch.ones(2, 3, device=device)
    results = [value_and_gradient(f, *both, grad) for f in (total, made)]
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-5)


def test_only_both_images_are_kept_for_the_backward(device: str) -> None:
    target, saliency = torch.rand(2, 2, 9, 9, device=device)
    saliency.requires_grad_()
    kept: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: (kept.append(t), t)[1], lambda t: t):
        saliency_losses(target, saliency, floor=0.01)
    assert {t.data_ptr() for t in kept} == {target.data_ptr(), saliency.data_ptr()}
    assert len(kept) == 2


def test_no_image_has_no_loss(device: str) -> None:
    saliency = torch.empty(0, 5, 5, device=device, requires_grad=True)
    found = saliency_losses(torch.empty(0, 5, 5, device=device), saliency, floor=0.01)
    assert found.shape == (0, 3)
    found.sum().backward()
    assert saliency.grad is not None and saliency.grad.shape == saliency.shape


def test_a_second_derivative_names_the_reference(device: str) -> None:
    target, saliency = torch.rand(2, 1, 4, 4, device=device)
    saliency.requires_grad_()
    loss = saliency_losses(target, saliency, floor=0.01).sum()
    (grad,) = torch.autograd.grad(loss, saliency, create_graph=True)
    with pytest.raises(RuntimeError, match=r"asycmst_ops\.reference"):
        grad.square().sum().backward()


def test_other_devices_have_shape_and_dtype() -> None:
    for dtype, wide in ((torch.bfloat16, torch.float32), (torch.float64, torch.float64)):
        x = torch.empty(2, 5, 6, dtype=dtype, device="meta")
        out = saliency_losses(x, x, floor=0.01)
        assert out.shape == (2, 3) and out.dtype == wide


IMAGE = torch.zeros(1, 4, 4)


def test_a_target_that_requires_a_gradient_is_refused_while_gradients_are_recorded() -> None:
    target = IMAGE.clone().requires_grad_()
    with pytest.raises(ValueError, match=r"target requires a gradient.*pass target\.detach\(\)"):
        saliency_losses(target, IMAGE, floor=0.01)
    with torch.no_grad():
        assert not saliency_losses(target, IMAGE, floor=0.01).any()


@pytest.mark.parametrize(
    ("error", "match", "call"),
    [
        (TypeError, r"target is a list; pass a float16", {"target": [1.0]}),
        (TypeError, r"saliency is torch.int64", {"saliency": IMAGE.long()}),
        (ValueError, r"saliency has shape \(4, 4\); pass \(n, H, W\)", {"saliency": IMAGE[0]}),
        (ValueError, r"of which only n may be 0", {"target": IMAGE[:, :0]}),
        (ValueError, r"target has shape \(1, 3, 4\) but saliency", {"target": IMAGE[:, 1:]}),
        (TypeError, r"target is torch.float64 but saliency", {"target": IMAGE.double()}),
        (TypeError, r"target is on meta but saliency is on cpu", {"target": IMAGE.to("meta")}),
        (ValueError, r"floor is 0; pass a positive number", {"floor": 0}),
        (ValueError, r"floor is inf", {"floor": math.inf}),
        (ValueError, r"floor is nan", {"floor": math.nan}),
        (ValueError, r"floor is '1'", {"floor": "1"}),
    ],
)
def test_bad_input_is_one_clear_line(
    error: type[Exception], match: str, call: dict[str, Any]
) -> None:
    call = {"target": IMAGE, "saliency": IMAGE, "floor": 0.01, **call}
    with pytest.raises(error, match=match):
        saliency_losses(**call)
