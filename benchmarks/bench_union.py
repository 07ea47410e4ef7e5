"""The strategy "symmetric" at the paper's size: column and frame in one softmax."""

from typing import Any

import pytest
import torch
from providers import GLOBAL, SYMMETRIC, forward, forward_backward

from asycmst_ops import reference
from asycmst_ops.testing import assert_within_budget, make_grids

PROVIDERS = {**SYMMETRIC, "global": GLOBAL}


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize("mode", ["forward", "forward-backward"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("batch", [1, 4])
def test_union_on_cpu(
    benchmark: Any, batch: int, dtype: torch.dtype, mode: str, provider: str
) -> None:
    shape = (batch, 16, 49, 6, 64)
    *inputs, grad_bus, grad_ceus = make_grids(8, shape, dtype=dtype)
    function = PROVIDERS[provider]
    strategy = "global" if provider == "global" else "symmetric"
    plain = reference.cross_modal_attention(*inputs, strategy=strategy)
    exact = reference.cross_modal_attention(*[x.double() for x in inputs], strategy=strategy)
    for name, *three in zip(("bus", "ceus"), function(*inputs), plain, exact, strict=True):
        assert_within_budget(f"{provider} {name}", *three)
    benchmark.group = (
        f"union, {mode}, {dtype}, (B, T, N, H, d) = {shape}, {torch.get_num_threads()} threads"
    )
    benchmark.extra_info.update(shape=shape, dtype=str(dtype), mode=mode, provider=provider)
    run = (
        forward(function, inputs)
        if mode == "forward"
        else forward_backward(function, inputs, [grad_bus, grad_ceus])
    )
    benchmark(run)
