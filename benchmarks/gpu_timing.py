"""Time on a GPU: CUDA graphs over rotating buffers, interleaved, and what the host spends.

A single call is too short to be timed and leaves its data in the cache. So a CUDA graph holds a
call on each of several sets of buffers, together more than twice the L2 cache, and the time of a
call is the time of the graph over the number of sets. All providers of a row take turns, so that a
change of the clock meets all of them.
"""

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Protocol

import providers
import torch
from gpu_cases import Problem, Row, first_line
from torch import Tensor

Run = Callable[[], object]
_MOST_SETS = 64
_FEWEST_ROUNDS = 11


class Timer(Protocol):
    """How calls are made and timed on one kind of device."""

    name: str
    l2_bytes: int
    burst: int  # calls that are issued at once to time the host

    def stream(self) -> AbstractContextManager[object]: ...
    def graph(self, calls: list[Run]) -> Run: ...
    def seconds(self, run: Run) -> float: ...
    def wait(self) -> None: ...


class Cuda:
    """The current CUDA device, everything on one stream of its own."""

    name = "cuda"
    burst = 40  # of at most about 25 kernels: the launch queue holds a thousand

    def __init__(self) -> None:
        self.l2_bytes = torch.cuda.get_device_properties(0).L2_cache_size
        self._stream = torch.cuda.Stream()

    @contextmanager
    def stream(self) -> Iterator[None]:
        """A backward pass runs on the stream of its forward pass, and graphs record one stream."""
        with torch.cuda.stream(self._stream):
            yield

    def graph(self, calls: list[Run]) -> Run:
        """One replay makes all the calls; each has been made before, so nothing compiles now."""
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=self._stream):
            # The results live until the end, so that each call writes to memory of its own.
            kept = [call() for call in calls]

        def replay(graph: Any = graph, kept: Any = kept) -> None:
            graph.replay()

        return replay

    def seconds(self, run: Run) -> float:
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        run()
        end.record()
        end.synchronize()
        return float(start.elapsed_time(end)) / 1e3

    def wait(self) -> None:
        torch.cuda.synchronize()


class Host:
    """The CPU in place of a GPU, so that everything but the device can be tested without one."""

    name = "cpu"
    l2_bytes = 1 << 12
    burst = 1

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock

    def stream(self) -> AbstractContextManager[object]:
        return nullcontext()

    def graph(self, calls: list[Run]) -> Run:
        return lambda: [call() for call in calls]

    def seconds(self, run: Run) -> float:
        start = self._clock()
        run()
        return self._clock() - start

    def wait(self) -> None:
        pass


def sets_needed(traffic: int, l2_bytes: int) -> int:
    """Sets of buffers that together exceed twice the L2 cache; at least two, at most 64."""
    return min(_MOST_SETS, max(2, 2 * l2_bytes // traffic + 1))


def interleaved(
    runs: dict[str, Run],
    seconds: float,
    timer: Timer,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Seconds of every run, each once a round, for about `seconds` or at least eleven rounds."""
    for run in runs.values():
        run()
    timer.wait()
    times: dict[str, list[float]] = {name: [] for name in runs}
    end, rounds = clock() + seconds, 0
    while runs and (rounds < _FEWEST_ROUNDS or clock() < end):
        for name, run in runs.items():
            times[name].append(timer.seconds(run))
        rounds += 1
    return times


def summary(times: list[float]) -> dict[str, float]:
    """Median and quartiles in microseconds."""
    low, middle, high = statistics.quantiles(times, n=4, method="inclusive")
    return {
        "median_us": round(middle * 1e6, 2),
        "quartile_us": round(low * 1e6, 2),
        "upper_quartile_us": round(high * 1e6, 2),
        "rounds": len(times),
    }


def measure(row: Row, given: Problem, timer: Timer, seconds: float) -> dict[str, Any]:
    """Times of all providers of a problem that have passed the gate.

    Returns:
        "times": provider -> summary of one call, buffers rotated past the L2 cache; "replay_us":
        ours alone in a graph, again and again on the same buffers, where B is 1; "host_us":
        what a call costs the host, without waiting; "sets": sets of buffers; "failed": provider
        -> why it could not be timed; "ungraphed": those timed without a graph.
    """
    sets = sets_needed(row.traffic(), timer.l2_bytes)
    failed, ungraphed, runs, host = {}, [], {}, {}
    single = None
    timer.wait()
    with timer.stream():
        copies = [given] + [
            Problem({}, [x.clone() for x in given.inputs], [x.clone() for x in given.grads])
            for _ in range(sets - 1)
        ]
        for name, function in given.functions.items():
            try:
                calls = [_call(row.mode, function, x.inputs, x.grads) for x in copies]
                for call in calls:
                    call()
                timer.wait()
                host[name] = _host_seconds(calls[0], timer)
                try:
                    runs[name] = timer.graph(calls)
                    if name == "ours" and row.batch == 1:
                        single = timer.graph(calls[:1])
                except RuntimeError:
                    ungraphed.append(name)
                    timer.wait()
                    runs[name] = _in_turn(calls)
            except Exception as error:  # one provider's trouble is not the others'
                failed[name] = first_line(error)
        times = interleaved(runs, seconds, timer)
        found: dict[str, Any] = {
            "sets": sets,
            "times": {name: summary([t / sets for t in each]) for name, each in times.items()},
            "host_us": {name: round(each * 1e6, 1) for name, each in host.items()},
            "failed": failed,
            "ungraphed": ungraphed,
        }
        if single is not None:
            many = _in_turn([single] * 20)
            replays = interleaved({"ours": many}, seconds / 4, timer)["ours"]
            found["replay_us"] = round(statistics.median(replays) / 20 * 1e6, 2)
    return found


def facts(timer: Timer, megabytes: int = 512) -> dict[str, float]:
    """Copy bandwidth in GB/s, read and written bytes together, and the time of an empty launch."""
    source = torch.ones(megabytes << 20, dtype=torch.uint8, device=timer.name)
    target = torch.empty_like(source)
    spot = torch.zeros(1, device=timer.name)
    with timer.stream():
        copy, fill = _twice(lambda: target.copy_(source)), _twice(lambda: spot.fill_(1.0))
        runs = {"copy": timer.graph([copy] * 4), "launch": timer.graph([fill] * 100)}
        times = interleaved(runs, 1.0, timer)
    copied = statistics.median(times["copy"]) / 4
    return {
        "copy_gb_per_s": round(2 * source.numel() / copied / 1e9, 1),
        "launch_us": round(statistics.median(times["launch"]) / 100 * 1e6, 2),
    }


def _call(
    mode: str, function: Callable[..., Any], inputs: list[Tensor], grads: list[Tensor]
) -> Run:
    if mode == "forward":
        return providers.forward(function, inputs)
    make = providers.backward if mode == "backward" else providers.forward_backward
    return make(function, inputs, grads)


def _in_turn(calls: list[Run]) -> Run:
    def run() -> None:
        for call in calls:
            call()

    return run


def _twice(call: Run) -> Run:
    """The call, made once now to warm up."""
    call()
    return call


def _host_seconds(call: Run, timer: Timer) -> float:
    """What issuing a call costs, the device left behind: the median of short bursts."""
    bursts = []
    for _ in range(5):
        timer.wait()
        start = time.perf_counter()
        for _ in range(timer.burst):
            call()
        bursts.append((time.perf_counter() - start) / timer.burst)
    timer.wait()
    return statistics.median(bursts)
