"""Random numbers that depend on their place in a run, not on what was drawn before.

A run that is resumed in the middle of an epoch, or divided over several processes, then draws
what an undivided one does.
"""

import hashlib
from collections.abc import Sequence

import torch


class Draws:
    """The random numbers of one run.

    Args:
        seed: of the run.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def order(self, epoch: int, size: int) -> list[int]:
        """A permutation of `size` samples for an epoch, counted from 1."""
        generator = torch.Generator().manual_seed(self._derive("order", epoch))
        return torch.randperm(size, generator=generator).tolist()

    def of_samples(self, purpose: str, epoch: int, ids: Sequence[str]) -> list[torch.Generator]:
        """A generator for each sample, alike on every device and in every batch."""
        return [torch.Generator().manual_seed(self._derive(purpose, epoch, name)) for name in ids]

    def seed_step(self, step: int, process: int) -> None:
        """Seed the global generators of this process, which dropout draws from."""
        torch.manual_seed(self._derive("step", step, process))

    def _derive(self, *place: object) -> int:
        text = "/".join(map(str, (self.seed, *place)))
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big", signed=True)
