"""Train a model on samples; the same seed gives the same weights, bit for bit."""

import logging
import signal
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Generic, NamedTuple, TypeVar

import torch
from lightning.pytorch import Callback, Trainer
from torch import nn
from torch.utils.data import DataLoader, Dataset

from asycmst.data.samples import Item
from asycmst.training.module import DiagnosisModule, Progress, Report
from asycmst.training.parts import DividedLoss
from asycmst.training.recipe import Recipe

Model = TypeVar("Model", bound=nn.Module)


class Fitted(NamedTuple, Generic[Model]):
    """A finished run: the model holds the weights of its best epoch and is in evaluation mode."""

    model: Model
    best_epoch: int
    validation_loss: float
    validation_auc: float
    history: list[Progress]
    seconds: float


def fit(
    build: Callable[[], Model],
    loss: DividedLoss,
    train: Dataset[Item],
    validation: Dataset[Item],
    recipe: Recipe,
    *,
    seed: int,
    report: Report,
) -> Fitted[Model]:
    """Train on the CPU and return the weights of the best epoch.

    Random numbers are drawn one after another, as the recorded studies drew them; a run that can
    be resumed is `asycmst.training.run.fit_run`.

    Args:
        build: makes the model; called after the random generators were seeded, so its initial
            weights depend on `seed`.
        loss: the objective, also the figure that chooses the epoch unless the recipe
            names another.
        train: training samples, shuffled anew each epoch.
        validation: samples that choose the epoch, never trained on.
        recipe: optimiser, schedule, batch size and epochs.
        seed: of initial weights, shuffling and dropout. The caller's generators are restored.
        report: called after every step and after every epoch's validation.

    Raises:
        KeyboardInterrupt: the run was interrupted.
        FloatingPointError: a loss is not finite.
    """
    start = time.perf_counter()
    with torch.random.fork_rng(devices=[]), quiet_lightning():
        torch.manual_seed(seed)
        model = build()
        order = torch.Generator().manual_seed(seed)
        batches = DataLoader(train, recipe.batch_size, shuffle=True, generator=order)
        module = DiagnosisModule(
            model, loss, recipe, total_steps=recipe.epochs * len(batches), report=report
        )
        trainer = Trainer(
            accelerator="cpu",
            devices=1,
            max_epochs=recipe.epochs,
            num_sanity_val_steps=0,
            logger=False,
            callbacks=[best_weights := BestWeights()],
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        on_interrupt = signal.getsignal(signal.SIGINT)
        try:
            trainer.fit(module, batches, DataLoader(validation, recipe.batch_size))
        except SystemExit:
            # Lightning answers Ctrl-C by ignoring further ones and exiting the process; whether
            # to exit is the caller's business.
            if not trainer.interrupted:
                raise
            signal.signal(signal.SIGINT, on_interrupt)
            raise KeyboardInterrupt from None
    best = module.best
    assert best is not None and best.validation_loss is not None
    assert best.validation_auc is not None
    model.load_state_dict(best_weights.state_dict_of_best)
    return Fitted(
        model=model.eval(),
        best_epoch=best.epoch,
        validation_loss=best.validation_loss,
        validation_auc=best.validation_auc,
        history=module.history,
        seconds=time.perf_counter() - start,
    )


class BestWeights(Callback):  # type: ignore[misc]  # Lightning is untyped here
    """Keeps a copy of the weights of the best epoch."""

    def __init__(self) -> None:
        self.state_dict_of_best: dict[str, torch.Tensor] = {}

    def on_validation_end(self, trainer: Trainer, module: DiagnosisModule) -> None:
        if module.improved:
            weights = module.model.state_dict()
            self.state_dict_of_best = {key: value.clone() for key, value in weights.items()}


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Keep Lightning's banners and advice off the terminal; errors pass."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            # Samples are in memory: loading them needs no worker processes.
            warnings.filterwarnings("ignore", message=".*does not have many workers.*")
            warnings.filterwarnings("ignore", message=".*LeafSpec.*is deprecated.*")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
