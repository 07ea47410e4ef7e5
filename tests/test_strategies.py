"""The cross-attention strategies of Table 5: which keys each query sees (Section 4.6)."""

from typing import Any

import pytest
import torch

from asycmst_ops import acmst_attention, cross_modal_attention, reference
from asycmst_ops.testing import assert_within_budget, make_grids, make_mask

STRATEGIES = ("asymmetric", "symmetric", "spatial", "temporal", "global")
T, N = 4, 5


def keys_seen(strategy: str, direction: str) -> torch.Tensor:
    """How many keys each (t, n) reaches, found from gradients by the values: (T, N, T, N)."""
    inputs = make_grids(6, (1, T, N, 1, 8))
    values = inputs[2 if direction == "bus" else 5].requires_grad_()
    out = cross_modal_attention(*inputs, strategy=strategy)[direction == "ceus"]
    rows = [
        torch.autograd.grad(out[0, t, n].sum(), values, retain_graph=True)[0][0].abs().sum((2, 3))
        for t in range(T)
        for n in range(N)
    ]
    return (torch.stack(rows) > 0).view(T, N, T, N)


def expected_keys(strategy: str, direction: str) -> torch.Tensor:
    t, n, u, m = torch.meshgrid(*map(torch.arange, (T, N, T, N)), indexing="ij")
    column, frame = n == m, t == u
    return {
        "asymmetric": column if direction == "bus" else frame,
        "symmetric": column | frame,
        "spatial": frame,
        "temporal": column,
        "global": torch.ones_like(frame),
    }[strategy]


@pytest.mark.parametrize("direction", ["bus", "ceus"])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_each_query_sees_the_keys_of_its_strategy(strategy: str, direction: str) -> None:
    assert torch.equal(keys_seen(strategy, direction), expected_keys(strategy, direction))


@pytest.mark.parametrize("masked", [False, True], ids=["all-keys", "masked"])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_matches_the_float64_reference(strategy: Any, masked: bool, device: str) -> None:
    *inputs, g1, g2 = make_grids(8, (2, T, N, 2, 8), device=device)
    options: dict[str, Any] = {"strategy": strategy}
    if masked:
        options["bus_mask"] = make_mask((2, T, N)).to(device)
        options["ceus_mask"] = make_mask((2, T, N), seed=1).to(device)

    def run(function: Any, dtype: torch.dtype) -> list[torch.Tensor]:
        leaves = [x.detach().to(dtype).requires_grad_() for x in inputs]
        outs = function(*leaves, **options)
        return [*outs, *torch.autograd.grad(outs, leaves, [g1.to(dtype), g2.to(dtype)])]

    actual = run(cross_modal_attention, torch.float32)
    plain = run(reference.cross_modal_attention, torch.float32)
    exact = run(reference.cross_modal_attention, torch.float64)
    for index, three in enumerate(zip(actual, plain, exact, strict=True)):
        assert_within_budget(f"{strategy} result {index}", *(x.detach() for x in three))


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("poison", [float("nan"), float("inf")], ids=["nan", "inf"])
def test_poison_under_the_mask_does_not_leak(strategy: Any, poison: float) -> None:
    inputs = make_grids(6, (2, T, N, 2, 8))
    masks = {"bus_mask": make_mask((2, T, N)), "ceus_mask": make_mask((2, T, N), seed=1)}
    clean = cross_modal_attention(*inputs, strategy=strategy, **masks)
    for position in (1, 2, 4, 5):
        mask = masks["ceus_mask" if position < 3 else "bus_mask"]
        inputs[position] = inputs[position].masked_fill(~mask[..., None, None], poison)
    leaves = [x.requires_grad_() for x in inputs]
    dirty = cross_modal_attention(*leaves, strategy=strategy, **masks)
    assert all(torch.equal(a, b) for a, b in zip(clean, dirty, strict=True))
    grads = torch.autograd.grad(dirty[0].sum() + dirty[1].sum(), leaves)
    assert all(torch.isfinite(g).all() for g in grads)


def test_one_softmax_counts_the_own_place_once_in_symmetric() -> None:
    """Equal keys: the output is the plain mean over T + N - 1 values."""
    q, v = make_grids(2, (1, T, N, 1, 8), dtype=torch.float64)
    k = torch.zeros_like(q)
    out, _ = cross_modal_attention(q, k, v, q, k, v, strategy="symmetric")
    for t in range(T):
        for n in range(N):
            total = v[0, :, n].sum(0) + v[0, t].sum(0) - v[0, t, n]
            torch.testing.assert_close(out[0, t, n], total / (T + N - 1))


def test_one_frame_makes_symmetric_spatial_and_global_agree() -> None:
    inputs = make_grids(6, (2, 1, N, 2, 8), dtype=torch.float64)
    found = [
        cross_modal_attention(*inputs, strategy=s) for s in ("symmetric", "spatial", "global")
    ]
    for other in found[1:]:
        torch.testing.assert_close(other, found[0])
    temporal = cross_modal_attention(*inputs, strategy="temporal")
    torch.testing.assert_close(temporal, (inputs[2], inputs[5]))


def test_asymmetric_is_the_joint_operator() -> None:
    inputs = make_grids(6, (2, T, N, 2, 8))
    pairs = zip(
        cross_modal_attention(*inputs, strategy="asymmetric"),
        acmst_attention(*inputs),
        strict=True,
    )
    assert all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("strategy", [s for s in STRATEGIES if s != "asymmetric"])
def test_swapping_the_modalities_swaps_the_outputs_of_all_but_asymmetric(strategy: Any) -> None:
    inputs = make_grids(6, (1, T, N, 1, 8), dtype=torch.float64)
    bus, ceus = cross_modal_attention(*inputs, strategy=strategy)
    swapped = cross_modal_attention(*inputs[3:], *inputs[:3], strategy=strategy)
    torch.testing.assert_close(swapped, (ceus, bus))
    bus, ceus = cross_modal_attention(*inputs, strategy="asymmetric")
    swapped = cross_modal_attention(*inputs[3:], *inputs[:3], strategy="asymmetric")
    assert not torch.allclose(swapped[0], ceus)


def test_an_unknown_strategy_lists_the_known_ones() -> None:
    grids = make_grids(6, (1, T, N, 1, 8))
    with pytest.raises(ValueError, match=r"'dense'; pass one of asymmetric, symmetric, spatial"):
        cross_modal_attention(*grids, strategy="dense")  # type: ignore[arg-type]
