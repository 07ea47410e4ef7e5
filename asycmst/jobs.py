"""Run jobs in a few processes side by side; the first failure ends all of them."""

import multiprocessing
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, TypeVar, cast

Job = TypeVar("Job")
Message = TypeVar("Message")
Result = TypeVar("Result")


class JobError(RuntimeError):
    """A job failed; the message is one line and names the job's error."""


def run_jobs(
    work: Callable[[Job, Callable[[Message], None]], Result],
    jobs: Sequence[Job],
    *,
    processes: int,
    threads: int,
    on_message: Callable[[int, Message], None],
    on_result: Callable[[int, Result], None],
) -> None:
    """Call `work(job, send)` for each job, `processes` of them at a time.

    Args:
        work: a function at module level; runs in "spawn" processes, each of which takes one job
            after another. What it passes to `send` and what it returns must be picklable.
        jobs: picklable arguments, started in this order.
        processes: how many run side by side.
        threads: torch threads within each process.
        on_message: called here with a job's index and each message of it, in order.
        on_result: called here with a job's index and what `work` returned, once per job.

    Raises:
        JobError: a job raised or its process died. The others have been ended by then, as they
            are on KeyboardInterrupt.
    """
    waiting = list(enumerate(jobs))[::-1]
    workers: dict[Connection, BaseProcess] = {}
    running: dict[Connection, int] = {}
    try:
        for _ in range(min(processes, len(jobs))):
            connection, process = _start(work, threads)
            workers[connection] = process
            running[connection], job = waiting.pop()
            connection.send(job)
        while running:
            for connection in cast(list[Connection], wait(list(running))):
                try:
                    kind, content = connection.recv()
                except EOFError:
                    process = workers[connection]
                    process.join()
                    raise JobError(
                        f"job {running[connection] + 1} of {len(jobs)} died with exit status "
                        f"{process.exitcode}; a negative status is the signal that ended it"
                    ) from None
                if kind == "message":
                    on_message(running[connection], content)
                elif kind == "error":
                    raise JobError(content)
                else:
                    on_result(running.pop(connection), content)
                    if waiting:
                        running[connection], job = waiting.pop()
                        connection.send(job)
    finally:
        for connection, process in workers.items():
            # Not terminate(): Lightning answers that signal with a traceback from within a fit.
            process.kill()
            process.join()
            connection.close()


def _start(work: Callable[..., Any], threads: int) -> tuple[Connection, BaseProcess]:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(work, threads, theirs), daemon=True)
    with _children_ignore_interrupts():
        process.start()
    theirs.close()
    return ours, process


@contextmanager
def _children_ignore_interrupts() -> Iterator[None]:
    # Ctrl-C reaches every process of the terminal. A child inherits "ignored", so it prints no
    # traceback however early the key is pressed, and the parent ends it.
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)


def _serve(work: Callable[..., Any], threads: int, connection: Connection) -> None:
    import torch  # not at the top: the command line imports JobError and must start fast

    torch.set_num_threads(threads)

    def send(message: object) -> None:
        connection.send(("message", message))

    # The parent ends this process; when the parent itself is gone, the pipe breaks.
    with suppress(EOFError, BrokenPipeError):
        while True:
            job = connection.recv()
            try:
                result = work(job, send)
            except BrokenPipeError:
                raise
            except Exception as error:
                text = " ".join(str(error).split())
                connection.send(("error", f"{type(error).__name__}: {text}"))
            else:
                connection.send(("result", result))
