"""Measuring without a card: every provider is right, and every row ends as a line of JSON."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))

import gpu_cases
import gpu_measure
import gpu_timing
import providers
from gpu_cases import Row

TINY = {"places": 5, "frames": 4, "heads": 2, "channels": 16, "dtype": "float32"}
OPS = ("time", "space", "joint", "symmetric", "ranking")


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """The tensors are tiny: on a busy machine threads would only wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class Clock:
    """A clock that moves by a second whenever it is read, or as told."""

    def __init__(self, step: float = 1.0) -> None:
        self.now, self.step = 0.0, step

    def __call__(self) -> float:
        self.now += self.step
        return self.now


def row(op: str, mode: str = "forward", batch: int = 2, peers: str = "eager") -> Row:
    return Row(op, mode, batch, peers, **TINY)  # type: ignore[arg-type]


def measured(todo: list[Row], **options: Any) -> list[dict[str, Any]]:
    lines: list[dict[str, Any]] = []
    options = {"budget": gpu_measure.Budget(1e6, Clock()), "seconds": 0.0} | options
    gpu_measure.run(todo, gpu_timing.Host(), emit=lines.append, **options)
    return lines


@pytest.mark.parametrize("op", OPS)
def test_every_provider_is_right(op: str) -> None:
    given = gpu_cases.problem(row(op), "cpu")
    assert next(iter(given.functions)) == "ours"
    wrong = gpu_cases.gate(row(op), given)
    # Two backends of SDPA serve CUDA alone, and the flash one no mask.
    refused = {n for n in given.functions if n.endswith(("efficient", "cudnn", "mask-flash"))}
    assert set(wrong) <= refused, wrong
    assert len(given.functions) == {"symmetric": 6, "ranking": 2}.get(op, 11)


# FlexAttention warns that it ought to be compiled, and on CPUs it has no gradients.
@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("op", OPS[:4])
def test_every_provider_that_is_compiled_is_right(
    op: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu_cases, "compiled", lambda function: function)
    given = gpu_cases.problem(row(op, peers="compiled"), "cpu")
    assert set(given.functions) == {"ours", "flex", "einsum-compiled"}
    with torch.no_grad():
        wanted, *others = (function(*given.inputs) for function in given.functions.values())
    for other in others:
        torch.testing.assert_close(other, wanted)


