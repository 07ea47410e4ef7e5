"""A training run that shows where it stands."""

import os
import signal
import sys

from rich.console import Console

from asycmst.experiments.console import run_display
from asycmst.jobs import JobError
from asycmst.training.run import Ended, fit_run
from asycmst.training.run_folder import BEST, LAST
from asycmst.training.settings import FitSettings


def train_in_sight(settings: FitSettings, console: Console | None = None) -> Ended:
    """Train into `settings.run.out`; see :func:`asycmst.training.run.fit_run`.

    Args:
        settings: of the run.
        console: where progress goes; None is standard output. Of several processes only the
            first shows anything.

    Raises:
        JobError: the loss or the weights stopped being finite.
        KeyboardInterrupt: Ctrl-C ended the run, its state is saved.
        SystemExit: SIGTERM did, with status 143.
    """
    console = Console(highlight=False) if console is None else console
    if int(os.environ.get("RANK", os.environ.get("LOCAL_RANK", "0"))) > 0:
        console.quiet = True
    batch = settings.recipe.batch_size
    try:
        with run_display(console, [_name(settings)], samples_per_step=batch) as display:
            ended = fit_run(
                settings,
                report=lambda progress: display.show(0, progress),
                stage=lambda text: display.stage(0, text),
            )
    except FloatingPointError as error:
        raise JobError(f"{error}; {LAST} is the state before") from error
    out = settings.run.out
    assert out is not None
    if ended.signal is not None:
        _say(console, f"Stopped; {out / LAST} is saved. Go on: asycmst fit --resume {out}")
        if ended.signal == signal.SIGINT:
            raise KeyboardInterrupt
        sys.exit(128 + ended.signal)
    best = ended.best
    assert best is not None and best.validation_loss is not None
    assert best.validation_auc is not None and best.validation_accuracy is not None
    _say(
        console,
        f"Best epoch {best.epoch}: validation loss {best.validation_loss:.4f}, "
        f"AUC {best.validation_auc:.3f}, accuracy {best.validation_accuracy:.3f}.",
        str(out / BEST),
    )
    return ended


def _name(settings: FitSettings) -> str:
    return settings.run.out.name if settings.run.out is not None else "fit"


def _say(console: Console, *lines: str) -> None:
    for line in lines:
        console.print(line, soft_wrap=True, markup=False)
