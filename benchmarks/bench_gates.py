"""The gates of a dual-attention fusion at the five scales of its encoder, beside eager PyTorch."""

from typing import Any

import pytest
import torch
from providers import GATES, GATES_SCALES, forward, forward_backward

from asycmst_ops import reference
from asycmst_ops.testing import assert_within_budget, make_features


@pytest.mark.parametrize("provider", GATES)
@pytest.mark.parametrize("mode", ["forward", "forward-backward"])
@pytest.mark.parametrize(
    ("dtype", "layout"),
    [
        (torch.float32, "contiguous"),
        (torch.float32, "channels_last"),
        (torch.bfloat16, "contiguous"),
    ],
    ids=["float32", "float32-channels_last", "bfloat16"],
)
@pytest.mark.parametrize(("channels", "side"), GATES_SCALES)
def test_gates_on_cpu(
    benchmark: Any,
    channels: int,
    side: int,
    dtype: torch.dtype,
    layout: Any,
    mode: str,
    provider: str,
) -> None:
    shape = (1, channels, side, side)
    inputs = [make_features(shape, dtype=dtype, layout=layout)]
    grads = [make_features(shape, dtype=dtype, layout=layout, seed=1)]

    def call(function: Any, wide: bool = False) -> Any:
        x, g = ([t.double() if wide else t for t in tensors] for tensors in (inputs, grads))
        return forward(function, x) if mode == "forward" else forward_backward(function, x, g)

    run = call(GATES[provider])
    definition = reference.dual_attention_gates
    results = [run(), call(definition)(), call(definition, wide=True)()]
    assert_within_budget(provider, *(r[0] if isinstance(r, tuple) else r for r in results))
    benchmark.group = f"gates {mode}, {shape}, {dtype}, {layout}"
    benchmark.extra_info.update(shape=shape, dtype=str(dtype), layout=layout, provider=provider)
    benchmark(run)
