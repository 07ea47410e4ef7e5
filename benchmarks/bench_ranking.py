"""The frame self-sorting loss with its gradient, ours beside eager autograd."""

from typing import Any

import pytest
import torch
from providers import RANKING

from asycmst_ops import reference


@pytest.mark.parametrize("provider", RANKING)
@pytest.mark.parametrize("batch", [1, 32])
def test_fss_ranking_on_cpu(benchmark: Any, batch: int, provider: str) -> None:
    scores = torch.randn(batch, 16).requires_grad_()
    function = RANKING[provider]
    exact = reference.fss_ranking_loss(scores.double())
    torch.testing.assert_close(function(scores).double(), exact, atol=1e-6, rtol=1e-6)
    benchmark.group = f"ranking loss with gradient, (B, T) = {(batch, 16)}"
    benchmark.extra_info.update(shape=(batch, 16), provider=provider)
    benchmark(lambda: torch.autograd.grad(function(scores), scores))
