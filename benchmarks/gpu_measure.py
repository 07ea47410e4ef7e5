"""The timings of `make gpu`, in a process of their own: one line of JSON for every result.

    python benchmarks/gpu_measure.py --seconds 300 --out FILE

Every line is written when its result is there, so that whatever happens later loses none of them.
"""

import argparse
import json
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from gpu_cases import Problem, Row, first_line, gate, problem, rows
from gpu_timing import Cuda, Timer, facts, measure

from asycmst_ops import info

Emit = Callable[[dict[str, Any]], None]


class Budget:
    """How long there is, and how long a row of each kind is expected to take."""

    def __init__(
        self,
        seconds: float,
        clock: Callable[[], float] = time.monotonic,
        *,
        eager: float = 15.0,
        compiled: float = 75.0,
    ) -> None:
        self._clock = clock
        self._end = clock() + seconds
        self._expected = {"eager": eager, "compiled": compiled}

    def left(self) -> float:
        """Seconds until everything must have ended."""
        return self._end - self._clock()

    def allows(self, kind: str) -> bool:
        """Whether a row of this kind is expected to end in time."""
        return self.left() >= self._expected[kind]

    def learn(self, kind: str, seconds: float) -> None:
        """The next row of a kind is expected to take what this one took, and a quarter more."""
        self._expected[kind] = 1.25 * seconds


def run(
    todo: Iterable[Row],
    timer: Timer,
    budget: Budget,
    emit: Emit,
    *,
    seconds: float = 1.0,
    clock: Callable[[], float] = time.monotonic,
    make: Callable[[Row, str], Problem] = problem,
) -> None:
    """Measure the rows in their order as far as time allows, and emit what became of each.

    The forward and the backward row of one problem share its inputs, gate and compiled code.
    Emits {"begin": key} before a row, then {"row": key, ...} with its result or its "error";
    {"dropped": key} for one that would have ended too late.

    Raises:
        Exception: The device no longer answers; the row has been emitted.
    """
    last: tuple[Row, Problem, dict[str, str]] | None = None
    for row in todo:
        if not budget.allows(row.peers):
            emit({"dropped": row.key})
            continue
        emit({"begin": row.key})
        start = clock()
        result: dict[str, Any] = {"row": row.key, **row._asdict(), "traffic": row.traffic()}
        try:
            alike = row._replace(mode="")
            if last is None or last[0] != alike:
                last = None  # its memory is free before the next problem is made
                given = make(row, timer.name)
                last = alike, given, gate(row, given)
            _, given, wrong = last
            right = {n: f for n, f in given.functions.items() if n not in wrong}
            found = measure(row, given._replace(functions=right), timer, seconds)
            result |= {**found, "failed": wrong | found["failed"]}
        except Exception as error:  # the other rows can still be measured
            result["error"] = first_line(error)
        try:
            timer.wait()
        except Exception as error:  # the device is lost to this process: another one goes on
            emit({**result, "error": first_line(error)})
            raise
        emit(result)
        budget.learn(row.peers, clock() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description="time ours and its peers on the CUDA device")
    parser.add_argument("--seconds", type=float, required=True, help="when to have ended")
    parser.add_argument("--out", type=Path, required=True, help="lines of JSON are added here")
    parser.add_argument("--skip", nargs="*", default=[], help="keys of rows that are done")
    args = parser.parse_args()
    budget = Budget(args.seconds)
    with args.out.open("a") as file:

        def emit(line: dict[str, Any]) -> None:
            print(json.dumps(line), file=file, flush=True)

        timer = Cuda()
        emit({"info": info(), "torch_cuda": torch.version.cuda, "l2_bytes": timer.l2_bytes})
        emit({"facts": facts(timer)})
        run((row for row in rows() if row.key not in args.skip), timer, budget, emit)


if __name__ == "__main__":
    main()
