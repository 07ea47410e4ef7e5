"""What a grid of runs shows: how many are over, what is under way, and the time that is left."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

from asycmst.experiments.runner import End, Step
from asycmst.training.module import Progress as RunProgress


@contextmanager
def grid_display(console: Console, names: Sequence[str]) -> Iterator[Callable[[Step | End], None]]:
    """Yield what takes the messages of `run_tasks`.

    A terminal shows a bar for the grid and one for each run under way, anything else a line for
    each run that ends. Runs that this process did not do itself are counted, not named.

    Args:
        console: where it is shown.
        names: of the runs.
    """
    pace = _Pace(len(names))
    if not console.is_terminal:

        def tell(message: Step | End) -> None:
            if isinstance(message, End):
                pace.count(message)
                text = _end(message)
                if text:
                    _print(
                        console, f"{pace.done}/{len(names)}  {names[message.run]}  {text}, {pace}"
                    )

        yield tell
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TextColumn("{task.fields[figures]}"),
    )
    with Progress(*columns, console=console) as bars:
        grid = bars.add_task("all runs", total=len(names), figures="")
        running: dict[int, TaskID] = {}

        def show(message: Step | End) -> None:
            if isinstance(message, End):
                pace.count(message)
                if message.run in running:
                    bars.remove_task(running.pop(message.run))
                if message.reason is not None:
                    _print(console, f"{names[message.run]}  {_end(message)}")
                bars.update(grid, completed=pace.done, figures=str(pace))
                return
            if message.run not in running:
                running[message.run] = bars.add_task(names[message.run], total=None, figures="")
            bar, what = running[message.run], message.what
            if isinstance(what, str):
                bars.update(bar, figures=what)
            else:
                bars.update(
                    bar, total=what.total_steps, completed=what.step, figures=_figures(what)
                )

        yield show


class _Pace:
    """Time that is left, from the runs that ended here."""

    def __init__(self, runs: int) -> None:
        self.done = 0
        self._runs = runs
        self._start = time.monotonic()
        self._own = 0

    def count(self, end: End) -> None:
        self.done += 1
        self._own += end.seconds is not None

    def __str__(self) -> str:
        open_runs = self._runs - self.done
        if open_runs == 0:
            return "none left"
        if self._own == 0:
            return f"{open_runs} left"
        seconds = (time.monotonic() - self._start) / self._own * open_runs
        return f"left {timedelta(seconds=round(seconds))}"


def _end(end: End) -> str:
    if end.reason is not None:
        return f"failed: {end.reason}"
    return "" if end.seconds is None else f"{end.seconds:.1f} s"


def _figures(progress: RunProgress) -> str:
    auc = "" if progress.validation_auc is None else f"  val AUC {progress.validation_auc:.3f}"
    return f"epoch {progress.epoch}/{progress.epochs}  loss {progress.loss:.3f}{auc}"


def _print(console: Console, text: str) -> None:
    console.print(text, highlight=False, soft_wrap=True, markup=False)
