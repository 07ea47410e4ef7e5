"""A training run in a folder of its own, which goes on where an earlier one stopped."""

import multiprocessing
import os
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from lightning.pytorch import Trainer
from torch import nn
from torch.utils.data import DataLoader

from asycmst import info
from asycmst.config import AsyCMSTConfig
from asycmst.data.samples import Item
from asycmst.encoders import FrameEncoder, load_imagenet_weights
from asycmst.heads import MaskDecoder
from asycmst.training.batches import TrainingBatches, ValidationBatches
from asycmst.training.data import TrainingData, open_data
from asycmst.training.draws import Draws
from asycmst.training.fit import quiet_lightning
from asycmst.training.keeper import Keeper, Stopped
from asycmst.training.module import DiagnosisModule, Progress, Report
from asycmst.training.networks import build, name_of, network_of
from asycmst.training.run_folder import (
    LAST,
    check,
    claim,
    first_difference,
    record_start,
    same_networks,
)
from asycmst.training.settings import FitSettings
from asycmst.training.settings_file import change
from asycmst.training.start import start_at_base_rate
from asycmst.training.state import TrainingState, load_state


class Ended(NamedTuple):
    """How a run ended.

    Attributes:
        best: the best epoch; None when the run was stopped before its first validation.
        signal: the number of the signal that stopped it; None when it is finished.
    """

    best: Progress | None
    signal: int | None


def fit_run(
    settings: FitSettings, *, report: Report, stage: Callable[[str], None] = lambda text: None
) -> Ended:
    """Train in `settings.run.out`, from the beginning or from the last.ckpt that is there.

    On a CPU with the same number of threads a run that was ended and taken up again, by a signal
    or by a crash, gives the weights of one that was not, bit for bit.

    Args:
        settings: of the run.
        report: called after every training step and after every validation, by every process.
        stage: called with a few words about what has no steps.

    Raises:
        ValueError: the settings, the data and the folder do not fit together.
        OSError: a file cannot be read or written.
        FloatingPointError: a loss or weight is not finite; last.ckpt is of an earlier step.
        KeyboardInterrupt: a second Ctrl-C came while the first was being obeyed.
    """
    folder = settings.run.out
    if folder is None:
        raise ValueError("a run needs a folder; give --out FOLDER")
    state = _earlier_state(folder, settings)
    data = open_data(settings.data, settings.model, stage)
    _check_classes(settings, data)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(settings.run.threads or threads)
        with torch.random.fork_rng(), quiet_lightning():
            return _train(folder, settings, data, state, report)
    finally:
        torch.set_num_threads(threads)


