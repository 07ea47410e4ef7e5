"""The frame self-sorting loss (Eq 3-4, Algorithm 1)."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from asycmst_ops import fss_ranking_loss, reference

FLOOR = -math.log(0.9)
LENGTHS = (1, 2, 3, 13, 16, 17, 33, 64, 257)


def algorithm_1(scores: Tensor, clamp: float = 0.9) -> float:
    """The double loop of Algorithm 1, term by term as printed."""
    frames = len(scores)
    total = 0.0
    for t in range(frames - 1):
        for i in range(t + 1, frames):
            sigmoid = 1.0 / (1.0 + math.exp(float(scores[t] - scores[i])))
            total += -math.log(min(sigmoid, clamp))
    return total / (0.5 * frames * (frames - 1))


def loss_and_gradient(function: Any, scores: Tensor, **options: Any) -> tuple[Tensor, Tensor]:
    leaf = scores.detach().requires_grad_()
    loss = function(leaf, **options)
    (grad,) = torch.autograd.grad(loss.sum(), leaf)
    return loss.detach(), grad


@pytest.mark.parametrize("frames", [2, 3, 16])
@pytest.mark.parametrize("clamp", [0.5, 0.9, 0.999, 1.0])
def test_is_algorithm_1(frames: int, clamp: float, device: str) -> None:
    scores = torch.randn(4, frames, dtype=torch.float64)
    loss = fss_ranking_loss(scores.to(device), clamp=clamp, reduction="none")
    expected = torch.tensor([algorithm_1(row, clamp) for row in scores], dtype=torch.float64)
    torch.testing.assert_close(loss.cpu(), expected, atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("frames", LENGTHS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_matches_the_float64_reference(frames: int, dtype: torch.dtype, device: str) -> None:
    scores = torch.randn(5, frames).to(device, dtype)
    loss, grad = loss_and_gradient(fss_ranking_loss, scores, reduction="none")
    exact, exact_grad = loss_and_gradient(
        reference.fss_ranking_loss, scores.double(), reduction="none"
    )
    assert loss.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert grad.dtype == dtype
    close = (
        {"atol": 1e-12, "rtol": 1e-12} if dtype == torch.float64 else {"atol": 2e-6, "rtol": 1e-5}
    )
    torch.testing.assert_close(loss.double(), exact, **close)
    if dtype in (torch.float16, torch.bfloat16):
        close = {"atol": 1e-4, "rtol": torch.finfo(dtype).eps}
    torch.testing.assert_close(grad.double(), exact_grad, **close)


def test_the_gap_of_ln_9_clamps(device: str) -> None:
    """f(0, 0) = log 2; from s_i - s_t = ln 9 on the term is -log 0.9 with no gradient (Eq 4)."""
    gaps = torch.tensor([[0.0, 0.0], [0.0, 2.19], [0.0, 2.2], [0.0, 50.0]], device=device)
    loss, grad = loss_and_gradient(fss_ranking_loss, gaps, reduction="none")
    assert loss[0].item() == pytest.approx(math.log(2.0), rel=1e-6)
    assert loss[1].item() > loss[2].item() == pytest.approx(FLOOR, rel=1e-6)
    assert loss[3].item() == pytest.approx(FLOOR, rel=1e-6)
    assert grad[1].abs().max() > 0
    assert grad[2:].abs().max() == 0


def test_equal_scores_give_half_the_pair_weight(device: str) -> None:
    for frames in (2, 3, 16):
        scores = torch.zeros(1, frames, device=device)
        _, grad = loss_and_gradient(fss_ranking_loss, scores)
        weight = 2.0 / (frames * (frames - 1))
        later = torch.arange(frames, dtype=torch.float32)
        expected = 0.5 * weight * ((frames - 1 - later) - later)
        torch.testing.assert_close(grad[0].cpu(), expected)


@pytest.mark.parametrize(
    ("scores", "loss", "grad"),
    [
        ([1000.0, 0.0], 1000.0, [1.0, -1.0]),
        ([-1000.0, 1000.0], FLOOR, [0.0, 0.0]),
        ([2.0**100, -(2.0**100)], 2.0**101, [1.0, -1.0]),
    ],
    ids=["1000", "-1000", "2^100"],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_extreme_scores_stay_finite(
    scores: list[float], loss: float, grad: list[float], dtype: torch.dtype, device: str
) -> None:
    found, found_grad = loss_and_gradient(
        fss_ranking_loss, torch.tensor([scores], dtype=dtype, device=device)
    )
    assert found.item() == pytest.approx(loss, rel=1e-6)
    assert found_grad[0].tolist() == pytest.approx(grad)


def test_one_frame_has_no_pair(device: str) -> None:
    loss, grad = loss_and_gradient(fss_ranking_loss, torch.randn(3, 1, device=device))
    assert loss.item() == 0.0
    assert grad.abs().max() == 0.0


def test_later_frames_must_score_higher(device: str) -> None:
    rising = torch.arange(6.0, device=device)[None] * 3
    assert fss_ranking_loss(rising).item() == pytest.approx(FLOOR, rel=1e-6)
    assert fss_ranking_loss(rising.flip(1)).item() > 3.0


def test_gradcheck() -> None:
    scores = torch.randn(3, 6, dtype=torch.float64, requires_grad=True)
    lengths = torch.tensor([6, 4, 1])
    assert torch.autograd.gradcheck(lambda s: fss_ranking_loss(s, clamp=0.999), scores)
    assert torch.autograd.gradcheck(
        lambda s: fss_ranking_loss(s, lengths=lengths, reduction="none"), scores
    )


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.uint8])
def test_padding_takes_no_part(dtype: torch.dtype, device: str) -> None:
    scores = torch.randn(4, 7, device=device)
    lengths = torch.tensor([7, 3, 1, 0], device=device).to(dtype)
    rows, grad = loss_and_gradient(fss_ranking_loss, scores, lengths=lengths, reduction="none")
    alone, alone_grad = loss_and_gradient(fss_ranking_loss, scores[1:2, :3])
    torch.testing.assert_close(rows[1], alone)
    torch.testing.assert_close(grad[1, :3], alone_grad[0])
    assert rows[2:].tolist() == [0.0, 0.0]
    poisoned = scores.clone()
    poisoned[1, 3:] = float("nan")
    poisoned[2:] = float("nan")
    dirty, dirty_grad = loss_and_gradient(
        fss_ranking_loss, poisoned, lengths=lengths, reduction="none"
    )
    assert torch.equal(dirty, rows)
    assert torch.equal(dirty_grad, grad)
    assert grad[1, 3:].abs().max() == 0
    mean = fss_ranking_loss(scores, lengths=lengths)
    assert mean.item() == pytest.approx(rows.sum().item() / 4, rel=1e-6)


def test_lengths_are_clamped_to_the_clip(device: str) -> None:
    scores = torch.randn(2, 5, device=device)
    lengths = torch.tensor([9, -3], device=device)
    rows = fss_ranking_loss(scores, lengths=lengths, reduction="none")
    torch.testing.assert_close(rows[0], fss_ranking_loss(scores[:1]))
    assert rows[1].item() == 0.0


def test_reductions_and_strides(device: str) -> None:
    scores = torch.randn(6, 5, device=device).t()
    rows = fss_ranking_loss(scores, reduction="none")
    torch.testing.assert_close(rows, fss_ranking_loss(scores.contiguous(), reduction="none"))
    torch.testing.assert_close(fss_ranking_loss(scores), rows.mean())
    torch.testing.assert_close(fss_ranking_loss(scores, reduction="sum"), rows.sum())


def test_an_empty_batch_is_zero(device: str) -> None:
    scores = torch.empty(0, 5, device=device, requires_grad=True)
    loss = fss_ranking_loss(scores)
    loss.backward()
    assert loss.item() == 0.0
    assert fss_ranking_loss(scores, reduction="none").shape == (0,)


def test_a_second_derivative_names_the_reference(device: str) -> None:
    scores = torch.randn(2, 4, device=device, requires_grad=True)
    (grad,) = torch.autograd.grad(fss_ranking_loss(scores), scores, create_graph=True)
    with pytest.raises(RuntimeError, match=r"asycmst_ops\.reference"):
        grad.square().sum().backward()


@pytest.mark.parametrize(
    ("error", "match", "change"),
    [
        (ValueError, r"T >= 1", {"scores": torch.zeros(2, 0)}),
        (ValueError, r"scores has shape \(4,\)", {"scores": torch.zeros(4)}),
        (TypeError, r"scores is torch.int64", {"scores": torch.zeros(2, 3, dtype=torch.int64)}),
        (ValueError, r"clamp is 0.0; pass a number in \(0, 1\]", {"clamp": 0.0}),
        (ValueError, r"clamp is 1.5", {"clamp": 1.5}),
        (ValueError, r"clamp is nan", {"clamp": float("nan")}),
        (ValueError, r'reduction is \'max\'; pass "none"', {"reduction": "max"}),
        (TypeError, r"lengths is torch.float32", {"lengths": torch.zeros(2)}),
        (ValueError, r"lengths has shape \(3,\)", {"lengths": torch.zeros(3).long()}),
    ],
)
def test_bad_input_is_one_clear_line(
    error: type[Exception], match: str, change: dict[str, Any]
) -> None:
    call: dict[str, Any] = {"scores": torch.zeros(2, 3), **change}
    with pytest.raises(error, match=match):
        fss_ranking_loss(call.pop("scores"), **call)


@pytest.mark.parametrize("step", [1e2, 1e6])
def test_sixteen_frames_are_120_pairs_and_disorder_costs_in_proportion(
    step: float, device: str
) -> None:
    """In reversed clips a pair costs its gap: the sum of i - t over t < i is 680 (Eq 3)."""
    scores = -step * torch.arange(16, dtype=torch.float64, device=device)[None]
    loss, grad = loss_and_gradient(fss_ranking_loss, scores)
    assert loss.item() == pytest.approx(step * 680 / 120, rel=1e-12)
    expected = (15 - 2 * torch.arange(16, dtype=torch.float64)) / 120
    torch.testing.assert_close(grad[0].cpu(), expected)


@pytest.mark.parametrize(("past", "slope"), [(-1e-6, 0.1), (1e-6, 0.0)], ids=["short", "past"])
def test_the_pull_of_one_tenth_ends_at_a_gap_of_ln_9(
    past: float, slope: float, device: str
) -> None:
    gap = math.log(9) + past
    scores = torch.tensor([[0.0, gap]], dtype=torch.float64, device=device)
    loss, grad = loss_and_gradient(fss_ranking_loss, scores)
    assert loss.item() == pytest.approx(max(math.log1p(math.exp(-gap)), FLOOR), abs=1e-12)
    assert grad[0].tolist() == pytest.approx([slope, -slope], abs=1e-6)


def test_at_the_kink_the_slope_lies_between_those_of_its_sides(device: str) -> None:
    """With clamp 1/2 equal scores stand on the kink of Eq 4."""
    scores = torch.zeros(1, 2, device=device)
    loss, grad = loss_and_gradient(fss_ranking_loss, scores, clamp=0.5)
    assert loss.item() == pytest.approx(math.log(2), rel=1e-6)
    first, second = grad[0].tolist()
    assert 0 <= first <= 0.5
    assert second == -first


def test_a_clamp_of_one_is_none(device: str) -> None:
    scores = torch.tensor([[0.0, 20.0]], dtype=torch.float64, device=device)
    loss, grad = loss_and_gradient(fss_ranking_loss, scores, clamp=1.0)
    assert loss.item() == pytest.approx(math.log1p(math.exp(-20)), rel=1e-12)
    slope = 1 / (1 + math.exp(20))
    assert grad[0].tolist() == pytest.approx([slope, -slope], rel=1e-9)


@pytest.mark.parametrize(("reduction", "share"), [("mean", 1 / 3), ("sum", 1.0)])
def test_reductions_share_out_the_gradients_of_the_rows(
    reduction: str, share: float, device: str
) -> None:
    scores = torch.randn(3, 5, dtype=torch.float64, device=device)
    _, grad = loss_and_gradient(fss_ranking_loss, scores, reduction=reduction)
    rows = [loss_and_gradient(fss_ranking_loss, row[None])[1] for row in scores]
    torch.testing.assert_close(grad, share * torch.cat(rows))


@pytest.mark.parametrize("layout", ["transposed", "sliced", "expanded"])
def test_strided_scores_have_the_gradient_of_dense_ones(layout: str, device: str) -> None:
    scores = {
        "transposed": torch.randn(5, 4, device=device).t(),
        "sliced": torch.randn(4, 10, device=device)[:, ::2],
        "expanded": torch.randn(1, 5, device=device).expand(4, 5),
    }[layout]
    assert not scores.is_contiguous()
    strided = loss_and_gradient(fss_ranking_loss, scores)
    dense = loss_and_gradient(fss_ranking_loss, scores.contiguous())
    for a, b in zip(strided, dense, strict=True):
        torch.testing.assert_close(a, b)


def test_no_table_of_pairs_is_kept_for_the_backward(device: str) -> None:
    scores = torch.randn(2, 257, device=device, requires_grad=True)
    kept: list[int] = []
    with torch.autograd.graph.saved_tensors_hooks(
        lambda x: (kept.append(x.numel()), x)[1], lambda x: x
    ):
        fss_ranking_loss(scores)
    assert kept
    assert max(kept) <= scores.numel()


def test_scores_without_gradient_give_the_loss_without_a_graph(device: str) -> None:
    scores = torch.randn(2, 5, device=device)
    loss = fss_ranking_loss(scores)
    assert loss.grad_fn is None
    assert torch.equal(loss, fss_ranking_loss(scores.requires_grad_()).detach())
