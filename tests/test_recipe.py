"""The numbers of a training become the torch objects that the paper names."""

import math
from dataclasses import replace

import pytest
import torch
from torch.optim.lr_scheduler import ReduceLROnPlateau

from asycmst.training.affine import AffineAugmentation
from asycmst.training.augmentation import Augmentation
from asycmst.training.optimizer import build_optimizer
from asycmst.training.recipe import Recipe


def rates(recipe: Recipe, steps: int = 20) -> list[float]:
    """The learning rate of each step."""
    layer = torch.nn.Linear(1, 1)
    optimizer, schedule = build_optimizer(layer.parameters(), recipe, steps)
    found = []
    for _ in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        assert not isinstance(schedule, ReduceLROnPlateau)
        schedule.step()
    return found


def test_the_defaults_are_the_papers() -> None:
    """Section 4.1.2: RMSprop, 1e-3, weight decay 1e-4, momentum 0.9, batch 32, 80-100 epochs."""
    recipe = Recipe()
    assert recipe == Recipe.paper()
    optimizer, _ = build_optimizer(torch.nn.Linear(2, 1).parameters(), recipe, 10)
    assert isinstance(optimizer, torch.optim.RMSprop)
    group = optimizer.param_groups[0]
    assert (group["lr"], group["weight_decay"], group["momentum"]) == (1e-3, 1e-4, 0.9)
    assert (recipe.batch_size, recipe.epochs, recipe.patience) == (32, 100, 10)
    assert (recipe.monitor, recipe.schedule) == ("loss", "cosine")
    assert recipe.augmentation == AffineAugmentation(45.0, (0.8, 1.0), (0.8, 1.25))


def test_a_step_is_that_of_torchs_rmsprop() -> None:
    ours, theirs = torch.nn.Linear(3, 2), torch.nn.Linear(3, 2)
    theirs.load_state_dict(ours.state_dict())
    optimizer, _ = build_optimizer(ours.parameters(), Recipe(), 10)
    other = torch.optim.RMSprop(theirs.parameters(), lr=1e-3, weight_decay=1e-4, momentum=0.9)
    for _ in range(3):
        x = torch.rand(4, 3)
        for layer, stepper in ((ours, optimizer), (theirs, other)):
            stepper.zero_grad()
            layer(x).square().sum().backward()
            stepper.step()
    assert torch.equal(ours.weight, theirs.weight)


def test_cosine_and_poly_fall_from_the_first_step() -> None:
    for schedule in ("cosine", "poly"):
        found = rates(Recipe(schedule=schedule))
        assert found[0] == 1e-3
        assert found == sorted(found, reverse=True)
        assert 0 < found[-1] < 1e-4
    middle = rates(Recipe(schedule="cosine"))[10]
    assert middle == pytest.approx(0.5e-3)
    assert rates(Recipe(schedule="poly", poly_power=2.0))[10] == pytest.approx(0.25e-3)


def test_warm_up_rises_linearly() -> None:
    found = rates(Recipe(warm_up=0.25))
    assert found[:6] == pytest.approx([1e-3 * k / 6 for k in range(1, 7)])
    assert found[5:] == sorted(found[5:], reverse=True)


def test_plateau_waits_for_its_patience() -> None:
    recipe = Recipe(schedule="plateau", plateau_factor=0.1, plateau_patience=2)
    optimizer, schedule = build_optimizer(torch.nn.Linear(1, 1).parameters(), recipe, 10)
    assert isinstance(schedule, ReduceLROnPlateau)
    found = []
    for loss in (1.0, 0.9, 0.9, 0.9, 0.9, 0.5):
        schedule.step(loss)
        found.append(optimizer.param_groups[0]["lr"])
    assert found == pytest.approx([1e-3] * 4 + [1e-4] * 2)


def test_the_demo_is_adamw_under_one_cycle() -> None:
    recipe = replace(Recipe.demo(), learning_rate=0.01, weight_decay=0.1)
    optimizer, _ = build_optimizer(torch.nn.Linear(1, 1).parameters(), recipe, total_steps=20)
    assert isinstance(optimizer, torch.optim.AdamW)
    assert optimizer.param_groups[0]["weight_decay"] == 0.1
    found = rates(recipe)
    assert max(found) == pytest.approx(0.01, rel=0.05)
    assert found[0] < 0.001 and found[-1] < 0.0001
    peak = found.index(max(found))
    assert peak == 1  # a tenth of the steps, counted from 0
    assert found[: peak + 1] == sorted(found[: peak + 1])
    assert found[peak:] == sorted(found[peak:], reverse=True)
    assert recipe.augmentation == Augmentation() and recipe.photometric is None


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"epochs": 0}, "epochs=0"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"accumulate": 0}, "accumulate=0"),
        ({"accumulate": 3}, "batch_size=32 is no multiple of accumulate=3"),
        ({"optimizer": "lion"}, "optimizer='lion' is not allowed; use one of 'rmsprop', 'adamw'"),
        ({"learning_rate": 0.0}, "learning_rate=0.0"),
        ({"learning_rate": math.nan}, "learning_rate=nan"),
        ({"momentum": 1.0}, "momentum=1.0"),
        ({"warm_up": 1.0}, "warm_up=1.0"),
        ({"warm_up": 0.0, "schedule": "one_cycle"}, "warm_up=0.0"),
        ({"warm_up": 0.1, "schedule": "plateau"}, "warm_up=0.1"),
        ({"weight_decay": -1.0}, "weight_decay=-1.0"),
        ({"poly_power": 0.0}, "poly_power=0.0"),
        ({"plateau_factor": 1.0}, "plateau_factor=1.0"),
        ({"plateau_patience": -1}, "plateau_patience=-1"),
        ({"gradient_clip": 0.0}, "gradient_clip=0.0"),
        ({"gradient_clip_value": 0.0}, "gradient_clip_value=0.0"),
        ({"class_weights": (1.0, 0.0)}, "class_weights="),
        ({"patience": 0}, "patience=0"),
    ],
    ids=lambda value: str(value) if isinstance(value, str) else "",
)
def test_a_wrong_recipe_is_refused(fields: dict[str, float], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Recipe(**fields)  # type: ignore[arg-type]
