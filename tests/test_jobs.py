"""Jobs in other processes. Light imports: every child process imports this file."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable

import pytest

from asycmst.jobs import JobError, run_jobs


def shout(job: str, send: Callable[[str], None]) -> str:
    import torch

    send(f"{job} threads {torch.get_num_threads()}")
    return job.upper()


def stumble(job: str, send: Callable[[str], None]) -> None:
    if job == "wait":
        send(f"{os.getpid()}")
        time.sleep(60)
    if job == "die":
        os._exit(7)
    raise ValueError(f"{job}\n  over two lines")


def test_jobs_report_and_return() -> None:
    heard: list[tuple[int, str]] = []
    returned: dict[int, str] = {}
    run_jobs(
        shout,
        ["a", "b", "c"],
        processes=2,
        threads=1,
        on_message=lambda index, text: heard.append((index, text)),
        on_result=lambda index, text: returned.update({index: text}),
    )
    assert sorted(heard) == [(0, "a threads 1"), (1, "b threads 1"), (2, "c threads 1")]
    assert returned == {0: "A", 1: "B", 2: "C"}
    assert not multiprocessing.active_children()


@pytest.mark.parametrize(
    ("job", "words"),
    [("trip", "^ValueError: trip over two lines$"), ("die", "job 2 of 2 died with exit status 7")],
)
def test_a_failing_job_ends_the_others(job: str, words: str) -> None:
    start = time.monotonic()
    with pytest.raises(JobError, match=words):
        run_jobs(
            stumble,
            ["wait", job],
            processes=2,
            threads=1,
            on_message=lambda *_: None,
            on_result=lambda *_: None,
        )
    assert time.monotonic() - start < 55  # the other one would sleep for 60 s
    assert not multiprocessing.active_children()


def test_an_interrupt_ends_the_children_in_silence() -> None:
    script = (
        "import test_jobs as t, asycmst.jobs as j\n"
        "def hear(index, pid): print(pid, flush=True)\n"
        "if __name__ == '__main__':\n"
        "    try: j.run_jobs(t.stumble, ['wait'], processes=1, threads=1, on_message=hear,"
        " on_result=print)\n"
        "    except KeyboardInterrupt: print('stopped', flush=True)\n"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    parent = subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        start_new_session=True,
    )
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    os.killpg(parent.pid, signal.SIGINT)  # as a terminal does, to parent and child
    printed, errors = parent.communicate(timeout=50)
    assert (printed, errors, parent.returncode) == ("stopped\n", "", 0)
    with pytest.raises(ProcessLookupError):
        os.kill(child, 0)
