"""One training run as Lightning sees it: steps, validation figures and the best weights."""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import torch
from lightning.pytorch import LightningModule
from torch import nn
from torchmetrics import MeanMetric
from torchmetrics.classification import BinaryAUROC

from asycmst.data.samples import Item
from asycmst.losses import AsyCMSTLosses
from asycmst.model import AsyCMSTOutput
from asycmst.training.recipe import Recipe, build_optimizer


class LossFunction(Protocol):
    """What a run minimises; AsyCMSTLoss is one."""

    def __call__(
        self,
        output: AsyCMSTOutput,
        label: torch.Tensor,
        mask: torch.Tensor | None = None,
        mask_valid: torch.Tensor | None = None,
    ) -> AsyCMSTLosses: ...


class Progress(NamedTuple):
    """Where a run stands after a training step or after an epoch's validation.

    Losses are those of the latest training step. The validation figures are those of the latest
    validation, None before the first.
    """

    epoch: int
    epochs: int
    step: int
    total_steps: int
    loss: float
    diagnosis: float
    fss: float
    segmentation: float
    validation_loss: float | None
    validation_auc: float | None
    epoch_done: bool


Report = Callable[[Progress], None]


class DiagnosisModule(LightningModule):  # type: ignore[misc]  # Lightning is untyped here
    """Trains `model` by `loss`, keeps the weights of the lowest validation loss.

    Args:
        model: takes (bus, ceus) and returns an AsyCMSTOutput.
        loss: the objective.
        recipe: optimiser, schedule and augmentation.
        total_steps: training steps of the whole run.
        report: called after every training step and after every validation.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: LossFunction,
        recipe: Recipe,
        total_steps: int,
        report: Report,
    ) -> None:
        super().__init__()
        self.model = model
        self.loss = loss
        self.recipe = recipe
        self.total_steps = total_steps
        self.report = report
        self.validation_loss = MeanMetric(nan_strategy="disable")
        self.validation_auc = BinaryAUROC()
        self.history: list[Progress] = []
        self.best_loss = float("inf")
        self.best_auc = 0.0
        self.best_epoch = 0
        self.best_weights: dict[str, torch.Tensor] = {}
        self._losses = (0.0, 0.0, 0.0, 0.0)
        self._validated: tuple[float, float] | None = None

    def training_step(self, batch: Item, batch_idx: int) -> torch.Tensor:
        if self.recipe.augmentation is not None:
            batch = self.recipe.augmentation(batch)
        losses: AsyCMSTLosses = self.loss(
            self.model(batch["bus"], batch["ceus"]),
            batch["label"],
            batch["mask"],
            batch["mask_valid"],
        )
        self._losses = (
            float(losses.total.detach()),
            float(losses.diagnosis.detach()),
            float(losses.fss.detach()),
            float(losses.segmentation.detach()),
        )
        return losses.total

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.report(self._progress(epoch_done=False))

    def validation_step(self, batch: Item, batch_idx: int) -> None:
        output: AsyCMSTOutput = self.model(batch["bus"], batch["ceus"])
        label = batch["label"]
        self.validation_loss.update(
            self.loss(output, label, batch["mask"], batch["mask_valid"]).total, weight=len(label)
        )
        self.validation_auc.update(output.logits.softmax(dim=1)[:, 1], label)

    def on_validation_epoch_end(self) -> None:
        loss = float(self.validation_loss.compute())
        auc = float(self.validation_auc.compute())
        self._validated = (loss, auc)
        self.validation_loss.reset()
        self.validation_auc.reset()
        # A run whose loss was never finite still has weights to hand back.
        if loss < self.best_loss or not self.best_weights:
            self.best_loss, self.best_auc = loss, auc
            self.best_epoch = self.current_epoch + 1
            self.best_weights = {
                key: value.detach().clone() for key, value in self.model.state_dict().items()
            }
        progress = self._progress(epoch_done=True)
        self.history.append(progress)
        self.report(progress)

    def configure_optimizers(self) -> Any:
        optimizer, schedule = build_optimizer(
            self.model.parameters(), self.recipe, self.total_steps
        )
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }

    def _progress(self, epoch_done: bool) -> Progress:
        loss, auc = self._validated or (None, None)
        return Progress(
            epoch=self.current_epoch + 1,
            epochs=self.recipe.epochs,
            step=self.global_step,
            total_steps=self.total_steps,
            loss=self._losses[0],
            diagnosis=self._losses[1],
            fss=self._losses[2],
            segmentation=self._losses[3],
            validation_loss=loss,
            validation_auc=auc,
            epoch_done=epoch_done,
        )