def test_the_gate_names_what_is_wrong_and_what_is_not_repeatable() -> None:
    wanted = row("time")
    given = gpu_cases.problem(wanted, "cpu")
    right, calls = given.functions["einsum"], iter(range(100))

    def another(*x: torch.Tensor) -> torch.Tensor:
        return right(*x) * (1 + 1e-7 * next(calls))

    def refuses(*x: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("not here\nat all")

    bad = {"ours": another, "shifted": lambda *x: right(*x) + 0.1, "refuses": refuses}
    wrong = gpu_cases.gate(wanted, given._replace(functions={**bad, "right": right}))
    assert "two runs differ" in wrong["ours"]
    assert "exceeds the budget" in wrong["shifted"]
    assert wrong["refuses"] == "RuntimeError: not here"
    assert "right" not in wrong


@pytest.mark.parametrize("mode", ["forward", "backward", "forward-backward"])
@pytest.mark.parametrize("op", OPS)
def test_every_mode_of_every_row_is_timed(op: str, mode: str) -> None:
    begin, found = measured([row(op, mode, batch=1)])
    assert begin == {"begin": found["row"]}
    assert found["times"].keys() >= {"ours", "eager" if op == "ranking" else "einsum"}
    assert all(each["median_us"] > 0 for each in found["times"].values())
    assert found["replay_us"] > 0 and found["host_us"]["ours"] > 0
    assert found["ungraphed"] == [] and found["sets"] >= 2


def test_backward_alone_computes_the_gradients_again_and_again() -> None:
    given = gpu_cases.problem(row("joint"), "cpu")
    leaves = [x.requires_grad_() for x in given.inputs]
    wanted = torch.autograd.grad(given.functions["ours"](*leaves), leaves, given.grads)
    again = providers.backward(given.functions["ours"], given.inputs, given.grads)
    for _ in range(2):
        torch.testing.assert_close(again(), wanted)


def test_providers_on_both_sides_of_the_gate_and_of_a_capture(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Picky(gpu_timing.Host):
        """Refuses its second graph, as a peer that waits for the device would make it."""

        graphs = 0

        def graph(self, calls: list[gpu_timing.Run]) -> gpu_timing.Run:
            self.graphs += 1
            if self.graphs == 2:
                raise RuntimeError("operation not permitted when stream is capturing")
            return super().graph(calls)

    given = gpu_cases.problem(row("time"), "cpu")

    def fails_later(*x: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("illegal")

    some = {"ours": given.functions["ours"], "einsum": given.functions["einsum"]}
    given = given._replace(functions={**some, "broken": fails_later})
    found = gpu_timing.measure(row("time"), given, Picky(), 0.0)
    assert found["ungraphed"] == ["einsum"] and found["times"].keys() == some.keys()
    assert found["failed"] == {"broken": "RuntimeError: illegal"}


def test_rows_that_end_too_late_are_dropped_and_cheaper_ones_are_not() -> None:
    clock = Clock(0.0)
    budget = gpu_measure.Budget(95.0, clock, eager=10.0, compiled=75.0)

    def make(wanted: Row, device: str) -> gpu_cases.Problem:
        clock.now += 30.0
        return gpu_cases.problem(wanted, device)

    todo = [row("time"), row("space", peers="compiled"), row("space"), row("joint")]
    lines = measured(todo, budget=budget, clock=clock, make=make)
    # 30 of 95 seconds are gone after the first: 75 do not fit, and 37.5 do once.
    assert [x["row"] for x in lines if "row" in x] == [todo[0].key, todo[2].key]
    assert [x["dropped"] for x in lines if "dropped" in x] == [todo[1].key, todo[3].key]


def test_a_row_that_fails_loses_no_other() -> None:
    made = []

    def make(wanted: Row, device: str) -> gpu_cases.Problem:
        made.append(wanted.key)
        if wanted.op == "time":
            raise MemoryError("out of memory")
        return gpu_cases.problem(wanted, device)

    todo = [row("time"), row("ranking", "forward"), row("ranking", "forward-backward")]
    results = [x for x in measured(todo, make=make) if "row" in x]
    assert results[0]["error"] == "MemoryError: out of memory"
    assert all("ours" in x["times"] for x in results[1:])
    assert made == [todo[0].key, todo[1].key]  # the two rows of one problem share it


def test_a_device_that_no_longer_answers_ends_the_process_with_its_row_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def lost(self: object) -> None:
        raise RuntimeError("illegal memory access")

    monkeypatch.setattr(gpu_timing.Host, "wait", lost)
    lines: list[dict[str, Any]] = []
    todo, budget = [row("ranking"), row("time")], gpu_measure.Budget(1e6, Clock())
    with pytest.raises(RuntimeError, match="illegal"):
        gpu_measure.run(todo, gpu_timing.Host(), budget, lines.append, seconds=0.0)
    assert lines[0] == {"begin": todo[0].key} and len(lines) == 2
    assert "illegal memory access" in lines[1]["error"]


def test_the_most_important_rows_come_first_and_each_once() -> None:
    keys = [each.key for each in gpu_cases.rows()]
    assert len(keys) == len(set(keys))
    assert all(key.split()[2] == "B=32" for key in keys[:4])
    for op in OPS:
        batches = {each.batch for each in gpu_cases.rows() if each.op == op}
        assert batches == {1, 8, 32}, op
    long = {each.mode for each in gpu_cases.rows() if each.places == 196}
    assert long == {"forward", "backward"}


def test_buffers_together_exceed_twice_the_cache() -> None:
    assert gpu_timing.sets_needed(77_000_000, 50_000_000) == 2
    assert gpu_timing.sets_needed(2_400_000, 50_000_000) * 2_400_000 > 100_000_000
    assert gpu_timing.sets_needed(100, 50_000_000) == 64


def test_runs_take_turns_and_the_median_is_of_one_call() -> None:
    order: list[str] = []
    clock = Clock(0.0)

    def call(name: str, took: float) -> Any:
        def run() -> None:
            order.append(name)
            clock.now += took

        return run

    runs = {"ours": call("ours", 1.0), "peer": call("peer", 3.0)}
    times = gpu_timing.interleaved(runs, 60.0, gpu_timing.Host(clock), clock)
    assert order == ["ours", "peer"] * (len(order) // 2)
    assert times == {"ours": [1.0] * 15, "peer": [3.0] * 15}
    assert gpu_timing.summary(times["peer"])["median_us"] == 3e6


def test_bandwidth_counts_what_is_read_and_what_is_written() -> None:
    found = gpu_timing.facts(gpu_timing.Host(), megabytes=1)
    assert 0.01 < found["copy_gb_per_s"] < 10_000 and found["launch_us"] > 0
