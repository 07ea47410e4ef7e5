"""What the joint attention does not allocate: a table of all token pairs, copies of its inputs."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from asycmst_ops import _cpu, acmst_attention
from asycmst_ops.testing import LAYOUTS, Layout, make_grids

FRAMES, PLACES = 32, 512

# The high-water mark of a process of its own: the kernels' memory is not torch's.
CHILD = """
import sys
import torch
from asycmst_ops import acmst_attention

def peak_kib():
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))

def attend(frames, places):
    inputs = [torch.randn(1, frames, places, 1, 8, requires_grad=True) for _ in range(6)]
    att_bus, att_ceus = acmst_attention(*inputs)
    (att_bus.sum() + att_ceus.sum()).backward()

attend(2, 3)
before = peak_kib()
attend(*map(int, sys.argv[1:]))
print(1024 * (peak_kib() - before))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="no /proc to read peaks from")
def test_no_table_of_all_token_pairs_is_made() -> None:
    """Eq 8 and Eq 10 need T N (T + N) scores, (T N)^2 would be 30 times as many."""
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(FRAMES), str(PLACES)],
        capture_output=True,
        text=True,
        check=True,
    )
    table = 4 * (FRAMES * PLACES) ** 2
    assert int(done.stdout) < table / 4


def copies(layout: Layout) -> int:
    """How often a forward and backward copy a tensor."""
    *inputs, g_bus, g_ceus = make_grids(8, (2, 6, 7, 2, 16), layout=layout)
    leaves = [x.requires_grad_() for x in inputs]
    with profile(activities=[ProfilerActivity.CPU]) as record:
        outs = acmst_attention(*leaves)
        torch.autograd.grad(outs, leaves, [g_bus, g_ceus])
    counts = {event.key: event.count for event in record.key_averages()}
    assert counts["asycmst::acmst"]
    assert counts["asycmst::acmst_backward"]
    return counts.get("aten::copy_", 0)


@pytest.mark.skipif(not _cpu.available, reason="plain PyTorch copies as it likes")
@pytest.mark.parametrize("layout", LAYOUTS)
def test_only_a_strided_last_dimension_is_copied(layout: Layout) -> None:
    assert (copies(layout) > 0) is (layout == "strided")
