"""What `test_fit_parallel` runs in one and in two processes: python ddp_steps.py OUT.

Two short runs with frozen batch statistics and unevenly annotated frames. Process r writes its
gradients of every step, and what it was told, to OUT/RUN/process_r.pt.
"""

import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

import asycmst.training.data
from asycmst.config import AsyCMSTConfig
from asycmst.data.samples import Item, PhantomDataset
from asycmst.model import AsyCMST
from asycmst.training.module import Progress
from asycmst.training.networks import BUILT_IN
from asycmst.training.recipe import Recipe
from asycmst.training.run import fit_run
from asycmst.training.settings import DataSettings, FitSettings, PhantomSplits, RunSettings

MODEL = replace(
    AsyCMSTConfig.demo(), frames=3, image_size=32, dim=16, ffn_dim=16, decoder_channels=(8, 8)
)


class UnevenlyAnnotated(PhantomDataset):
    """Sample i has i mod 4 annotated frames."""

    def __getitem__(self, index: int) -> Item:
        item = super().__getitem__(index)
        item["mask_valid"][index % 4 :] = False
        return item


class WithoutStatistics(AsyCMST):
    """Batch normalisation is in evaluation mode throughout."""

    def __init__(self, config: AsyCMSTConfig) -> None:
        super().__init__(config)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()


def main(out: Path) -> None:
    asycmst.training.data.PhantomDataset = UnevenlyAnnotated  # type: ignore[misc]
    BUILT_IN["asycmst"] = BUILT_IN["asycmst"]._replace(build=WithoutStatistics)
    torch.set_num_threads(1)
    gradients: list[dict[str, Any]] = []

    def note(optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        parameters = optimizer.param_groups[0]["params"]
        gradients.append({str(i): p.grad.clone() for i, p in enumerate(parameters)})

    register_optimizer_step_pre_hook(note)
    # Validation batches, 3 of 4 and 5 of 2, do not divide over two processes.
    phantom = PhantomSplits(frames=3, size=32, train=9, validation=9)
    for name, accumulate in (("steps", 1), ("parts", 2)):
        told: list[Progress] = []
        gradients.clear()
        recipe = Recipe(epochs=2, batch_size=4, accumulate=accumulate, class_weights=(1.0, 2.0))
        run = RunSettings(out=out / name, accelerator="cpu")
        settings = FitSettings(MODEL, recipe, DataSettings(phantom=phantom, workers=0), run)
        fit_run(settings, report=told.append)
        process = os.environ.get("RANK", "0")
        content = {"gradients": list(gradients), "told": [list(progress) for progress in told]}
        torch.save(content, out / name / f"process_{process}.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
