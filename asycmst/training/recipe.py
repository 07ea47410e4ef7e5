"""How a model is optimised: numbers, and the functions that turn them into torch objects."""

from collections.abc import Iterable
from dataclasses import dataclass, field

import torch
from torch import nn
from torch.optim.lr_scheduler import OneCycleLR

from asycmst.training.augmentation import Augmentation


@dataclass(frozen=True)
class Recipe:
    """AdamW under a one-cycle learning rate, suited to small models trained for few epochs.

    Attributes:
        epochs: passes over the training samples.
        batch_size: samples per step; the last batch of an epoch may be smaller.
        learning_rate: the peak of the cycle.
        warm_up: share of the training before the peak, in (0, 1).
        weight_decay: decoupled, on every parameter.
        augmentation: of training clips; None leaves them as they are.
        gradient_clip: largest norm of the whole gradient; None leaves gradients alone.

    Raises:
        ValueError: a number is out of range.
    """

    epochs: int = 7
    batch_size: int = 16
    learning_rate: float = 1.5e-3
    warm_up: float = 0.1
    weight_decay: float = 1e-2
    augmentation: Augmentation | None = field(default_factory=Augmentation)
    gradient_clip: float | None = 1.0

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} is not allowed; use 1 or more")
        if not self.learning_rate > 0:
            raise ValueError(f"learning_rate={self.learning_rate} is not allowed; use > 0")
        if not 0 < self.warm_up < 1:
            raise ValueError(f"warm_up={self.warm_up} is not allowed; use (0, 1)")
        if not self.weight_decay >= 0:
            raise ValueError(f"weight_decay={self.weight_decay} is not allowed; use >= 0")
        if self.gradient_clip is not None and not self.gradient_clip > 0:
            raise ValueError(
                f"gradient_clip={self.gradient_clip} is not allowed; use > 0, or None for no clip"
            )


def build_optimizer(
    parameters: Iterable[nn.Parameter], recipe: Recipe, total_steps: int
) -> tuple[torch.optim.Optimizer, OneCycleLR]:
    """The optimiser of `recipe` and its schedule, which advances once per training step."""
    optimizer = torch.optim.AdamW(
        parameters, lr=recipe.learning_rate, weight_decay=recipe.weight_decay
    )
    schedule = OneCycleLR(
        optimizer,
        max_lr=recipe.learning_rate,
        total_steps=total_steps,
        pct_start=recipe.warm_up,
    )
    return optimizer, schedule
