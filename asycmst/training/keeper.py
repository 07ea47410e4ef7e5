"""What a run leaves on disk while it trains, and how it ends early."""

import signal
import time
from collections.abc import Mapping
from pathlib import Path
from types import FrameType
from typing import Any

from lightning.pytorch import Callback, Trainer
from torch.utils.tensorboard import SummaryWriter

from asycmst.training.batches import TrainingBatches
from asycmst.training.checkpoint import save_checkpoint
from asycmst.training.module import DiagnosisModule
from asycmst.training.run_folder import BEST, LAST, TENSORBOARD, write_log
from asycmst.training.settings import FitSettings
from asycmst.training.settings_file import to_plain
from asycmst.training.state import TrainingState, save_state

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopped(Exception):
    """A signal asked the run to end; its state is saved.

    Attributes:
        signal: its number.
    """

    def __init__(self, signal: int) -> None:
        super().__init__(f"stopped by signal {signal}")
        self.signal = signal


class Keeper(Callback):  # type: ignore[misc]  # Lightning is untyped here
    """Writes last.ckpt, best.ckpt, log.csv and TensorBoard events; restores a state.

    A signal (Ctrl-C, SIGTERM) ends the run after the step, or the validation, that is under way;
    a second Ctrl-C at once. Of several processes the first writes, and all end together.

    Args:
        folder: of the run.
        settings: of the run.
        batches: told which epoch comes next.
        facts: plain, for best.ckpt.
        state: what the run goes on from; None starts it.
    """

    def __init__(
        self,
        folder: Path,
        settings: FitSettings,
        batches: TrainingBatches,
        facts: Mapping[str, Any],
        state: TrainingState | None,
    ) -> None:
        self.folder = folder
        self.settings = settings
        self.batches = batches
        self.facts = dict(facts)
        self.state = state
        self._signal: int | None = None
        self._handlers: dict[int, Any] = {}
        self._saved = 0.0
        self._events: SummaryWriter | None = None

    def on_train_start(self, trainer: Trainer, module: DiagnosisModule) -> None:
        if self.state is not None:
            module.optimizers(use_pl_optimizer=False).load_state_dict(self.state.optimizer)
            module.scheduler.load_state_dict(self.state.scheduler)
            trainer.precision_plugin.load_state_dict(self.state.scaler)
            self.state = None
        # After Lightning's own handlers, which would end the process or the epoch.
        self._handlers = {number: signal.signal(number, self._note) for number in _SIGNALS}
        self._saved = time.monotonic()
        if trainer.is_global_zero:
            self._events = SummaryWriter(
                str(self.folder / TENSORBOARD), purge_step=module.step + 1 if module.step else None
            )

    def on_train_epoch_start(self, trainer: Trainer, module: DiagnosisModule) -> None:
        if module.steps_of_epoch == 0:
            self.batches.begin(module.epochs_done + 1)

    def on_train_batch_end(
        self, trainer: Trainer, module: DiagnosisModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self._events is not None:
            progress = module.progress(epoch_done=False)
            for name in ("loss", "diagnosis", "fss", "segmentation", "learning_rate"):
                self._events.add_scalar(f"train/{name}", getattr(progress, name), module.step)
        if module.steps_of_epoch == self.batches.steps:
            return  # validation follows, and a state in between would be neither here nor there
        stop = self._is_stopped(trainer)
        every = self.settings.run.save_steps
        is_due = time.monotonic() - self._saved >= 60 * self.settings.run.save_minutes
        if stop or is_due or (every is not None and module.step % every == 0):
            self._save(trainer, module)
        if stop:
            raise Stopped(self._signal or signal.SIGTERM)

    def on_validation_end(self, trainer: Trainer, module: DiagnosisModule) -> None:
        if trainer.is_global_zero:
            row = module.log_rows[-1]
            write_log(self.folder, module.log_rows)
            if self._events is not None:
                for name in ("loss", "auc", "accuracy"):
                    value = row[f"validation_{name}"]
                    self._events.add_scalar(f"validation/{name}", value, module.step)
                self._events.flush()
        self._save(trainer, module)
        if self._is_stopped(trainer) and not module.is_over:
            raise Stopped(self._signal or signal.SIGTERM)

    def teardown(self, trainer: Trainer, module: DiagnosisModule, stage: str) -> None:
        self._leave()

    def on_exception(
        self, trainer: Trainer, module: DiagnosisModule, exception: BaseException
    ) -> None:
        self._leave()

    def _leave(self) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers = {}
        if self._events is not None:
            self._events.close()
            self._events = None

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._signal = number
        if number == signal.SIGINT:
            signal.signal(number, signal.default_int_handler)

    def _is_stopped(self, trainer: Trainer) -> bool:
        mine = self._signal is not None
        if trainer.world_size == 1:
            return mine
        return bool(trainer.strategy.reduce_boolean_decision(mine, all=False))

    def _save(self, trainer: Trainer, module: DiagnosisModule) -> None:
        self._saved = time.monotonic()
        if not trainer.is_global_zero:
            return
        state = TrainingState(
            settings=to_plain(self.settings),
            counters=module.counters(),
            model=module.model.state_dict(),
            optimizer=module.optimizers(use_pl_optimizer=False).state_dict(),
            scheduler=module.scheduler.state_dict(),
            scaler=trainer.precision_plugin.state_dict(),
        )
        if not state.is_finite():
            raise FloatingPointError(module.not_finite("size of a weight", float("nan")))
        # The better of the two comes first: a run that ends in between repeats the epoch and
        # writes the same file again.
        if module.steps_of_epoch == 0 and module.improved:
            best = module.history[-1]
            save_checkpoint(
                self.folder / BEST,
                module.model,
                self.facts
                | {
                    "best_epoch": best.epoch,
                    "validation_loss": best.validation_loss,
                    "validation_auc": best.validation_auc,
                    "validation_accuracy": best.validation_accuracy,
                },
            )
        save_state(self.folder / LAST, state)
