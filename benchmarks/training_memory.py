"""Memory of a training step of the paper's model, on paper: what its tensors hold at the peak.

    python benchmarks/training_memory.py --batch 32

Forward, loss, backward and optimiser run on tensors that have a size and no values, and every
storage is followed from its making to its end. Weights, gradients and the optimiser's state are in
the figure. Workspaces of libraries, what an allocator leaves unused and the device's own context
are not: on a GPU keep a tenth free for them. Dropout is off, so that self-attention is the fused
one that keeps no weights, as on a GPU; its masks would add about 30 MB per sample.
"""

import argparse
import json
import weakref
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from asycmst import AsyCMST, AsyCMSTConfig, AsyCMSTOutput
from asycmst.training.optimizer import build_optimizer
from asycmst.training.recipe import Recipe


class Held(TorchDispatchMode):
    """Bytes of all storages that were made inside the block and still live, and their peak."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._known: set[int] = set()

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, Tensor):
                self.follow(leaf.untyped_storage())
        return out

    def follow(self, storage: torch.UntypedStorage) -> None:
        """Count a storage, once, until its end."""
        key, size = storage._cdata, storage.nbytes()
        if key not in self._known:
            self._known.add(key)
            self.now += size
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self._drop, key, size)

    def _drop(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.now -= size


def stand_in(output: AsyCMSTOutput, mask: Tensor) -> Tensor:
    """As large as the model's loss, whose choices need values: Dice of all frames, the rest."""
    assert output.mask_logits is not None and output.frame_scores is not None
    found = output.mask_logits.float().sigmoid()
    overlap = (2 * found * mask).sum((2, 3)) / (found.sum((2, 3)) + mask.sum((2, 3)) + 1)
    return output.logits.float().sum() + output.frame_scores.float().sum() - overlap.mean()


def peak_bytes(config: AsyCMSTConfig, batch: int, bfloat16: bool) -> dict[str, int]:
    """The peaks of a forward pass and of a whole step, everything included."""
    model = AsyCMST(replace(config, dropout=0.0))
    with FakeTensorMode() as sizes, Held() as held:
        for module in model.modules():
            for name, weight in module._parameters.items():
                if weight is not None:
                    setattr(module, name, nn.Parameter(sizes.from_tensor(weight)))
            for name, buffer in module._buffers.items():
                if buffer is not None:
                    setattr(module, name, sizes.from_tensor(buffer))
        for tensor in [*model.parameters(), *model.buffers()]:  # made by no operation
            held.follow(tensor.untyped_storage())
        optimizer, _ = build_optimizer(model.parameters(), Recipe.paper(), total_steps=10)
        frames = (batch, config.frames, *config.frame_size)
        bus, ceus = (torch.rand(batch, 3, *frames[1:]) for _ in range(2))
        mask = torch.ones(frames, dtype=torch.bool)
        found = {}
        for step in ("first", "second"):  # the second has the optimiser's state from the start
            held.peak = held.now
            with torch.autocast("cpu", torch.bfloat16) if bfloat16 else nullcontext():
                total = stand_in(model(bus, ceus), mask)
            found[f"{step} step, forward"] = held.peak
            total.backward()
            del total
            optimizer.step()
            optimizer.zero_grad()
            found[f"{step} step"] = held.peak
            state = [x for values in optimizer.state.values() for x in values.values()]
            left = [*model.parameters(), *model.buffers(), *state, bus, ceus, mask]
            assert held.now == sum(x.nbytes for x in left), "something is counted twice or leaks"
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description="memory of a training step, on paper")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 2, 8, 32])
    args = parser.parse_args()
    for bfloat16 in (False, True):
        for batch in args.batch:
            found = peak_bytes(AsyCMSTConfig.paper(), batch, bfloat16)
            gigabytes = {name: round(value / 1e9, 2) for name, value in found.items()}
            precision = "bf16-mixed" if bfloat16 else "32-true"
            print(json.dumps({"precision": precision, "batch": batch, "GB": gigabytes}))


if __name__ == "__main__":
    main()
