"""The torch objects behind a recipe's numbers."""

import math
from collections.abc import Callable, Iterable

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR, OneCycleLR, ReduceLROnPlateau

from asycmst.training.recipe import Recipe

Scheduler = LambdaLR | OneCycleLR | ReduceLROnPlateau
"""All advance once per step, but ReduceLROnPlateau by each validation loss."""


def build_optimizer(
    parameters: Iterable[nn.Parameter], recipe: Recipe, total_steps: int
) -> tuple[torch.optim.Optimizer, Scheduler]:
    """The optimiser of `recipe` and its schedule.

    Args:
        parameters: what is trained.
        recipe: the numbers.
        total_steps: steps of the whole training.
    """
    optimizer = _optimizer(parameters, recipe)
    if recipe.schedule == "one_cycle":
        return optimizer, OneCycleLR(
            optimizer,
            max_lr=recipe.learning_rate,
            total_steps=total_steps,
            pct_start=recipe.warm_up,
            # The momentum of a recipe with "rmsprop" is a number of its own.
            cycle_momentum=recipe.optimizer == "adamw",
        )
    if recipe.schedule == "plateau":
        return optimizer, ReduceLROnPlateau(
            optimizer, factor=recipe.plateau_factor, patience=recipe.plateau_patience
        )
    return optimizer, LambdaLR(optimizer, _share_of_rate(recipe, total_steps))


def _optimizer(parameters: Iterable[nn.Parameter], recipe: Recipe) -> torch.optim.Optimizer:
    if recipe.optimizer == "rmsprop":
        return torch.optim.RMSprop(
            parameters,
            lr=recipe.learning_rate,
            momentum=recipe.momentum,
            weight_decay=recipe.weight_decay,
        )
    return torch.optim.AdamW(parameters, lr=recipe.learning_rate, weight_decay=recipe.weight_decay)


def _share_of_rate(recipe: Recipe, total_steps: int) -> Callable[[int], float]:
    rise = round(recipe.warm_up * total_steps)

    def share(step: int) -> float:
        if step < rise:
            return (step + 1) / (rise + 1)
        done = min(1.0, (step - rise) / max(1, total_steps - rise))
        if recipe.schedule == "cosine":
            return (1 + math.cos(math.pi * done)) / 2
        power: float = (1 - done) ** recipe.poly_power
        return power

    return share
