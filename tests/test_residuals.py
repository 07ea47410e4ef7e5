"""Where the residual sum and its norm stand (Eq 12-13 and their usual readings)."""

import torch
from torch import nn

from asycmst.residuals import NoResidual, PostNorm, PreNorm, final_norm, residual_norm


def test_each_placement_by_hand() -> None:
    x, update = torch.tensor([[1.0, 3.0]]), torch.tensor([[4.0, -4.0]])
    unit = torch.tensor([[-1.0, 1.0]])  # LN of (1, 3)
    post, pre, none = PostNorm(2), PreNorm(2), NoResidual()
    assert torch.equal(post.enter(x), x)
    torch.testing.assert_close(post.leave(x, update), -unit, atol=1e-5, rtol=0)  # LN of (5, -1)
    torch.testing.assert_close(pre.enter(x), unit, atol=1e-5, rtol=0)
    assert torch.equal(pre.leave(x, update), x + update)
    assert torch.equal(none.enter(x), x)
    assert torch.equal(none.leave(x, update), update)
    assert not list(none.parameters())


def test_norms_before_their_functions_need_one_at_the_end() -> None:
    assert isinstance(residual_norm("post", 4), PostNorm)
    assert isinstance(residual_norm("pre", 4), PreNorm)
    assert isinstance(final_norm("post", 4), nn.Identity)
    assert isinstance(final_norm("pre", 4), nn.LayerNorm)
    assert residual_norm("post", 4).eps == residual_norm("pre", 4).eps == 1e-5
