"""What `asycmst predict --follow` shows while it runs, and how Ctrl-C ends it."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from asycmst.analysis.follow import Update


@contextmanager
def following() -> Iterator[tuple[Callable[["Update"], None], threading.Event]]:
    """Yield what to call with each update, and the event that Ctrl-C sets.

    Updates go to the standard error: one line that changes on a terminal, elsewhere a line each.
    A second Ctrl-C interrupts at once.
    """
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    stop = threading.Event()
    before = signal.getsignal(signal.SIGINT)

    def end(number: int, frame: Any) -> None:
        stop.set()
        signal.signal(signal.SIGINT, before)

    console = Console(stderr=True)
    live = Live(console=console, auto_refresh=False) if console.is_terminal else None

    def show(update: "Update") -> None:
        if live is None:
            console.print(_line(update), highlight=False, soft_wrap=True)
        else:
            live.update(Text(_line(update), no_wrap=True), refresh=True)

    console.print("research software, not a medical device; Ctrl-C ends it", highlight=False)
    signal.signal(signal.SIGINT, end)
    try:
        with live or nullcontext():
            yield show, stop
    finally:
        signal.signal(signal.SIGINT, before)


def _line(update: "Update") -> str:
    estimate = update.estimate
    seconds = "" if estimate.seconds is None else f"{estimate.seconds:.1f} s  "
    change = "" if update.change is None else f"  {update.change:+.3f}"
    return (
        f"{seconds}{estimate.bus_frames} BUS and {estimate.ceus_frames} CEUS frames  "
        f"probability of malignancy {estimate.probability_malignant:.3f}{change}"
    )
