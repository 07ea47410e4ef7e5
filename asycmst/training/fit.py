"""Train a model on samples; the same seed gives the same weights, bit for bit."""

import logging
import math
import signal
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Generic, NamedTuple, TypeVar

import torch
from lightning.pytorch import Trainer
from torch import nn
from torch.utils.data import DataLoader, Dataset

from asycmst.data.samples import Item
from asycmst.training.module import DiagnosisModule, LossFunction, Progress, Report
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
    loss: LossFunction,
    train: Dataset[Item],
    validation: Dataset[Item],
    recipe: Recipe,
    *,
    seed: int,
    report: Report,
) -> Fitted[Model]:
    """Train on the CPU and return the weights of the lowest validation loss.

    Args:
        build: makes the model; called after the random generators were seeded, so its initial
            weights depend on `seed`.
        loss: the objective, also the figure that chooses the epoch.
        train: training samples, shuffled anew each epoch.
        validation: samples that choose the epoch, never trained on.
        recipe: optimiser, schedule, batch size and epochs.
        seed: of initial weights, shuffling and dropout. The caller's generators are restored.
        report: called after every step and after every epoch's validation.

    Raises:
        KeyboardInterrupt: the run was interrupted.
        FloatingPointError: the validation loss was never finite.
    """
    start = time.perf_counter()
    with torch.random.fork_rng(devices=[]), _quiet_lightning():
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
            gradient_clip_val=recipe.gradient_clip,
            num_sanity_val_steps=0,
            logger=False,
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
    if not math.isfinite(module.best_loss):
        raise FloatingPointError(
            f"the validation loss was not finite in any of {recipe.epochs} epochs; "
            f"lower learning_rate={recipe.learning_rate} or set gradient_clip"
        )
    model.load_state_dict(module.best_weights)
    return Fitted(
        model=model.eval(),
        best_epoch=module.best_epoch,
        validation_loss=module.best_loss,
        validation_auc=module.best_auc,
        history=module.history,
        seconds=time.perf_counter() - start,
    )


@contextmanager
def _quiet_lightning() -> Iterator[None]:
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
