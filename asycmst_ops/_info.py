"""Which kernel serves which device, and why."""

from typing import Any

import torch

from asycmst_ops import _cpu, _cuda


def info() -> dict[str, Any]:
    """Versions, and for each device the kernel that serves it with the reason.

    Returns:
        {"torch": version, "cpu": {...}, "cuda": {...}, "other": {...}}; each device has "kernel"
        ("csrc", "triton" or "reference") and "why"; the compiled CPU part adds its build.
    """
    cpu: dict[str, Any]
    if _cpu.available:
        cpu = {"kernel": "csrc", "why": "the compiled kernels are installed", **_cpu.info()}
    else:
        cpu = {"kernel": "reference", "why": _cpu.unavailable_reason}
    missing = _cuda.unavailable_reason()
    return {
        "torch": torch.__version__,
        "cpu": cpu,
        "cuda": {
            "kernel": "reference" if missing else "triton",
            "why": missing or f"Triton serves {_cuda.SERVED}",
        },
        "other": {"kernel": "reference", "why": "no kernels of ours for other devices"},
    }
