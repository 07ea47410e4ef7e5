"""What every stored benchmark says about the machine it ran on."""

from typing import Any

import torch

from asycmst_ops import info


def pytest_benchmark_update_machine_info(config: Any, machine_info: dict[str, Any]) -> None:
    machine_info["asycmst_ops"] = info()
    machine_info["threads"] = torch.get_num_threads()
