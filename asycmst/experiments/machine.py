"""What a measurement ran on."""

import platform
from pathlib import Path
from typing import Any, NamedTuple

import torch

import asycmst_ops
from asycmst.info import usable_cores


class ThreadPlan(NamedTuple):
    """How many processes train side by side, and the threads of each."""

    processes: int
    threads_each: int


def thread_plan(threads: int | None) -> ThreadPlan:
    """Divide processor threads over at most two trainings.

    Args:
        threads: in all; None is two, or one where one core is all there is.

    Raises:
        ValueError: `threads` is below 1.
    """
    total = min(2, usable_cores()) if threads is None else threads
    if total < 1:
        raise ValueError(f"threads={threads} is not allowed; use 1 or more")
    return ThreadPlan(processes=min(2, total), threads_each=max(1, total // 2))


def describe() -> dict[str, Any]:
    """Processor, cores, system, versions and the kernel behind CPU tensors; plain types."""
    cpu = asycmst_ops.info()["cpu"]
    return {
        "processor": _processor(),
        "cores": usable_cores(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cpu_kernel": cpu["kernel"],
        "cpu_kernel_why": cpu["why"],
    }


def _processor() -> str:
    names = Path("/proc/cpuinfo")
    if names.is_file():
        for line in names.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
