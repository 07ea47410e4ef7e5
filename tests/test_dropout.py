"""Dropout with a cheap mask: the right share, the right scale, and torch's generator."""

import pytest
import torch

from asycmst.dropout import Dropout, dropout


@pytest.mark.parametrize("probability", [0.1, 0.5, 0.9])
def test_the_share_and_the_mean_are_right(probability: float) -> None:
    n = 400_000
    dropped = dropout(torch.ones(n), probability)
    share = float((dropped == 0).float().mean())
    spread = (probability * (1 - probability) / n) ** 0.5
    assert abs(share - probability) < 5 * spread + 2**-16
    assert float(dropped.mean()) == pytest.approx(1, abs=6 * spread / (1 - probability))
    kept = dropped[dropped != 0]
    assert float(kept.min()) == float(kept.max()) == pytest.approx(1 / (1 - probability), rel=1e-3)


def test_every_place_of_four_is_dropped_as_often() -> None:
    """Four entries share a random word."""
    places = (dropout(torch.ones(100_000, 4), 0.3) == 0).float()
    assert places.mean(0).tolist() == pytest.approx([0.3] * 4, abs=0.01)
    together = torch.corrcoef(places.T) - torch.eye(4)
    assert float(together.abs().max()) < 0.02


def test_the_gradient_passes_where_values_do() -> None:
    x = torch.randn(3, 5, 7, dtype=torch.float64, requires_grad=True)
    torch.manual_seed(3)
    y = dropout(x, 0.4)
    y.sum().backward()
    assert x.grad is not None
    torch.testing.assert_close(x.grad * x.detach(), y.detach())
    assert 0 < int((y == 0).sum()) < 105


def test_torchs_generator_decides() -> None:
    x = torch.ones(64)
    torch.manual_seed(1)
    first, second = dropout(x, 0.5), dropout(x, 0.5)
    torch.manual_seed(1)
    assert torch.equal(dropout(x, 0.5), first)
    assert not torch.equal(first, second)


@pytest.mark.parametrize("shape", [(0,), (1,), (2, 3), (5, 0, 2)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_any_shape_and_dtype(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    out = dropout(torch.ones(shape, dtype=dtype), 0.5)
    assert (out.shape, out.dtype) == (shape, dtype)


def test_the_module_acts_in_training_only() -> None:
    module, x = Dropout(0.5), torch.ones(50)
    assert 0 < int((module(x) == 0).sum()) < 50
    assert module.eval()(x) is x
    assert Dropout(0.0)(x) is x


def test_a_compiled_graph_has_no_break() -> None:
    compiled = torch.compile(Dropout(0.5), backend="eager", fullgraph=True)
    assert 0 < int((compiled(torch.ones(1000)) == 0).sum()) < 1000
