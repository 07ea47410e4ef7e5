"""Properties of the frame self-sorting loss on random scores (Eq 3-4)."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_ranking import loss_and_gradient

from asycmst_ops import fss_ranking_loss


@settings(max_examples=40, deadline=None)
@given(
    rows=st.lists(st.lists(st.floats(-30, 30), min_size=4, max_size=4), min_size=1, max_size=3),
    shift=st.floats(-10, 10),
    clamp=st.floats(0.05, 1.0),
)
def test_invariants(rows: list[list[float]], shift: float, clamp: float) -> None:
    """L(s + c) = L(s); -log clamp <= L; the gradient sums to zero over a clip."""
    scores = torch.tensor(rows, dtype=torch.float64)
    loss, grad = loss_and_gradient(fss_ranking_loss, scores, clamp=clamp, reduction="none")
    assert (loss >= -math.log(clamp) - 1e-12).all()
    torch.testing.assert_close(grad.sum(1), torch.zeros(len(rows), dtype=torch.float64))
    moved = fss_ranking_loss(scores + shift, clamp=clamp, reduction="none")
    torch.testing.assert_close(moved, loss, atol=1e-9, rtol=1e-9)


@settings(max_examples=60, deadline=None)
@given(
    leads=st.lists(st.floats(0, 3).filter(lambda x: abs(x - 1) > 1e-3), min_size=1, max_size=5),
    clamp=st.floats(0.55, 0.99),
)
def test_the_least_loss_is_reached_where_every_lead_is_long_enough(
    leads: list[float], clamp: float
) -> None:
    """L = -log clamp, without any pull, exactly when every gap is at least logit clamp (Eq 4)."""
    unit = math.log(clamp / (1 - clamp))
    scores = torch.tensor([[0.0, *itertools.accumulate(unit * lead for lead in leads)]]).double()
    loss, grad = loss_and_gradient(fss_ranking_loss, scores, clamp=clamp)
    if min(leads) > 1:
        assert loss.item() == pytest.approx(-math.log(clamp), rel=1e-12)
        assert not grad.any()
    else:
        assert loss.item() > -math.log(clamp)
        assert grad.any()
