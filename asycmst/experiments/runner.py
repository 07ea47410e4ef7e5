"""Train and test what a grid asks for, alone or beside other processes in the same folder."""

import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from asycmst.analysis.evaluate import check_unseen
from asycmst.analysis.predict_dataset import predict_dataset
from asycmst.data.cache import read_cache
from asycmst.data.splits import patients, read_split
from asycmst.experiments.claims import Claim, Claims
from asycmst.experiments.grid import HeldOut, Task
from asycmst.experiments.records import (
    Failed,
    is_finite,
    is_settled,
    outcome,
    record_failed,
    record_tested,
    record_trained,
    seconds_trained,
)
from asycmst.jobs import run_jobs
from asycmst.training.checkpoint import load_checkpoint
from asycmst.training.module import Progress
from asycmst.training.run import fit_run
from asycmst.training.run_folder import BEST, follow_data

_LOOK_AGAIN_S = 2.0


class Step(NamedTuple):
    """A run moved on: its number, and how far it is or what it does."""

    run: int
    what: Progress | str


class End(NamedTuple):
    """A run is over.

    Attributes:
        run: its number.
        seconds: that this process spent on it; None where another one did it, or did it before.
        reason: why it failed; None where it did not.
        repairable: whether a person can do something about it; then it was not recorded.
    """

    run: int
    seconds: float | None
    reason: str | None = None
    repairable: bool = False


Send = Callable[[Step | End], None]


class _Lost(Exception):
    """Another process took over the run."""


def run_tasks(tasks: Sequence[Task], jobs: int, send: Send) -> None:
    """Settle every task; runs that are settled on disk are not repeated.

    Args:
        tasks: numbered as given.
        jobs: processes side by side; 1 is this process.
        send: hears of every step and, once per run, of its end.

    Raises:
        JobError: a process of several died.
        KeyboardInterrupt: Ctrl-C; what is under way can be resumed.
        SystemExit: SIGTERM, with status 143.
    """
    ended: set[int] = set()

    def tell(message: Step | End) -> None:
        if message.run in ended:
            return
        if isinstance(message, End):
            ended.add(message.run)
        send(message)

    if jobs == 1:
        work_through(tasks, tell)
        return
    run_jobs(
        work_through,
        [list(tasks)] * jobs,
        processes=jobs,
        threads=1,
        on_message=lambda worker, message: tell(message),
        on_result=lambda worker, nothing: None,
    )


def work_through(tasks: Sequence[Task], send: Send) -> None:
    """Settle tasks one after another, leaving out those that another process is at.

    Returns when all are settled, by whomever.
    """
    claims = Claims()
    pending = dict(enumerate(tasks))
    while pending:
        before = len(pending)
        for number, task in list(pending.items()):
            end = _settled(number, task)
            if end is None:
                with claims.holding(task.folder) as claim:
                    if claim is not None:
                        # Another process may have finished it in between.
                        end = _settled(number, task) or _settle(number, task, claim, send)
            if end is not None:
                del pending[number]
                send(end)
        if len(pending) == before:
            time.sleep(_LOOK_AGAIN_S)


def _settled(number: int, task: Task) -> End | None:
    if not is_settled(task):
        return None
    try:
        found = [outcome(task.folder, key) for key in task.tests]
    except ValueError as error:
        return End(number, None, str(error), repairable=True)
    reasons = [one.reason for one in found if isinstance(one, Failed)]
    return End(number, None, next(iter(reasons), None))


def _settle(number: int, task: Task, claim: Claim, send: Send) -> End | None:
    """Train and test; None where another process took over."""
    start = time.perf_counter()

    def tell(what: Progress | str) -> None:
        if claim.is_lost:
            raise _Lost
        send(Step(number, what))

    try:
        reason = _train(task, tell)
        if reason is None:
            reason = _test(task, tell)
        else:
            record_failed(task.folder, reason)
    except _Lost:
        return None
    except (ValueError, OSError) as error:
        return End(number, time.perf_counter() - start, str(error), repairable=True)
    except RuntimeError as error:  # such as too little memory, which spares smaller models
        return End(number, time.perf_counter() - start, _one_line(error), repairable=True)
    return End(number, time.perf_counter() - start, reason)


def _one_line(error: RuntimeError) -> str:
    """PyTorch's own go on for lines."""
    return f"{type(error).__name__}: {next(iter(str(error).splitlines()), 'no reason given')}"


def _train(task: Task, tell: Callable[[Progress | str], None]) -> str | None:
    """Bring the training to its end; returns why it failed."""
    if seconds_trained(task.folder) is not None:
        return None
    start = time.perf_counter()
    tell("starting")
    follow_data(task.folder, task.settings)  # its name says that they are the same
    try:
        ended = fit_run(task.settings, report=tell, stage=tell)
    except FloatingPointError as error:
        return str(error)
    if ended.signal == signal.SIGINT:
        raise KeyboardInterrupt
    if ended.signal is not None:
        sys.exit(128 + ended.signal)
    record_trained(task.folder, time.perf_counter() - start)
    return None


def _test(task: Task, tell: Callable[[Progress | str], None]) -> str | None:
    """Put the best epoch to the tests that are open; returns why one of them failed."""
    checkpoint = task.folder / BEST
    model, meta = load_checkpoint(checkpoint)
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    reason = None
    for key, test in task.tests.items():
        if outcome(task.folder, key) is not None:
            continue
        tell("testing")
        if test.cache is not None and test.cache == task.settings.data.cache:
            _check_unseen(checkpoint, meta, test)
        dataset, owners = test.open(task.settings.model.segmented_modality)
        answers = predict_dataset(model, dataset, report=lambda done: tell("testing"))
        if not is_finite(answers):
            reason = f"the best epoch answers NaN on {test.name}"
            record_failed(task.folder, reason, key)
            continue
        record_tested(
            task.folder,
            test,
            answers,
            owners,
            parameters=sum(weight.numel() for weight in model.parameters()),
            best_epoch=int(meta["best_epoch"]),
        )
    return reason


def _check_unseen(checkpoint: Path, meta: Mapping[str, object], test: HeldOut) -> None:
    assert test.cache is not None and test.splits is not None
    cases = read_cache(test.cache).cases
    owner = dict(zip((case.id for case in cases), patients(cases), strict=True))
    check_unseen(checkpoint, meta, read_split(test.splits, test.repeat + 1), owner)
