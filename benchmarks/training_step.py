"""One training step of the paper's model against the same step built naively, interleaved.

    python benchmarks/training_step.py --out benchmarks/results/FILE.json

Both take the same weights, clips and optimiser. The naive model is what one writes first: torch's
attention modules with the weights returned, cross-attention by einsum with all weights in memory,
tensors in their default layout. Losses and gradients are compared before anything is timed; a
ratio is our median time over the naive one's: below 1 ours is faster.
"""

import argparse
import json
import math
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from compare_cpu import processor
from torch import Tensor, nn
from torch.utils.data import DataLoader

from asycmst import AsyCMST, AsyCMSTConfig, AsyCMSTLoss, AsyCMSTOutput
from asycmst.cross_attention import CrossModalAttention
from asycmst.encoders import FrameEncoder
from asycmst.heads import MaskDecoder
from asycmst.stsa import JointSelfAttention
from asycmst.training.optimizer import build_optimizer
from asycmst.training.recipe import Recipe
from asycmst_ops import info


class NaiveSelfAttention(nn.Module):
    """nn.MultiheadAttention over all T * N tokens, its weights returned."""

    def __init__(self, ours: JointSelfAttention) -> None:
        super().__init__()
        dim = ours.output.in_features
        self.attention = nn.MultiheadAttention(
            dim, ours.heads, dropout=ours.dropout, batch_first=True
        )
        self.attention.in_proj_weight.data.copy_(ours.qkv.weight.data)
        self.attention.in_proj_bias.data.copy_(ours.qkv.bias.data)
        self.attention.out_proj.load_state_dict(ours.output.state_dict())

    def forward(self, tokens: Tensor, valid: Tensor | None) -> Tensor:
        """Tokens (B, T, N, D) to the same."""
        flat = tokens.flatten(1, 2)
        mixed, self.weights = self.attention(flat, flat, flat, need_weights=True)
        return mixed.reshape(tokens.shape)


class NaiveCrossAttention(nn.Module):
    """Eq 8 and Eq 10 with matrix products and softmax, every intermediate in memory."""

    def __init__(self, ours: CrossModalAttention) -> None:
        super().__init__()
        self.heads = ours.project_bus.heads
        for name in ("project_bus", "project_ceus", "output_bus", "output_ceus"):
            source = getattr(ours, name)
            layer = nn.Linear(source.in_features, source.out_features)
            layer.load_state_dict(source.state_dict())
            setattr(self, name, layer)

    def forward(self, bus: Tensor, ceus: Tensor, valid: Tensor | None) -> tuple[Tensor, Tensor]:
        """Streams (B, T, N, D) to what each reads from the other."""
        q_bus, k_bus, v_bus = self._heads(self.project_bus(bus))
        q_ceus, k_ceus, v_ceus = self._heads(self.project_ceus(ceus))
        scale = 1 / math.sqrt(q_bus.shape[-1])
        time = (torch.einsum("btnhd,bunhd->bnhtu", q_bus, k_ceus) * scale).softmax(-1)
        att_bus = torch.einsum("bnhtu,bunhd->btnhd", time, v_ceus)
        space = (torch.einsum("btnhd,btmhd->bthnm", q_ceus, k_bus) * scale).softmax(-1)
        att_ceus = torch.einsum("bthnm,btmhd->btnhd", space, v_bus)
        return self.output_bus(att_bus.flatten(-2)), self.output_ceus(att_ceus.flatten(-2))

    def _heads(self, projected: Tensor) -> tuple[Tensor, ...]:
        return tuple(x.unflatten(-1, (self.heads, -1)) for x in projected.chunk(3, dim=-1))


class NaiveEncoder(nn.Module):
    """The same network on images in the default layout."""

    def __init__(self, ours: FrameEncoder) -> None:
        super().__init__()
        self.trunk, self.project = ours.trunk, ours.project

    def forward(self, clip: Tensor) -> Tensor:
        """Clip (B, 3, T, H', W') to features (B, T, H, W, D)."""
        batch, channels, frames, height, width = clip.shape
        images = clip.transpose(1, 2).reshape(batch * frames, channels, height, width)
        maps = self.project(self.trunk(images))
        return maps.reshape(batch, frames, *maps.shape[1:]).permute(0, 1, 3, 4, 2).contiguous()


class NaiveDecoder(MaskDecoder):
    """The same network on maps in the default layout."""

    def forward(self, features: Tensor, size: tuple[int, int]) -> Tensor:
        """Features (B, T, H, W, D) to mask logits (B, T, *size)."""
        images = features.flatten(0, 1).permute(0, 3, 1, 2).contiguous()
        logits: Tensor = self.logit(self.doublings(images))
        return logits.reshape(*features.shape[:2], *size)


def naive_model(ours: AsyCMST) -> AsyCMST:
    """A model with the weights of `ours` and naive parts in place of its own."""
    model = AsyCMST(ours.config)
    model.load_state_dict(ours.state_dict())
    for parameter in model.parameters():
        parameter.data = parameter.data.contiguous()
    model.encoders.bus = NaiveEncoder(model.encoders.bus)
    model.encoders.ceus = NaiveEncoder(model.encoders.ceus)
    assert model.mask_decoder is not None
    model.mask_decoder.__class__ = NaiveDecoder
    for layer in model.layers:
        for block in (layer.self_bus, layer.self_ceus):
            block.attention = NaiveSelfAttention(block.attention)
        layer.cross.attention = NaiveCrossAttention(layer.cross.attention)
    return model


def batch_of(config: AsyCMSTConfig, size: int) -> dict[str, Tensor]:
    """Clips as a loader gives them, and their labels."""
    shape = (size, 3, config.frames, *config.frame_size)
    return {
        "bus": torch.rand(shape),
        "ceus": torch.rand(shape),
        "mask": torch.rand(size, config.frames, *config.frame_size) > 0.9,
        "label": torch.arange(size) % 2,
    }


def step_of(model: AsyCMST, recipe: Recipe, batch: dict[str, Tensor]) -> Callable[[], Tensor]:
    """A training step: forward, loss, backward, optimiser."""
    optimizer, _ = build_optimizer(model.parameters(), recipe, total_steps=10**6)
    loss = AsyCMSTLoss(model.config)

    def step() -> Tensor:
        optimizer.zero_grad()
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
    steps = {
        "ours": step_of(ours, Recipe.paper(), batch),
        "naive": step_of(naive_model(ours), Recipe.paper(), batch),
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
        "ours_over_naive": round(medians["ours"] / medians["naive"], 3),
    }
    result["samples_per_second"] = round(args.batch / medians["ours"], 2)
    if args.cache:
        result["loaded_per_second"] = round(loaded_per_second(args.cache, args.batch), 1)
    print(json.dumps(result, indent=1))
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
