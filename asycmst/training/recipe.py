"""How a model is optimised, as numbers."""

import math
from dataclasses import dataclass, field
from typing import Literal, get_args

from asycmst.training.affine import AffineAugmentation
from asycmst.training.augmentation import Augmentation
from asycmst.training.photometric import PhotometricAugmentation

Optimizer = Literal["rmsprop", "adamw"]
Schedule = Literal["cosine", "plateau", "poly", "one_cycle"]
Monitor = Literal["loss", "accuracy", "auc"]


@dataclass(frozen=True)
class Recipe:
    """Everything about the optimisation; the defaults are the paper's (Section 4.1.2).

    The paper gives optimiser, learning rate, batch size and "about 80-100 epochs with early
    stopping"; augmentation ranges are those of the authors' released code.

    Attributes:
        epochs: most passes over the training samples.
        batch_size: samples of one optimiser step, over all processes and parts together. What an
            epoch leaves over sits it out; every epoch has its own order.
        accumulate: parts that a step's samples are computed in, one after another, to save memory.
        optimizer: "rmsprop", or "adamw", whose weight decay is decoupled.
        learning_rate: the largest one.
        momentum: of "rmsprop".
        weight_decay: on every parameter.
        schedule: "cosine" to zero, step by step; "poly", (1 - done)^`poly_power`, likewise;
            "plateau", times `plateau_factor` after `plateau_patience` epochs in which the
            validation loss did not fall; "one_cycle", up to `learning_rate` and down again.
        warm_up: share of the training before the learning rate is at its height, in [0, 1). It
            rises linearly from zero; "one_cycle" has a rise of its own and needs one, "plateau"
            has none.
        poly_power: see `schedule`.
        plateau_factor: see `schedule`.
        plateau_patience: see `schedule`.
        gradient_clip: largest norm of the whole gradient; None leaves gradients alone.
        gradient_clip_value: largest size of a gradient's entries; None leaves them alone.
        class_weights: of benign and malignant in the diagnosis loss; None is equal weights.
        monitor: the validation figure that chooses the best epoch and ends the training.
        patience: epochs without an improvement of it after which training ends; None trains on.
        augmentation: how training clips move; None leaves them in place.
        photometric: how their values change; None leaves them as they are.

    Raises:
        ValueError: a number is out of range, or a name unknown.
    """

    epochs: int = 100
    batch_size: int = 32
    accumulate: int = 1
    optimizer: Optimizer = "rmsprop"
    learning_rate: float = 1e-3
    momentum: float = 0.9
    weight_decay: float = 1e-4
    schedule: Schedule = "cosine"
    warm_up: float = 0.0
    poly_power: float = 0.9
    plateau_factor: float = 0.5
    plateau_patience: int = 3
    gradient_clip: float | None = None
    gradient_clip_value: float | None = None
    class_weights: tuple[float, float] | None = None
    monitor: Monitor = "loss"
    patience: int | None = 10
    augmentation: AffineAugmentation | Augmentation | None = field(
        default_factory=AffineAugmentation
    )
    photometric: PhotometricAugmentation | None = field(default_factory=PhotometricAugmentation)

    def __post_init__(self) -> None:
        for name, allowed in _CHOICES.items():
            if getattr(self, name) not in allowed:
                raise ValueError(
                    f"{name}={getattr(self, name)!r} is not allowed; use one of "
                    f"{', '.join(map(repr, allowed))}"
                )
        for name in ("epochs", "batch_size", "accumulate"):
            self._check(name, getattr(self, name) >= 1, "1 or more")
        if self.batch_size % self.accumulate:
            raise ValueError(
                f"batch_size={self.batch_size} is no multiple of accumulate={self.accumulate}; "
                "change either"
            )
        self._check("learning_rate", 0 < self.learning_rate < math.inf, "> 0")
        self._check("momentum", 0 <= self.momentum < 1, "[0, 1)")
        self._check("weight_decay", 0 <= self.weight_decay < math.inf, ">= 0")
        if self.schedule == "one_cycle":
            self._check("warm_up", 0 < self.warm_up < 1, "(0, 1) with schedule 'one_cycle'")
        elif self.schedule == "plateau":
            self._check("warm_up", self.warm_up == 0, "0 with schedule 'plateau'")
        else:
            self._check("warm_up", 0 <= self.warm_up < 1, "[0, 1)")
        self._check("poly_power", 0 < self.poly_power < math.inf, "> 0")
        self._check("plateau_factor", 0 < self.plateau_factor < 1, "(0, 1)")
        self._check("plateau_patience", self.plateau_patience >= 0, "0 or more")
        for name in ("gradient_clip", "gradient_clip_value"):
            value = getattr(self, name)
            self._check(name, value is None or value > 0, "> 0, or None for no clip")
        self._check("patience", self.patience is None or self.patience >= 1, "1 or more, or None")
        weights = self.class_weights
        self._check("class_weights", weights is None or min(weights) > 0, "two weights > 0")

    def _check(self, name: str, is_right: bool, allowed: str) -> None:
        if not is_right:
            raise ValueError(f"{name}={getattr(self, name)} is not allowed; use {allowed}")

    @classmethod
    def paper(cls) -> "Recipe":
        """The paper's training; the same as `Recipe()`."""
        return cls()

    @classmethod
    def demo(cls) -> "Recipe":
        """AdamW under a one-cycle learning rate: a small model learns in a few epochs."""
        return cls(
            epochs=7,
            batch_size=16,
            optimizer="adamw",
            learning_rate=1.5e-3,
            weight_decay=1e-2,
            schedule="one_cycle",
            warm_up=0.1,
            gradient_clip=1.0,
            patience=None,
            augmentation=Augmentation(),
            photometric=None,
        )


_CHOICES: dict[str, tuple[str, ...]] = {
    "optimizer": get_args(Optimizer),
    "schedule": get_args(Schedule),
    "monitor": get_args(Monitor),
}
