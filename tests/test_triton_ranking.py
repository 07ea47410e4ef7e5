"""The ranking Triton kernel, called directly: on a GPU where there is one, else interpreted."""

import math

import pytest
import torch
from torch import Tensor

from asycmst_ops import reference

ranking = pytest.importorskip("asycmst_ops._triton.ranking", reason="triton is not installed")

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def run(
    scores: Tensor, lengths: Tensor | None = None, clamp: float = 0.9
) -> tuple[Tensor, Tensor]:
    """Loss and gradient from outputs that held NaN."""
    scores = scores.to(DEVICE)
    loss = torch.full(scores.shape[:1], torch.nan, device=DEVICE)
    grad = torch.full(scores.shape, torch.nan, device=DEVICE)
    lengths = None if lengths is None else lengths.to(DEVICE)
    ranking.fss_ranking(loss, grad, scores, lengths, clamp)
    return loss.cpu(), grad.cpu()


def check(
    scores: Tensor, lengths: Tensor | None = None, clamp: float = 0.9
) -> tuple[Tensor, Tensor]:
    loss, grad = run(scores, lengths, clamp)
    exact = scores.detach().cpu().double().requires_grad_()
    wanted = reference.fss_ranking_loss(exact, clamp=clamp, lengths=lengths, reduction="none")
    (slope,) = torch.autograd.grad(wanted.sum(), exact)
    torch.testing.assert_close(loss, wanted.float(), rtol=2e-6, atol=1e-7)
    torch.testing.assert_close(grad, slope.float(), rtol=2e-5, atol=2e-7)
    return loss, grad


@pytest.mark.parametrize("frames", [1, 2, 3, 13, 16, 17, 33, 64, 65, 257])
def test_loss_and_gradient_match_the_reference(frames: int) -> None:
    check(torch.randn(3, frames) * 2)


@pytest.mark.parametrize("clamp", [0.5, 0.75, 0.999, 1.0])
def test_any_clamp(clamp: float) -> None:
    check(torch.randn(2, 20), clamp=clamp)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_scores_are_computed_in_float32(dtype: torch.dtype) -> None:
    check(torch.randn(2, 19).to(dtype))


@pytest.mark.parametrize(
    "scores",
    [
        torch.randn(18, 4).t(),
        torch.randn(4, 36)[:, ::2],
        torch.randn(1, 18).expand(4, 18),
        torch.randn(4, 1).expand(4, 18),
    ],
    ids=["transposed", "sliced", "one row", "one score"],
)
def test_scores_of_any_strides(scores: Tensor) -> None:
    check(scores)


@pytest.mark.parametrize("frames", [5, 16, 70])
def test_frames_beyond_a_length_take_no_part(frames: int) -> None:
    lengths = torch.tensor([frames, 0, 1, 2, frames - 1, frames // 2])
    scores = torch.randn(6, frames)
    clean = check(scores, lengths)
    padding = torch.arange(frames) >= lengths[:, None]
    for poison in (torch.nan, torch.inf):
        dirty = run(scores.masked_fill(padding, poison), lengths)
        assert torch.equal(clean[0], dirty[0]) and torch.equal(clean[1], dirty[1])
    assert not clean[1][padding].any()
    assert not clean[0][1:3].any() and not clean[1][1:3].any()


def test_equal_scores_pull_by_exactly_half_the_weight() -> None:
    loss, grad = run(torch.zeros(2, 2))
    assert torch.equal(grad, torch.tensor([[0.5, -0.5]]).expand(2, 2))
    torch.testing.assert_close(loss, torch.full((2,), math.log(2.0)), rtol=1e-7, atol=0)
    pull = run(torch.full((1, 5), 3.0))[1] * 20
    assert torch.equal(pull, torch.tensor([[4.0, 2.0, 0.0, -2.0, -4.0]]))


def test_large_gaps_stay_finite() -> None:
    loss, grad = run(torch.tensor([[1000.0, 0.0], [-1000.0, 1000.0], [2.0**100, -(2.0**100)]]))
    torch.testing.assert_close(loss, torch.tensor([1000.0, -math.log(0.9), 2.0**101]))
    assert torch.equal(grad, torch.tensor([[1.0, -1.0], [0.0, 0.0], [1.0, -1.0]]))


def test_a_clamped_pair_has_no_gradient() -> None:
    turn = math.log(9.0)
    below, above = run(torch.tensor([[0.0, turn - 1e-3]])), run(torch.tensor([[0.0, turn + 1e-3]]))
    assert below[1].abs().min() > 0.09
    assert not above[1].any()
    torch.testing.assert_close(above[0], torch.tensor([-math.log(0.9)]))


def test_small_costs_keep_their_digits() -> None:
    """With the clamp off, a well ordered pair costs e^-gap, far below the spacing of 1 + x."""
    loss, _ = run(torch.tensor([[0.0, 20.0]]), clamp=1.0)
    torch.testing.assert_close(loss, torch.tensor([math.exp(-20.0)]), rtol=1e-5, atol=0)


def test_runs_are_bitwise_equal() -> None:
    scores = torch.randn(2, 130)
    first, second = run(scores), run(scores)
    assert torch.equal(first[0], second[0]) and torch.equal(first[1], second[1])
