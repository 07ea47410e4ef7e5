"""How the Triton kernels are launched: variants, grids, devices and offsets."""

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from asycmst_ops._problem import Backward, Forward, UnionBackward, UnionForward

axial = pytest.importorskip("asycmst_ops._triton.axial", reason="triton is not installed")
blocks = pytest.importorskip("asycmst_ops._triton.blocks")
ranking = pytest.importorskip("asycmst_ops._triton.ranking")
union = pytest.importorskip("asycmst_ops._triton.union")

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


class Launches(list[tuple[str, tuple[int, ...], tuple[Any, ...], dict[str, Any]]]):
    """Stands for every kernel and keeps (name, grid, arguments, keywords) of each launch."""

    def kernel(self, name: str) -> Any:
        class Kernel:
            def __getitem__(_, grid: tuple[int, ...]) -> Any:
                return lambda *a, **k: self.append((name, grid, a, k))

        return Kernel()

    def variants(self) -> set[Any]:
        """What compiled kernels these launches need: dtypes and constexpr values."""
        return {
            (name, *(a.dtype for a in args if isinstance(a, Tensor)), *sorted(keywords.items()))
            for name, _, args, keywords in self
        }


@pytest.fixture
def launches(monkeypatch: pytest.MonkeyPatch) -> Iterator[Launches]:
    found = Launches()
    monkeypatch.setattr(axial, "forward_kernel", found.kernel("forward"))
    monkeypatch.setattr(axial, "backward_kernel", found.kernel("backward"))
    monkeypatch.setattr(ranking, "ranking_kernel", found.kernel("ranking"))
    for name in blocks.KERNELS:
        monkeypatch.setitem(blocks.KERNELS, name, found.kernel(name))
    return found


def call(shape: Sequence[int], *, dim: int | None = None, device: str = "cpu") -> None:
    """Forward and backward along `dim`, or the union of both without one."""
    x = torch.empty(tuple(shape), dtype=torch.bfloat16, device=device)
    if dim is None:
        union.union_forward([UnionForward(x, x, x, x, None)], 0.3)
        union.union_backward([UnionBackward(x, x, x, x, x, x, x, None)], 0.3)
    else:
        axial.axial_forward([Forward(x, x, x, x, None, dim)], 0.3)
        axial.axial_backward([Backward(x, x, x, x, x, x, x, None, dim)], 0.3)


def test_a_new_length_needs_no_new_kernel(launches: Launches) -> None:
    """T and N are run-time numbers: one variant up to 16, 32 and 64, one for all beyond."""
    for lengths, kernels in (
        (range(1, 17), 2),
        (range(17, 33), 2),
        (range(33, 65), 2),
        ((65, 66, 100, 196, 1000, 4097), 3),
    ):
        launches.clear()
        for length in lengths:
            call((1, length, 2, 1, 64), dim=1)
            call((1, 2, length, 1, 64), dim=2)
        assert len(launches.variants()) == kernels, lengths


def test_neither_do_other_batches_groups_or_heads(launches: Launches) -> None:
    for batch, others, heads in ((1, 1, 1), (2, 49, 6), (7, 1000, 3)):
        call((batch, 16, others, heads, 64), dim=1)
        call((batch, 100, others, heads, 64), dim=1)
        call((batch, 16, others, heads, 64), dim=1)
    assert len(launches.variants()) == 5


def test_the_union_has_few_variants(launches: Launches) -> None:
    for frames in (17, 20, 32):
        for places in (65, 196, 300):
            call((1, frames, places, 1, 64))
    assert len(launches.variants()) == 7


def test_scores_of_any_length_share_two_variants(launches: Launches) -> None:
    for frames in (1, 2, 16, 17, 100, 5000):
        scores = torch.zeros(1, frames)
        ranking.fss_ranking(torch.empty(1), torch.empty(1, frames), scores, None, 0.9)
    assert len(launches.variants()) == 2


@pytest.mark.parametrize("dim", [1, 2, None])
@pytest.mark.parametrize("frames", [2, 66])
def test_grids_have_one_dimension(launches: Launches, dim: int | None, frames: int) -> None:
    """The other two hold 65,535 programs only."""
    call((2, frames, 70_000, 2, 1), dim=dim)
    assert {len(grid) for _, grid, _, _ in launches} == {1}
    assert all(4 * 70_000 <= grid[0] < 2**31 or dim != 1 for _, grid, _, _ in launches)
    assert all(grid[0] < 2**31 for _, grid, _, _ in launches)


