"""The compiled kernels beside other users of threads: workers, OpenMP regions, Python threads."""

import ctypes
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from asycmst_ops import _cpu, axial_attention
from asycmst_ops.testing import make_grids

if not _cpu.available:
    pytest.skip(_cpu.unavailable_reason, allow_module_level=True)

SHAPE = (2, 16, 49, 6, 64)  # large enough for more than one thread


def attend(seed: int) -> Tensor:
    torch.manual_seed(seed)
    q, k, v = (x.requires_grad_() for x in make_grids(3, SHAPE))
    axial_attention(q, k, v, axis="space").sum().backward()
    assert q.grad is not None
    return q.grad


class Attended(Dataset[Tensor]):
    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> Tensor:
        return attend(index)


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_workers_of_a_loader_compute_the_same(two_threads: None) -> None:
    """Forked after the parent has used its thread team, which a child does not inherit."""
    expected = [attend(index) for index in range(4)]
    loader = DataLoader(
        Attended(), num_workers=2, multiprocessing_context="fork", timeout=60, batch_size=None
    )
    for found, one in zip(loader, expected, strict=True):
        assert torch.equal(found, one)


def test_python_threads_at_once_do_not_disturb_each_other(two_threads: None) -> None:
    shared = make_grids(3, SHAPE)
    expected = axial_attention(*shared, axis="time")
    found: dict[int, bool] = {}

    def work(number: int) -> None:
        found[number] = all(
            torch.equal(axial_attention(*shared, axis="time"), expected) for _ in range(5)
        )

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert found == dict.fromkeys(range(4), True)


REGION = """
void inside_a_region(void (*call)(void)) {
    #pragma omp parallel num_threads(2)
    {
        #pragma omp master
        call();
    }
}
"""


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")
def test_inside_another_openmp_region(two_threads: None, tmp_path: Path) -> None:
    source, library = tmp_path / "region.c", tmp_path / "region.so"
    source.write_text(REGION)
    subprocess.run(
        ["cc", "-shared", "-fPIC", "-fopenmp", "-o", str(library), str(source)], check=True
    )
    shared = make_grids(3, SHAPE)
    expected = axial_attention(*shared, axis="space")
    found: list[Tensor] = []
    call = ctypes.CFUNCTYPE(None)(lambda: found.append(axial_attention(*shared, axis="space")))
    ctypes.CDLL(str(library)).inside_a_region(call)
    assert len(found) == 1 and torch.equal(found[0], expected)


LATE_TORCH = """
import importlib.util, sys
spec = importlib.util.spec_from_file_location("asycmst_ops._C", {extension!r})
sys.modules["asycmst_ops._C"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(sys.modules["asycmst_ops._C"])
assert "torch" not in sys.modules
import torch
from asycmst_ops import axial_attention, reference
torch.set_num_threads(2)
grids = [torch.randn(2, 16, 49, 6, 64) for _ in range(3)]
out = axial_attention(*grids, axis="space")
torch.testing.assert_close(out, reference.axial_attention(*grids, axis="space"))
pools = {{line.split()[-1] for line in open("/proc/self/maps") if "libgomp" in line}}
assert len(pools) <= 1, pools
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc/self/maps")
def test_torch_may_come_after_the_kernels_and_shares_their_threads() -> None:
    """Two OpenMP runtimes in a process would fight for the cores."""
    done = subprocess.run(
        [sys.executable, "-c", LATE_TORCH.format(extension=_cpu._C.__file__)],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
        env={**os.environ, "PYTHONWARNINGS": "error"},
    )
    assert done.returncode == 0, done.stderr
