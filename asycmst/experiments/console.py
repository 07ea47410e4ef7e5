"""What a long job shows: a live bar for each run on a terminal, plain lines elsewhere."""

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from asycmst.training.module import Progress as RunProgress

_SECONDS_BETWEEN_LINES = 60.0


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
def run_display(
    console: Console, names: Sequence[str], samples_per_step: int | None = None
) -> Iterator[RunDisplay]:
    """A live display on a terminal, else one line for each stage, epoch and minute in between.

    Args:
        console: where it is shown.
        names: of the runs.
        samples_per_step: shows samples per second, and the memory of this process or its GPU.
    """
    if not console.is_terminal:
        yield _Lines(console, names, samples_per_step)
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
        yield _Bars(bars, names, samples_per_step)


class _Bars(RunDisplay):
    def __init__(self, bars: Progress, names: Sequence[str], samples_per_step: int | None) -> None:
        self._bars = bars
        self._paces = [_Pace(samples_per_step) for _ in names]
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
            figures=_figures(progress) + self._paces[run].figures(progress),
        )

    def done(self, run: int) -> None:
        self._bars.update(self._tasks[run], figures="done")


class _Lines(RunDisplay):
    def __init__(
        self, console: Console, names: Sequence[str], samples_per_step: int | None
    ) -> None:
        self._console = console
        width = max(map(len, names))
        self._names = [name.ljust(width) for name in names]
        self._paces = [_Pace(samples_per_step) for _ in names]
        self._shown = [time.monotonic() for _ in names]

    def stage(self, run: int, text: str) -> None:
        self._line(run, text)

    def progress(self, run: int, progress: RunProgress) -> None:
        pace = self._paces[run]
        figures = pace.figures(progress)
        is_due = time.monotonic() - self._shown[run] >= _SECONDS_BETWEEN_LINES
        if progress.epoch_done or is_due:
            self._line(run, f"{_figures(progress)}{figures}, left {pace.left(progress)}")

    def done(self, run: int) -> None:
        self._line(run, "done")

    def _line(self, run: int, text: str) -> None:
        self._shown[run] = time.monotonic()
        self._console.print(f"{self._names[run]}  {text}", highlight=False, soft_wrap=True)


class _Pace:
    """How fast a run has been since the first report of it that came here."""

    def __init__(self, samples_per_step: int | None) -> None:
        self._samples = samples_per_step
        self._first: tuple[int, float] | None = None

    def figures(self, progress: RunProgress) -> str:
        """Samples per second and memory, where they are asked for."""
        seconds = self._seconds_per_step(progress)
        if self._samples is None or seconds is None:
            return ""
        return f"  {self._samples / seconds:.3g} samples/s  {_memory()}"

    def left(self, progress: RunProgress) -> str:
        """Time until the last step."""
        seconds = self._seconds_per_step(progress)
        if seconds is None:
            return "?"
        left = seconds * (progress.total_steps - progress.step)
        return f"{left:.0f} s" if left < 600 else str(timedelta(seconds=round(left)))

    def _seconds_per_step(self, progress: RunProgress) -> float | None:
        now = time.monotonic()
        if self._first is None:
            self._first = progress.step, now
        step, start = self._first
        return (now - start) / (progress.step - step) if progress.step > step else None


def _memory() -> str:
    import torch  # not at the top: the command line imports this file for its errors only

    if torch.cuda.is_available():
        return f"{torch.cuda.max_memory_reserved() / 2**30:.1f} GiB"
    if sys.platform == "win32":
        return ""
    import resource

    # Kilobytes on Linux, bytes on a Mac.
    unit = 1 if sys.platform == "darwin" else 1024
    return f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30:.1f} GiB"


def _figures(progress: RunProgress) -> str:
    auc = "  -  " if progress.validation_auc is None else f"{progress.validation_auc:.3f}"
    return (
        f"epoch {progress.epoch}/{progress.epochs}  loss {progress.loss:.3f}  "
        f"fss {progress.fss:.3f}  dice {progress.segmentation:.3f}  val AUC {auc}"
    )
