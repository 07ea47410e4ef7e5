"""One training run as Lightning sees it: steps, validation figures and the best weights."""

import math
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, NamedTuple

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torch.optim.lr_scheduler import ReduceLROnPlateau
from torchmetrics import MeanMetric
from torchmetrics.classification import BinaryAUROC

from asycmst.data.samples import Item
from asycmst.model import AsyCMSTOutput
from asycmst.training.draws import Draws
from asycmst.training.optimizer import Scheduler, build_optimizer
from asycmst.training.parts import DividedLoss, loss_of_part, shares, split
from asycmst.training.recipe import Recipe


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
    validation_accuracy: float | None = None
    learning_rate: float = 0.0


Report = Callable[[Progress], None]


class DiagnosisModule(LightningModule):  # type: ignore[misc]  # Lightning is untyped here
    """Trains `model` by `loss` and knows its best epoch.

    It counts epochs and steps itself, so that a resumed run goes on counting where it stopped.

    Args:
        model: takes (bus, ceus) and returns an AsyCMSTOutput.
        loss: the objective.
        recipe: optimiser, schedule, augmentation and what is best.
        total_steps: training steps of the whole run.
        report: called after every training step and after every validation.
        draws: where random numbers come from; None is torch's global generator, one draw after
            another.
    """

    scheduler: Scheduler

    def __init__(
        self,
        model: nn.Module,
        loss: DividedLoss,
        recipe: Recipe,
        total_steps: int,
        report: Report,
        draws: Draws | None = None,
    ) -> None:
        super().__init__()
        # A step may be computed in parts, and the last word on its gradient comes after them.
        self.automatic_optimization = False
        self.model = model
        self.loss = loss
        self.recipe = recipe
        self.total_steps = total_steps
        self.report = report
        self.draws = draws
        self.validation_batches: int | None = None
        self.validation_loss = MeanMetric(nan_strategy="disable")
        self.validation_accuracy = MeanMetric(nan_strategy="disable")
        self.validation_auc = BinaryAUROC()
        self.epochs_done = 0
        self.step = 0
        self.history: list[Progress] = []
        self.best: Progress | None = None
        self.log_rows: list[dict[str, float]] = []
        self._losses = (0.0, 0.0, 0.0, 0.0)
        self._sums = [0.0] * 4
        self._steps = 0

    def training_step(self, batch: Item, batch_idx: int) -> None:
        batch = self._augmented(batch)
        optimizer = self.optimizers()
        optimizer.zero_grad()
        parts = split(batch, self.recipe.accumulate)
        factors = shares(self.loss, parts, self.trainer.world_size, self._over_processes)
        means = torch.zeros(4, device=self.device)
        for index, (part, factor) in enumerate(zip(parts, factors, strict=True)):
            output = self.model(part["bus"], part["ceus"])
            losses = loss_of_part(self.loss, output, part, factor)
            # The processes exchange gradients once, with those of the last part.
            last = index == len(parts) - 1
            alone = self.trainer.world_size == 1
            with nullcontext() if last or alone else self.trainer.strategy.block_backward_sync():
                self.manual_backward(losses.total / len(parts))
            means += torch.stack([loss.detach() for loss in losses]) / len(parts)
        if self.trainer.world_size > 1:
            means = self._over_processes(means) / self.trainer.world_size
        self._losses = (*means.tolist(),)
        if not math.isfinite(self._losses[0]):
            raise FloatingPointError(self.not_finite("training loss", self._losses[0]))
        self._sums = [x + y for x, y in zip(self._sums, self._losses, strict=True)]
        self._steps += 1
        self._clip(optimizer)
        optimizer.step()
        if not isinstance(self.scheduler, ReduceLROnPlateau):
            self.scheduler.step()
        self.step += 1

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.report(self.progress(epoch_done=False))

    def validation_step(self, batch: Item, batch_idx: int) -> None:
        if self.validation_batches is not None and batch_idx >= self.validation_batches:
            return  # the batch of another process, so that all of them make as many calls
        output: AsyCMSTOutput = self.model(batch["bus"], batch["ceus"])
        label = batch["label"]
        losses = self.loss(output, label, batch["mask"], batch["mask_valid"], bus=batch["bus"])
        self.validation_loss.update(losses.total, weight=len(label))
        self.validation_accuracy.update(output.logits.argmax(dim=1) == label)
        self.validation_auc.update(output.logits.softmax(dim=1)[:, 1], label)

    def on_validation_epoch_end(self) -> None:
        figures = self.validation_loss, self.validation_auc, self.validation_accuracy
        loss, auc, accuracy = (float(figure.compute()) for figure in figures)
        for figure in figures:
            figure.reset()
        if not math.isfinite(loss):
            raise FloatingPointError(self.not_finite("validation loss", loss))
        self.epochs_done += 1
        if isinstance(self.scheduler, ReduceLROnPlateau):
            self.scheduler.step(loss)
        progress = self.progress(epoch_done=True)._replace(
            validation_loss=loss, validation_auc=auc, validation_accuracy=accuracy
        )
        self.history.append(progress)
        if self.best is None or self._merit(progress) > self._merit(self.best):
            self.best = progress
        self.log_rows.append(self._log_row(progress))
        self._sums, self._steps = [0.0] * 4, 0
        if self.is_over:
            self.trainer.should_stop = True
        self.report(progress)

    @property
    def improved(self) -> bool:
        """Whether the latest epoch is the best so far."""
        return bool(self.history) and self.best is self.history[-1]

    @property
    def steps_of_epoch(self) -> int:
        """Steps since the latest validation."""
        return self._steps

    def counters(self) -> dict[str, Any]:
        """Everything that is counted, as plain types."""
        return {
            "epochs_done": self.epochs_done,
            "step": self.step,
            "steps_of_epoch": self._steps,
            "sums": self._sums,
            "losses": list(self._losses),
            "history": [list(progress) for progress in self.history],
            "best_epoch": None if self.best is None else self.best.epoch,
            "log_rows": self.log_rows,
        }

    def count_on(self, counters: dict[str, Any]) -> None:
        """Take up the counters of an earlier part of the run."""
        self.epochs_done, self.step = counters["epochs_done"], counters["step"]
        self._steps, self._sums = counters["steps_of_epoch"], counters["sums"]
        self._losses = (*counters["losses"],)
        self.history = [Progress(*fields) for fields in counters["history"]]
        best = counters["best_epoch"]
        self.best = None if best is None else self.history[best - 1]
        self.log_rows = counters["log_rows"]

    @property
    def is_over(self) -> bool:
        """Whether the epochs are used up, or the patience with epochs that improve nothing."""
        if self.epochs_done >= self.recipe.epochs:
            return True
        if self.recipe.patience is None or self.best is None:
            return False
        return self.epochs_done - self.best.epoch >= self.recipe.patience

    def configure_optimizers(self) -> torch.optim.Optimizer:
        optimizer, self.scheduler = build_optimizer(
            self.model.parameters(), self.recipe, self.total_steps
        )
        return optimizer

    def progress(self, epoch_done: bool) -> Progress:
        """Where the run stands."""
        latest = self.history[-1] if self.history else None
        return Progress(
            epoch=self.epochs_done + (not epoch_done),
            epochs=self.recipe.epochs,
            step=self.step,
            total_steps=self.total_steps,
            loss=self._losses[0],
            diagnosis=self._losses[1],
            fss=self._losses[2],
            segmentation=self._losses[3],
            validation_loss=None if latest is None else latest.validation_loss,
            validation_auc=None if latest is None else latest.validation_auc,
            epoch_done=epoch_done,
            validation_accuracy=None if latest is None else latest.validation_accuracy,
            learning_rate=self.optimizers().param_groups[0]["lr"],
        )

    def _log_row(self, progress: Progress) -> dict[str, float]:
        """The epoch's figures; training losses are means over its steps."""
        names = ("loss", "diagnosis", "fss", "segmentation")
        losses = {n: x / max(1, self._steps) for n, x in zip(names, self._sums, strict=True)}
        assert progress.validation_loss is not None
        assert progress.validation_auc is not None and progress.validation_accuracy is not None
        return {
            "epoch": progress.epoch,
            "step": progress.step,
            "learning_rate": progress.learning_rate,
            **losses,
            "validation_loss": progress.validation_loss,
            "validation_auc": progress.validation_auc,
            "validation_accuracy": progress.validation_accuracy,
        }

    def _augmented(self, batch: Item) -> Item:
        epoch, ids = self.epochs_done + 1, batch["id"]
        if self.draws is not None:
            self.draws.seed_step(self.step, self.global_rank)
        for change, purpose in (
            (self.recipe.photometric, "photometric"),
            (self.recipe.augmentation, "augmentation"),
        ):
            if change is not None:
                draws = self.draws
                batch = change(
                    batch, None if draws is None else draws.of_samples(purpose, epoch, ids)
                )
        return batch

    def _clip(self, optimizer: Any) -> None:
        recipe = self.recipe
        if recipe.gradient_clip is None and recipe.gradient_clip_value is None:
            return
        # Gradients of float16 training come scaled; both limits are meant for the true ones.
        scaler = getattr(self.trainer.precision_plugin, "scaler", None)
        if scaler is not None:
            scaler.unscale_(optimizer.optimizer)
        if recipe.gradient_clip_value is not None:
            self.clip_gradients(optimizer, recipe.gradient_clip_value, "value")
        if recipe.gradient_clip is not None:
            self.clip_gradients(optimizer, recipe.gradient_clip, "norm")

    def _over_processes(self, values: Tensor) -> Tensor:
        """The sum over all processes."""
        return self.trainer.strategy.reduce(values, reduce_op="sum")  # type: ignore[no-any-return]

    def _merit(self, progress: Progress) -> float:
        assert progress.validation_loss is not None
        merits = {
            "loss": -progress.validation_loss,
            "accuracy": progress.validation_accuracy,
            "auc": progress.validation_auc,
        }
        merit = merits[self.recipe.monitor]
        assert merit is not None
        return merit

    def not_finite(self, what: str, value: float) -> str:
        """One line about a value that ends the run."""
        return (
            f"the {what} is {value} in epoch {self.epochs_done + 1}, step {self.step + 1} of "
            f"{self.total_steps}; lower learning_rate={self.recipe.learning_rate:g} or set "
            "gradient_clip"
        )
