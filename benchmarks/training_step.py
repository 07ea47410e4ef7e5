"""One training step of the paper's model against the same step built naively, interleaved.

    python benchmarks/training_step.py --out benchmarks/results/FILE.json

Both take the same weights, clips and optimiser; the naive model is that of naive.py. Losses and
gradients are compared before anything is timed; a ratio is our median time over the naive one's,
in float32 and under bfloat16 autocast: below 1 ours is faster.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from compare_cpu import processor
from naive import naive_model
from torch import Tensor
from torch.utils.data import DataLoader

from asycmst import AsyCMST, AsyCMSTConfig, AsyCMSTLoss, AsyCMSTOutput
from asycmst.training.optimizer import build_optimizer
from asycmst.training.recipe import Recipe
from asycmst_ops import info


def batch_of(config: AsyCMSTConfig, size: int) -> dict[str, Tensor]:
    """Clips as a loader gives them, and their labels."""
    shape = (size, 3, config.frames, *config.frame_size)
    return {
        "bus": torch.rand(shape),
        "ceus": torch.rand(shape),
        "mask": torch.rand(size, config.frames, *config.frame_size) > 0.9,
        "label": torch.arange(size) % 2,
    }


def step_of(
    model: AsyCMST, recipe: Recipe, batch: dict[str, Tensor], *, mixed: bool
) -> Callable[[], Tensor]:
    """A training step: forward, loss, backward, optimiser; `mixed` is bfloat16 autocast."""
    optimizer, _ = build_optimizer(model.parameters(), recipe, total_steps=10**6)
    loss = AsyCMSTLoss(model.config)

    def step() -> Tensor:
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
            output: AsyCMSTOutput = model(batch["bus"], batch["ceus"])
            total = loss(output, batch["label"], batch["mask"]).total
        total.backward()
        optimizer.step()
        return total.detach()

    return step


def gradients_of(model: AsyCMST) -> dict[str, Tensor]:
    """All gradients, by the names of our parts."""
    renamed = {
        ".attention.attention.in_proj_": ".attention.qkv.",
        ".attention.attention.out_proj.": ".attention.output.",
    }
    found = {}
    for name, parameter in model.named_parameters():
        for theirs, ours in renamed.items():
            name = name.replace(theirs, ours)
        assert parameter.grad is not None, name
        found[name] = parameter.grad
    return found


def check(config: AsyCMSTConfig) -> float:
    """The gate: loss and every gradient agree, in float64 and on small frames of the same model.

    In float32 and at full size the two differ by what rounding does to a deep network in training.

    Returns:
        The largest difference of a gradient relative to its norm.
    """
    small = replace(config, frames=3, image_size=64, dropout=0.0)
    ours = AsyCMST(small)
    naive = naive_model(ours)
    batch = {
        name: x.double() if x.is_floating_point() else x for name, x in batch_of(small, 2).items()
    }
    losses, gradients = [], []
    for model in (ours.double(), naive.double()):
        output = model(batch["bus"], batch["ceus"])
        total = AsyCMSTLoss(small)(output, batch["label"], batch["mask"]).total
        total.backward()
        losses.append(total.detach())
        gradients.append(gradients_of(model))
    torch.testing.assert_close(*losses, rtol=1e-9, atol=0)
    assert gradients[0].keys() == gradients[1].keys()
    worst = max(
        float((gradients[0][name] - value).norm() / value.norm().clamp(min=1e-9))
        for name, value in gradients[1].items()
    )
    assert worst < 1e-6, f"gradients differ by {worst:.1e} of their norm"
    return worst


def loaded_per_second(cache: Path, batch: int, seconds: float = 10.0) -> float:
    """Samples per second that one process reads from a prepared cache."""
    from asycmst.data.cached import CachedDataset

    dataset = CachedDataset(cache)
    start, samples = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        for items in DataLoader(dataset, batch):
            samples += len(items["label"])
            if time.perf_counter() - start >= seconds:
                break
    return samples / (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description="a training step against a naive one")
    parser.add_argument("--out", type=Path, help="write everything as JSON to this file")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--cache", type=Path, help="also time loading from this prepared cache")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    config = AsyCMSTConfig.paper()
    batch = batch_of(config, args.batch)
    difference = check(config)
    ours = AsyCMST(config)
    naive = naive_model(ours)
    steps = {
        f"{name} {precision}": step_of(model, Recipe.paper(), batch, mixed=mixed)
        for precision, mixed in (("32-true", False), ("bf16-mixed", True))
        for name, model in (("ours", ours), ("naive", naive))
    }
    times: dict[str, list[float]] = {name: [] for name in steps}
    for step in steps.values():
        step()
    for _ in range(args.rounds):
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            times[name].append(time.perf_counter() - start)
    medians = {name: statistics.median(values) for name, values in times.items()}
    result: dict[str, Any] = {
        "machine": {"processor": processor(), "threads": args.threads, **info()},
        "batch": args.batch,
        "gradient_difference": difference,
        "seconds": {name: round(value, 3) for name, value in medians.items()},
        "spread": {name: [round(min(v), 3), round(max(v), 3)] for name, v in times.items()},
        "ours_over_naive": {
            precision: round(medians[f"ours {precision}"] / medians[f"naive {precision}"], 3)
            for precision in ("32-true", "bf16-mixed")
        },
    }
    result["samples_per_second"] = round(args.batch / medians["ours 32-true"], 2)
    if args.cache:
        result["loaded_per_second"] = round(loaded_per_second(args.cache, args.batch), 1)
    print(json.dumps(result, indent=1))
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
