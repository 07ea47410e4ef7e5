"""Ratios of the joint operator to its peers on this CPU, from one interleaved run.

    python benchmarks/compare_cpu.py --out benchmarks/results/FILE.json

Every round calls each provider once in turn, so that a change of the machine's speed meets all of
them; a ratio is the median time of the peer over the median time of ours. Above 1 ours is faster.
"""

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from providers import AXIAL, JOINT, forward, forward_backward

from asycmst_ops import info
from asycmst_ops.testing import assert_within_budget, make_grids


def interleaved_medians(
    calls: dict[str, Callable[[], object]], seconds: float
) -> dict[str, float]:
    """Median seconds of each call, all called in turn for about `seconds` (at least 7 rounds)."""
    for call in calls.values():
        call()
    times: dict[str, list[float]] = {name: [] for name in calls}
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times["ours"]) < 7:
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            times[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in times.items()}


def cases() -> Iterator[tuple[str, dict[str, Any], int, int]]:
    """What is compared: name, providers, number of inputs, number of outputs."""
    yield "joint", JOINT, 6, 2
    yield "time", AXIAL["time"], 3, 1
    yield "space", AXIAL["space"], 3, 1


def check(name: str, functions: dict[str, Any], inputs: list[torch.Tensor]) -> None:
    """The gate before any timing: all providers are right."""

    def tupled(out: Any) -> tuple[torch.Tensor, ...]:
        return out if isinstance(out, tuple) else (out,)

    plain = tupled(functions["einsum"](*inputs))
    exact = tupled(functions["einsum"](*[x.double() for x in inputs]))
    for provider, function in functions.items():
        for three in zip(tupled(function(*inputs)), plain, exact, strict=True):
            assert_within_budget(f"{name} {provider}", *three)


def measure(seconds: float, threads: list[int], batches: list[int]) -> list[dict[str, Any]]:
    rows = []
    for count in threads:
        torch.set_num_threads(count)
        for name, functions, n_in, n_out in cases():
            for dtype in (torch.float32, torch.bfloat16):
                for batch in batches:
                    shape = (batch, 16, 49, 6, 64)
                    grids = make_grids(n_in + n_out, shape, dtype=dtype)
                    inputs, grads = grids[:n_in], grids[n_in:]
                    check(name, functions, inputs)
                    for mode in ("forward", "forward-backward"):
                        calls = {
                            provider: forward(f, inputs)
                            if mode == "forward"
                            else forward_backward(f, inputs, grads)
                            for provider, f in functions.items()
                        }
                        found = interleaved_medians(calls, seconds)
                        row = {
                            "op": name,
                            "mode": mode,
                            "dtype": str(dtype).removeprefix("torch."),
                            "batch": batch,
                            "threads": count,
                            "ours_us": round(found["ours"] * 1e6, 1),
                            **{
                                provider: round(t / found["ours"], 2)
                                for provider, t in found.items()
                                if provider != "ours"
                            },
                        }
                        print(row, flush=True)
                        rows.append(row)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description="ours against its peers on this CPU")
    parser.add_argument("--out", type=Path, help="write the rows as JSON to this file")
    parser.add_argument("--seconds", type=float, default=1.0, help="for each row (default 1)")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 4])
    parser.add_argument(
        "--threads", type=int, nargs="+", default=[*range(1, min(2, os.cpu_count() or 1) + 1)]
    )
    args = parser.parse_args()
    result = {
        "machine": {
            "processor": platform.processor() or platform.machine(),
            "cpu_count": os.cpu_count(),
            **info(),
        },
        "rows": measure(args.seconds, args.threads, args.batches),
    }
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
