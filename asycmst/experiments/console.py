"""What a long job shows: a live bar for each run on a terminal, plain lines elsewhere."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from asycmst.training.module import Progress as RunProgress


class RunDisplay:
    """Shows where several runs stand; a run is named by its index."""

    def show(self, run: int, message: RunProgress | str) -> None:
        """Whatever a run reports: a stage by its name, or its progress."""
        if isinstance(message, str):
            self.stage(run, message)
        else:
            self.progress(run, message)

    def stage(self, run: int, text: str) -> None:
        """The run now does something that has no steps."""
        raise NotImplementedError

    def progress(self, run: int, progress: RunProgress) -> None:
        """The run finished a training step, or an epoch's validation."""
        raise NotImplementedError

    def done(self, run: int) -> None:
        """The run is finished."""
        raise NotImplementedError


@contextmanager
def run_display(console: Console, names: Sequence[str]) -> Iterator[RunDisplay]:
    """A live display on a terminal, else one line for each epoch and stage."""
    if not console.is_terminal:
        yield _Lines(console, names)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=20),
        TextColumn("{task.fields[figures]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as bars:
        yield _Bars(bars, names)


class _Bars(RunDisplay):
    def __init__(self, bars: Progress, names: Sequence[str]) -> None:
        self._bars = bars
        width = max(map(len, names))
        self._tasks = [
            bars.add_task(name.ljust(width), total=None, figures="waiting") for name in names
        ]

    def stage(self, run: int, text: str) -> None:
        self._bars.update(self._tasks[run], figures=text)

    def progress(self, run: int, progress: RunProgress) -> None:
        self._bars.update(
            self._tasks[run],
            total=progress.total_steps,
            completed=progress.step,
            figures=_figures(progress),
        )

    def done(self, run: int) -> None:
        self._bars.update(self._tasks[run], figures="done")


class _Lines(RunDisplay):
    def __init__(self, console: Console, names: Sequence[str]) -> None:
        self._console = console
        width = max(map(len, names))
        self._names = [name.ljust(width) for name in names]
        self._first_step: dict[int, tuple[int, float]] = {}

    def stage(self, run: int, text: str) -> None:
        self._line(run, text)

    def progress(self, run: int, progress: RunProgress) -> None:
        step, start = self._first_step.setdefault(run, (progress.step, time.monotonic()))
        if not progress.epoch_done:
            return
        left = "?"
        if progress.step > step:
            pace = (time.monotonic() - start) / (progress.step - step)
            left = f"{pace * (progress.total_steps - progress.step):.0f} s"
        self._line(run, f"{_figures(progress)}, left {left}")

    def done(self, run: int) -> None:
        self._line(run, "done")

    def _line(self, run: int, text: str) -> None:
        self._console.print(f"{self._names[run]}  {text}", highlight=False, soft_wrap=True)


def _figures(progress: RunProgress) -> str:
    auc = "  -  " if progress.validation_auc is None else f"{progress.validation_auc:.3f}"
    return (
        f"epoch {progress.epoch}/{progress.epochs}  loss {progress.loss:.3f}  "
        f"fss {progress.fss:.3f}  dice {progress.segmentation:.3f}  val AUC {auc}"
    )
