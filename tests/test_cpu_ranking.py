"""The compiled ranking loss, instruction set by instruction set, against its definition."""

import math

import pytest
import torch
from torch import Tensor

from asycmst_ops import _cpu, reference

if not _cpu.available:
    pytest.skip(_cpu.unavailable_reason, allow_module_level=True)

ISAS = _cpu._C.isas()
DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)

each_isa = pytest.mark.parametrize("isa", range(len(ISAS)), ids=ISAS)
each_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: str(d).split(".")[1])


def rank(
    scores: Tensor, clamp: float = 0.9, lengths: Tensor | None = None, isa: int = 0
) -> tuple[Tensor, Tensor]:
    dtype = torch.float64 if scores.dtype == torch.float64 else torch.float32
    loss, grad = torch.empty(scores.shape[0], dtype=dtype), torch.empty(scores.shape, dtype=dtype)
    _cpu.fss_ranking(loss, grad, scores, lengths, clamp, isa=isa)
    return loss, grad


def pair_by_pair(scores: list[float], clamp: float) -> tuple[float, list[float]]:
    """The double loop of Algorithm 1, in Python floats."""
    n, loss, grad = len(scores), 0.0, [0.0] * len(scores)
    weight = 2 / (n * (n - 1)) if n > 1 else 0.0
    for t in range(n):
        for i in range(t + 1, n):
            sigmoid = 1 / (1 + math.exp(scores[i] - scores[t]))
            probability = 1 - sigmoid
            loss -= weight * math.log(min(probability, clamp))
            if probability < clamp:
                grad[t] += weight * sigmoid
                grad[i] -= weight * sigmoid
    return loss, grad


@each_isa
@each_dtype
@pytest.mark.parametrize("frames", (1, 2, 3, 13, 16, 17, 33, 64, 100))
def test_ranking_is_the_double_loop(isa: int, dtype: torch.dtype, frames: int) -> None:
    scores = (2 * torch.randn(2, frames, dtype=torch.float64)).to(dtype)
    for clamp in (0.7, 0.9, 1.0):
        loss, grad = rank(scores, clamp, isa=isa)
        rows = [pair_by_pair(row, clamp) for row in scores.tolist()]
        tight = 1e-12 if dtype == torch.float64 else 2e-6
        torch.testing.assert_close(
            loss.double(),
            torch.tensor([r[0] for r in rows], dtype=torch.float64),
            atol=tight,
            rtol=tight,
        )
        exact = torch.tensor([r[1] for r in rows], dtype=torch.float64)
        torch.testing.assert_close(grad.double(), exact, atol=tight / frames, rtol=tight)


@each_isa
def test_ranking_of_many_frames(isa: int) -> None:
    scores = torch.randn(3, 1025, dtype=torch.float64)
    lengths = torch.tensor([1025, 700, 2])
    leaf = scores.clone().requires_grad_()
    exact = reference.fss_ranking_loss(leaf, lengths=lengths, reduction="none")
    (slopes,) = torch.autograd.grad(exact.sum(), leaf)
    for dtype, limit in ((torch.float64, 1e-12), (torch.float32, 3e-6)):
        loss, grad = rank(scores.to(dtype), lengths=lengths, isa=isa)
        torch.testing.assert_close(loss.double(), exact.detach(), atol=limit, rtol=limit)
        torch.testing.assert_close(grad.double(), slopes, atol=limit / 100, rtol=1e-4)


@each_isa
def test_ranking_reads_strides_and_lengths(isa: int) -> None:
    scores = torch.randn(40, 4)
    scores[30:] = math.nan
    lengths = torch.tensor([30, 17, 1, 0])
    loss, grad = rank(scores.t(), lengths=lengths, isa=isa)
    assert loss[2:].tolist() == [0, 0] and (grad[2:] == 0).all()
    for row, length in enumerate((30, 17)):
        one_loss, one_grad = rank(scores[:length, row][None].contiguous(), isa=isa)
        assert torch.equal(loss[row], one_loss[0])
        assert torch.equal(grad[row, :length], one_grad[0])
        assert (grad[row, length:] == 0).all()


@each_isa
def test_ranking_of_extreme_and_equal_scores(isa: int) -> None:
    floor = -math.log(0.9)
    loss, grad = rank(
        torch.tensor([[1000.0, 0.0], [-1000.0, 1000.0], [2.0**100, -(2.0**100)]]), isa=isa
    )
    torch.testing.assert_close(loss, torch.tensor([1000.0, floor, 2.0**101]))
    assert grad.tolist() == [[1, -1], [0, 0], [1, -1]]
    loss, grad = rank(torch.zeros(1, 3), isa=isa)
    torch.testing.assert_close(loss, torch.tensor([math.log(2)]))
    torch.testing.assert_close(grad, torch.tensor([[1 / 3, 0.0, -1 / 3]]))
    loss, grad = rank(torch.full((1, 5), 2.0**100), isa=isa)
    assert torch.isfinite(loss).all() and torch.isfinite(grad).all()
    loss, grad = rank(torch.tensor([[1.0, math.nan, 2.0]]), isa=isa)
    assert loss.isnan().all() and grad.isnan().all()
