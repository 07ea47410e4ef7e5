"""The frame self-sorting loss with its gradient, ours beside eager autograd."""

from typing import Any

import pytest
import torch

from asycmst_ops import fss_ranking_loss, reference

PROVIDERS = {"ours": fss_ranking_loss, "eager": reference.fss_ranking_loss}


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize("batch", [1, 32])
def test_fss_ranking(benchmark: Any, batch: int, provider: str) -> None:
    scores = torch.randn(batch, 16).requires_grad_()
    function = PROVIDERS[provider]
    exact = reference.fss_ranking_loss(scores.double())
    torch.testing.assert_close(function(scores).double(), exact, atol=1e-6, rtol=1e-6)
    benchmark.group = f"ranking loss with gradient, (B, T) = {(batch, 16)}"
    benchmark.extra_info.update(shape=(batch, 16), provider=provider)
    benchmark(lambda: torch.autograd.grad(function(scores), scores))