def _train(
    folder: Path,
    settings: FitSettings,
    data: TrainingData,
    state: TrainingState | None,
    report: Report,
) -> Ended:
    recipe = settings.recipe
    done = 0 if state is None else state.counters["epochs_done"]
    trainer = Trainer(
        **_machine(settings),
        max_epochs=max(1, recipe.epochs - done),
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    process, processes = trainer.global_rank, trainer.world_size
    draws = Draws(settings.run.seed)
    batches = TrainingBatches(len(data.train), recipe.batch_size, draws, process, processes)
    _check_parts(settings, batches.batch_size, processes)
    held_out = ValidationBatches(
        len(data.validation), recipe.batch_size // recipe.accumulate, process, processes
    )
    torch.manual_seed(settings.run.seed)
    model = _untrained(settings, data) if state is None else build(settings.model)
    module = DiagnosisModule(
        model,
        network_of(settings.model).objective(settings.model, recipe),
        recipe,
        total_steps=recipe.epochs * batches.steps,
        report=report,
        draws=draws,
    )
    module.validation_batches = held_out.real
    if state is not None:
        model.load_state_dict(state.model)
        module.count_on(state.counters)
        if module.is_over:
            return Ended(module.best, None)
        batches.begin(module.epochs_done + 1, module.steps_of_epoch)
    if trainer.is_global_zero:
        claim(folder, settings)
        record_start(folder, settings, module.step, data.facts())
    facts = data.facts() | {"seed": settings.run.seed, "version": info.version()}
    trainer.callbacks.append(Keeper(folder, settings, batches, facts, state))
    on_interrupt = signal.getsignal(signal.SIGINT)
    try:
        trainer.fit(
            module,
            _loader(data.train, batches, settings),
            _loader(data.validation, held_out, settings),
        )
    except Stopped as stopped:
        return Ended(module.best, stopped.signal)
    except SystemExit:
        # Lightning answers a second Ctrl-C by exiting; whether to exit is the caller's business.
        if not trainer.interrupted:
            raise
        signal.signal(signal.SIGINT, on_interrupt)
        raise KeyboardInterrupt from None
    return Ended(module.best, None)


def _earlier_state(folder: Path, settings: FitSettings) -> TrainingState | None:
    if int(os.environ.get("RANK", os.environ.get("LOCAL_RANK", "0"))) == 0:
        goes_on = check(folder, settings)
    else:
        goes_on = (folder / LAST).is_file()
    if not goes_on:
        return None
    state = load_state(folder / LAST)
    stored = change(FitSettings(), state.settings, same_networks(settings))
    difference = first_difference(stored, settings)
    if difference is not None:
        raise ValueError(
            f"{folder / LAST} is of a run with {difference}; it belongs to another folder"
        )
    return state


def _untrained(settings: FitSettings, data: TrainingData) -> nn.Module:
    model = build(settings.model)
    parts = list(model.modules())
    if settings.model.learns_masks and data.train.nodule_share() > 0:
        for decoder in (part for part in parts if isinstance(part, MaskDecoder)):
            start_at_base_rate(decoder, data.train)
    weights = settings.run.imagenet_weights
    if weights is not None:
        encoders = [part for part in parts if isinstance(part, FrameEncoder)]
        if not encoders:
            raise ValueError(
                f"the network {name_of(settings.model)} has no ResNet-18 over frames that "
                "run.imagenet_weights could start; set run.imagenet_weights=null"
            )
        for encoder in encoders:
            load_imagenet_weights(encoder, weights)
    return model


def _check_classes(settings: FitSettings, data: TrainingData) -> None:
    if settings.recipe.monitor == "auc" and len(set(data.validation.labels().tolist())) < 2:
        raise ValueError(
            "recipe.monitor=auc needs both classes among the validation samples, there is one; "
            "use recipe.monitor=loss or another split"
        )


def _check_parts(settings: FitSettings, batch_size: int, processes: int) -> None:
    parts = settings.recipe.accumulate
    if batch_size // processes % parts:
        raise ValueError(
            f"the {batch_size // processes} samples of a process make no "
            f"recipe.accumulate={parts} equal parts; change recipe.batch_size"
        )
    model = settings.model
    if (
        parts * processes > 1
        and isinstance(model, AsyCMSTConfig)
        and model.segments_nodule
        and model.dice_scope == "batch"
    ):
        raise ValueError(
            f"model.dice_scope=batch sums over a batch that is computed in {parts * processes} "
            "parts; use frame or sample, or one process and recipe.accumulate=1"
        )


def _machine(settings: FitSettings) -> Mapping[str, Any]:
    """What Lightning needs to know about processes and devices."""
    run = settings.run
    here, everywhere = os.environ.get("LOCAL_WORLD_SIZE"), os.environ.get("WORLD_SIZE")
    devices = run.devices or int(here or 1)
    nodes = run.num_nodes or int(everywhere or devices) // devices
    if everywhere is not None and devices * nodes != int(everywhere):
        raise ValueError(
            f"torchrun started {everywhere} processes, run.devices={devices} times "
            f"run.num_nodes={nodes} are {devices * nodes}; leave both out"
        )
    is_gpu = run.accelerator == "gpu" or (run.accelerator == "auto" and torch.cuda.is_available())
    if is_gpu and torch.cuda.device_count() < devices:
        raise ValueError(
            f"{devices} GPU(s) asked for, {torch.cuda.device_count()} here; change run.devices "
            "or run.accelerator"
        )
    if not is_gpu and (run.precision == "16-mixed" or run.sync_batchnorm):
        raise ValueError(
            "run.precision=16-mixed and run.sync_batchnorm need a GPU, there is none; use "
            "bf16-mixed or 32-true, and false"
        )
    return {
        "accelerator": run.accelerator,
        "devices": devices,
        "num_nodes": nodes,
        "strategy": "ddp" if devices * nodes > 1 else "auto",
        "precision": run.precision,
        "sync_batchnorm": run.sync_batchnorm,
    }


def _loader(
    dataset: Any, batches: TrainingBatches | ValidationBatches, settings: FitSettings
) -> DataLoader[Item]:
    workers = settings.data.workers
    if workers is None:
        workers = min(4, info.usable_cores() // 4)
    if multiprocessing.current_process().daemon:
        workers = 0  # one of several jobs: such a process may start no others
    return DataLoader(
        dataset,
        batch_sampler=batches,
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=torch.cuda.is_available(),
        worker_init_fn=_leave_signals_alone,
    )


def _leave_signals_alone(worker: int) -> None:
    """Ctrl-C reaches every process of a terminal; the run asks its workers to end itself."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