def test_launches_per_call(launches: Launches) -> None:
    def names(shape: tuple[int, ...], dim: int | None) -> list[str]:
        launches.clear()
        call(shape, dim=dim)
        return [name for name, *_ in launches]

    assert names((1, 64, 2, 1, 64), 1) == ["forward", "backward"]
    assert names((1, 65, 2, 1, 64), 1) == ["forward", "query", "key"]
    union_names = ["forward"] * 2 + ["state", "query", "key", "query", "key"]
    assert names((1, 16, 49, 1, 64), None) == union_names


def test_narrow_accesses_to_wide_rows_take_a_launch_more(launches: Launches) -> None:
    """And multiply float32 as "ieee": what they hold in registers leaves no room for either."""
    x = torch.empty(1, 70, 1, 1, 131)
    axial.axial_backward([Backward(*[x] * 7, None, 1)], 0.3)
    assert [name for name, *_ in launches] == ["state", "query", "key"]
    flags = [(k.get("BEGIN"), k.get("WRITE"), k.get("SAVE")) for *_, k in launches]
    assert flags[:2] == [("new", "no", True), ("given", "set", False)]


def test_every_launch_is_made_on_the_device_of_its_tensors(
    launches: Launches, monkeypatch: pytest.MonkeyPatch
) -> None:
    entered: list[torch.device] = []

    def guard(device: torch.device) -> Any:
        entered.append(device)
        return nullcontext()

    monkeypatch.setattr(torch.cuda, "device", guard)
    with FakeTensorMode():
        # Five channels are no multiple of 16 bytes, so no address is asked for: these have none.
        call((1, 4, 3, 2, 5), dim=1, device="cuda:1")
        call((1, 4, 66, 2, 5), dim=2, device="cuda:1")
        call((1, 4, 3, 2, 5), device="cuda:1")
        scores = torch.empty(2, 5, device="cuda:1")
        ranking.fss_ranking(torch.empty(2, device="cuda:1"), scores, scores, None, 0.9)
    assert entered == [torch.device("cuda:1")] * len(launches)
    states = [a for _, _, args, _ in launches for a in args if isinstance(a, Tensor)]
    assert {x.device for x in states} == {torch.device("cuda:1")}


@pytest.mark.parametrize(("rows", "stride"), [(3, 2**30 + 64), (66, 2**25 + 2**20)])
def test_offsets_beyond_32_bits(rows: int, stride: int) -> None:
    """The last row lies 2^31 elements after the first; only pages that are touched exist."""
    size = (rows - 1) * stride + 16
    storage = torch.from_numpy(np.zeros(size, dtype=np.float16)).to(DEVICE)
    far = storage.as_strided((1, rows, 1, 1, 16), (0, stride, 0, 0, 1)).normal_()
    results = []
    for x in (far, far.clone()):
        out, both, dq, dk, dv = (torch.zeros(x.shape).to(x) for _ in range(5))
        axial.axial_forward([Forward(out, x, x, x, None, 1)], 0.3)
        axial.axial_backward([Backward(dq, dk, dv, x, x, x, x, None, 1)], 0.3)
        if rows <= 64:
            union.union_forward([UnionForward(both, x, x, x, None)], 0.3)
        results.append((out, both, dq, dk, dv))
    for x, y in zip(*results, strict=True):
        assert torch.equal(x, y)


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
def test_a_second_device_is_served_while_the_first_is_current() -> None:
    with torch.cuda.device(0):
        for shape in ((1, 16, 4, 1, 64), (1, 80, 4, 1, 64)):
            q = torch.randn(shape, device="cuda:1")
            out = torch.empty_like(q)
            axial.axial_forward([Forward(out, q, q, q, None, 1)], 0.125)
            near = q.to("cuda:0")
            there = torch.empty_like(near)
            axial.axial_forward([Forward(there, near, near, near, None, 1)], 0.125)
            assert torch.equal(out.cpu(), there.cpu())
