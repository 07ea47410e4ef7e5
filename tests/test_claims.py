"""Claims on a folder: one holder at a time, taken over when it died or fell silent."""

import json
import multiprocessing
import os
import subprocess
import sys
import time
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest

from asycmst.experiments.claims import Claims


def test_one_holds_and_another_gets_it_after_the_release(tmp_path: Path) -> None:
    ours, theirs = Claims(), Claims()
    with ours.holding(tmp_path / "run") as claim:
        assert claim is not None and not claim.is_lost
        with theirs.holding(tmp_path / "run") as other:
            assert other is None
    with theirs.holding(tmp_path / "run") as other:
        assert other is not None


def _race(folder: Path, barrier: Barrier, won: Path) -> None:
    claims = Claims()
    for round_ in range(20):
        barrier.wait()
        with claims.holding(folder / str(round_)) as claim:
            if claim is not None:
                (won / f"{round_}-{os.getpid()}").touch()
            barrier.wait()


def test_of_processes_that_reach_for_it_at_once_one_gets_it(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    barrier, won = context.Barrier(3), tmp_path / "won"
    won.mkdir()
    runners = [context.Process(target=_race, args=(tmp_path, barrier, won)) for _ in range(3)]
    for runner in runners:
        runner.start()
    for runner in runners:
        runner.join(30)
    assert [runner.exitcode for runner in runners] == [0, 0, 0]
    rounds = sorted(int(file.name.split("-")[0]) for file in won.iterdir())
    assert rounds == list(range(20))


def test_who_comes_a_moment_later_gets_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both saw the folder without a claim; one was first to make it."""
    with Claims().holding(tmp_path) as claim:
        assert claim is not None
        monkeypatch.setattr(Path, "glob", lambda folder, pattern: iter(()))
        with Claims().holding(tmp_path) as other:
            assert other is None


def test_a_process_that_died_here_is_replaced_at_once(tmp_path: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path; from asycmst.experiments.claims import Claims; "
        "holding = Claims().holding(Path(sys.argv[1])); holding.__enter__(); os._exit(9)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False, timeout=60)
    assert len(list(tmp_path.glob(".claim-*"))) == 1
    with Claims().holding(tmp_path) as claim:
        assert claim is not None


def _of_another_machine(folder: Path) -> Path:
    file = folder / ".claim-1"
    file.write_text(json.dumps({"machine": "elsewhere", "pid": 1}))
    return file


def test_a_machine_that_fell_silent_is_replaced_after_a_while(tmp_path: Path) -> None:
    _of_another_machine(tmp_path)
    claims = Claims(stale=0.05)
    with claims.holding(tmp_path) as claim:
        assert claim is None  # seen for the first time
    time.sleep(0.06)
    with claims.holding(tmp_path) as claim:
        assert claim is not None


def test_a_machine_that_touches_its_claim_keeps_it(tmp_path: Path) -> None:
    file = _of_another_machine(tmp_path)
    claims = Claims(stale=0.05)
    for moment in range(3):
        os.utime(file, ns=(moment, moment))
        with claims.holding(tmp_path) as claim:
            assert claim is None
        time.sleep(0.06)


def test_a_holder_touches_its_claim(tmp_path: Path) -> None:
    with Claims(heartbeat=0.01).holding(tmp_path) as claim:
        assert claim is not None
        before = (tmp_path / ".claim-1").stat().st_mtime_ns
        deadline = time.monotonic() + 10
        while (tmp_path / ".claim-1").stat().st_mtime_ns == before:
            assert time.monotonic() < deadline
            time.sleep(0.01)


def test_a_holder_that_was_replaced_knows_it_and_leaves_the_claim_alone(tmp_path: Path) -> None:
    with Claims().holding(tmp_path) as claim:
        assert claim is not None
        (tmp_path / ".claim-2").write_text(json.dumps({"machine": "elsewhere", "pid": 1}))
        assert claim.is_lost
    with Claims().holding(tmp_path) as other:
        assert other is None


@pytest.mark.parametrize("text", ["", "{", "[]"])
def test_an_unsigned_claim_is_watched_like_any_other(tmp_path: Path, text: str) -> None:
    (tmp_path / ".claim-1").write_text(text)
    claims = Claims(stale=0.05)
    with claims.holding(tmp_path) as claim:
        assert claim is None
    time.sleep(0.06)
    with claims.holding(tmp_path) as claim:
        assert claim is not None
