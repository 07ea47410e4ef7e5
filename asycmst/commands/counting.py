"""How far a command that deals with one case after another has come."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_LINE_EVERY_S = 10.0


@contextmanager
def counting(verb: str, total: int) -> Iterator[Callable[[int], None]]:
    """Yield what to call with the number of cases done.

    A bar with the time left on a terminal; elsewhere a line every ten seconds and at the end.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.progress import TimeRemainingColumn as Left

    console = Console()
    if console.is_terminal:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
        with Progress(*columns, TextColumn("left"), Left(), console=console) as bar:
            task = bar.add_task(verb, total=total)
            yield lambda done: bar.update(task, completed=done)
        return
    start = last = time.monotonic()
    first: int | None = None

    def show(done: int) -> None:
        nonlocal last, first
        now = time.monotonic()
        first = done if first is None else first
        if now - last < _LINE_EVERY_S and done < total:
            return
        last = now
        left = (now - start) / max(done - first, 1) * (total - done)
        print(f"{verb} {done}/{total}, left {left:.0f} s", flush=True)

    yield show
