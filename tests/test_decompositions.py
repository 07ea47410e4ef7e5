"""Our operators in plain PyTorch within exported graphs."""

import pytest
import torch
from torch import Tensor, nn

from asycmst_ops import (
    acmst_attention_qkvpacked,
    axial_attention,
    cross_modal_attention,
    decomposition_table,
    dual_attention_gates,
)
from asycmst_ops.testing import make_grid


class Operators(nn.Module):
    """Every operator, with a mask for one modality and without."""

    def forward(self, bus: Tensor, ceus: Tensor, valid: Tensor) -> list[Tensor]:
        q_bus, k_bus, v_bus = bus.unbind(3)
        q_ceus, k_ceus, v_ceus = ceus.unbind(3)
        found = [
            axial_attention(q_bus, k_bus, v_bus, axis="space"),
            axial_attention(q_bus, k_bus[:, :2], v_bus[:, :2], axis="time", scale=0.2),
            axial_attention(q_bus, k_bus, v_bus, axis="time", key_mask=valid),
            *acmst_attention_qkvpacked(bus, ceus, ceus_mask=valid),
        ]
        for strategy in ("asymmetric", "symmetric", "spatial", "temporal", "global"):
            found += cross_modal_attention(
                q_bus, k_ceus, v_ceus, q_ceus, k_bus, v_bus, strategy=strategy, bus_mask=valid
            )
        images = q_bus[:, 0, 0].unflatten(-1, (2, 4))  # small maps of a size that does not vary
        found.append(dual_attention_gates(images, scope="split", patch=3))
        return [*found, dual_attention_gates(images)]


@pytest.mark.filterwarnings("ignore:`isinstance.treespec:FutureWarning")  # within torch
def test_an_exported_graph_keeps_none_of_our_operators() -> None:
    """Batch, frames and places stay open, and the results are the operators' own."""

    def inputs(batch: int, frames: int, places: int) -> tuple[Tensor, ...]:
        bus, ceus = (
            make_grid((batch, frames, places, 6, 8)).unflatten(3, (3, 2)) for _ in range(2)
        )
        return bus, ceus, torch.rand(batch, frames, 1) < 0.7

    sizes = {0: torch.export.Dim("b", min=1), 1: torch.export.Dim("t", min=2)}
    grid = sizes | {2: torch.export.Dim("n", min=2)}
    program = torch.export.export(Operators(), inputs(2, 3, 4), dynamic_shapes=(grid, grid, sizes))
    assert any("asycmst" in str(node.target) for node in program.graph.nodes)
    plain = program.run_decompositions(decomposition_table())
    assert not any("asycmst" in str(node.target) for node in plain.graph.nodes)
    for shape in ((2, 3, 4), (1, 2, 5), (3, 6, 2)):
        clips = inputs(*shape)
        for got, want in zip(plain.module()(*clips), Operators()(*clips), strict=True):
            torch.testing.assert_close(got, want, atol=1e-5, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_each_decomposition_is_its_operator(dtype: torch.dtype) -> None:
    """In every dtype, with masks at their places; half precision accumulates in float32."""
    shape = (2, 3, 4, 2, 8)
    grids = [make_grid(shape, dtype=dtype) for _ in range(6)]
    packed = [torch.stack(grids[:3], 3), torch.stack(grids[3:], 3)]
    masks = [torch.rand(shape[:3]) < 0.6 for _ in range(2)]
    arguments = {
        "axial": (*grids[:3], masks[0], 2, 0.3),
        "acmst": (*grids, *masks, 0.3),
        "acmst_qkvpacked": (*packed, *masks, 0.3),
        "union": (*grids, *masks, 0.3),
        "gates": (torch.randn(2, 4, 9, 10).to(dtype), 4, True),
    }
    table = decomposition_table()
    assert {op.name() for op in table} == {f"asycmst::{name}" for name in arguments}
    rounding = {torch.float64: 1e-12, torch.float32: 1e-5}.get(dtype, torch.finfo(dtype).eps)
    for op, decomposition in table.items():
        given = arguments[op.name().partition("::")[2]]
        got, want = (f(*given) for f in (decomposition, op))
        pairs = [(got, want)] if isinstance(got, Tensor) else zip(got, want, strict=True)
        for ours, theirs in pairs:
            assert ours.dtype == dtype and ours.is_contiguous()
            torch.testing.assert_close(ours, theirs, atol=rounding, rtol=rounding)
