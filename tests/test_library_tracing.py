"""Operators as tracers see them: graphs per shape, dynamic exports, CUDA tensors without a GPU."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._dynamo.testing import CompileCounterWithBackend
from torch._subclasses.fake_tensor import FakeTensorMode

from asycmst_ops import acmst_attention, acmst_attention_qkvpacked, axial_attention
from asycmst_ops.testing import make_grids

OPS = torch.ops.asycmst


def step(bus: Tensor, ceus: Tensor) -> Tensor:
    """A loss with every attention operator in it."""
    att_bus, att_ceus = acmst_attention_qkvpacked(bus, ceus)
    q, k, v = bus.unbind(3)
    both = acmst_attention(q, k, v, att_bus, att_ceus, v)
    return axial_attention(*both, v, axis="space").square().mean()


@pytest.fixture
def graphs() -> Iterator[tuple[Callable[..., Tensor], Any]]:
    """`step` compiled as a whole, and the counter of its graphs."""
    torch._dynamo.reset()
    counter = CompileCounterWithBackend("aot_eager")
    yield torch.compile(step, fullgraph=True, backend=counter), counter
    torch._dynamo.reset()


def packed(sizes: Sequence[int], device: str) -> list[Tensor]:
    return [torch.randn(*sizes, 3, 2, 8, device=device, requires_grad=True) for _ in range(2)]


def test_each_size_that_starts_to_vary_costs_one_graph_and_one_for_size_1(
    graphs: tuple[Callable[..., Tensor], Any], device: str
) -> None:
    function, counter = graphs
    seen = []
    for sizes in (
        *((2, 3, 4), (3, 3, 4), (2, 5, 4), (2, 3, 7)),  # one, and one for B, T and N each
        *((5, 6, 8), (9, 13, 2), (2, 4, 49)),  # none
        *((1, 6, 8), (1, 9, 5)),  # one for a batch of 1
    ):
        function(*packed(sizes, device)).backward()
        seen.append(counter.frame_count)
    assert seen[0] == 1 and seen[3] <= 4
    assert seen[6] == seen[3]
    assert seen[8] == seen[7] <= seen[6] + 1


def test_a_marked_batch_costs_no_second_graph(
    graphs: tuple[Callable[..., Tensor], Any], device: str
) -> None:
    function, counter = graphs
    for batch in (2, 3, 7, 32, 64):
        inputs = packed((batch, 2, 3), device)
        for x in inputs:
            torch._dynamo.mark_dynamic(x, 0)
        function(*inputs).backward()
    assert counter.frame_count == 1


class Attention(torch.nn.Module):
    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return axial_attention(q, k, v, axis="time")


def test_exports_with_sizes_left_open(device: str) -> None:
    batch, frames, places = (torch.export.Dim(name, min=2) for name in ("b", "t", "n"))
    sizes = {0: batch, 1: frames, 2: places}
    grids = make_grids(3, (2, 3, 4, 2, 8), device=device)
    program = torch.export.export(Attention(), tuple(grids), dynamic_shapes=(sizes,) * 3)
    for shape in ((2, 3, 4, 2, 8), (3, 17, 5, 2, 8)):
        other = make_grids(3, shape, device=device)
        assert torch.equal(program.module()(*other), Attention()(*other))


@pytest.mark.parametrize("layout", ["contiguous", "permuted", "packed"])
def test_cuda_tensors_are_traced_without_a_gpu(layout: Any) -> None:
    """Shapes, strides, dtype and device of every result, forward and backward."""
    shape = (2, 3, 4, 2, 8)
    strides = [x.stride() for x in make_grids(1, shape, layout=layout)] * 6
    with FakeTensorMode():
        inputs = [
            torch.empty_strided(shape, s, dtype=torch.bfloat16, device="cuda:1") for s in strides
        ]
        mask = torch.empty(shape[:3], dtype=torch.bool, device="cuda:1")
        results = [
            OPS.axial(*inputs[:3], mask, 1, 0.5),
            *OPS.axial_backward(*inputs[:4], mask, 2, 0.5),
            *OPS.acmst(*inputs, mask, None, 0.5),
            *OPS.acmst_backward(*inputs[:2], *inputs, None, mask, 0.5),
        ]
    for x in results:
        assert x.shape == shape and x.is_contiguous()
        assert (x.dtype, x.device) == (torch.bfloat16, torch.device("cuda:1"))
