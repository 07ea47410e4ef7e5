"""Settings that every test file shares."""

import os
from pathlib import Path

import torch

# Without a GPU the Triton kernels run in Triton's interpreter, which must be chosen before import.
if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"

import pytest

# Test processes side by side share the cores; threads in want of one would keep others waiting.
if "PYTEST_XDIST_WORKER" in os.environ:
    torch.set_num_threads(
        max(1, torch.get_num_threads() // int(os.environ["PYTEST_XDIST_WORKER_COUNT"]))
    )

# torch.empty is filled with NaN, so that an output that a kernel forgets to write is seen.
torch.use_deterministic_algorithms(True, warn_only=True)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Away from the sources: child processes import what is installed, and litter nothing."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture(
    params=[
        "cpu",
        pytest.param(
            "cuda",
            marks=[
                pytest.mark.gpu,
                pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
            ],
        ),
    ]
)
def device(request: pytest.FixtureRequest) -> str:
    return str(request.param)
