"""Ratios of the operators to their peers on this CPU, from one interleaved run.

    python benchmarks/compare_cpu.py --out benchmarks/results/FILE.json

Every round calls each provider once in turn, so that a change of the machine's speed meets all of
them, and each finds the caches as the others left them. A ratio is the median time of the peer
over the median time of ours: above 1 ours is faster. The kernels alone are timed apart, one after
another, as shares of the arithmetic peak that is measured in the same run.
"""

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from peak import peak_gflops
from providers import (
    AXIAL,
    GATES,
    GATES_SCALES,
    JOINT,
    RANKING,
    SYMMETRIC,
    compiled,
    forward,
    forward_backward,
    saliency_providers,
)

from asycmst_ops import _cpu, acmst_attention, info
from asycmst_ops._problem import Backward, Forward
from asycmst_ops.testing import assert_within_budget, make_features, make_grids

FLOAT32, BFLOAT16 = torch.float32, torch.bfloat16
PAPER = (16, 49, 6, 64)
KERNEL_SHAPES = (
    (1, 16, 49, 6, 64),
    (4, 16, 49, 6, 64),
    (1, 32, 784, 6, 64),
    (1, 1, 4096, 1, 64),
    (1, 1024, 4, 1, 64),
)


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


def cases(batches: list[int]) -> Iterator[tuple[str, dict[str, Any], Any, list[Any], list[Any]]]:
    """What is compared: name, providers, dtype, inputs, gradients of the outputs."""
    for dtype in (FLOAT32, BFLOAT16):
        for batch in batches:
            for name, functions, n_in, n_out in (
                ("joint", JOINT, 6, 2),
                ("symmetric", SYMMETRIC, 6, 2),
                ("time", AXIAL["time"], 3, 1),
                ("space", AXIAL["space"], 3, 1),
            ):
                grids = make_grids(n_in + n_out, (batch, *PAPER), dtype=dtype)
                peers = dict(functions)
                if dtype == FLOAT32:
                    peers["einsum-compiled"] = compiled(peers["einsum"])
                yield name, peers, dtype, grids[:n_in], grids[n_in:]
    scores = torch.randn(32, PAPER[0])
    yield "ranking", RANKING, FLOAT32, [scores], [torch.ones(())]
    for channels, side in GATES_SCALES:
        shape = (1, channels, side, side)
        gates = {**GATES, "eager-compiled": compiled(GATES["eager"])}
        features, grad = make_features(shape), make_features(shape, seed=1)
        yield f"gates {channels}x{side}", gates, FLOAT32, [features], [grad]
    target, saliency = torch.rand(2, PAPER[0], 224, 224)
    losses = saliency_providers(target)
    losses["eager-compiled"] = compiled(losses["eager"])
    grad = torch.ones(PAPER[0], 3)
    yield "saliency losses", losses, FLOAT32, [saliency], [grad]


def check(name: str, functions: dict[str, Any], inputs: list[torch.Tensor]) -> None:
    """The gate before any timing: all providers are right."""

    def tupled(out: Any) -> tuple[torch.Tensor, ...]:
        return out if isinstance(out, tuple) else (out,)

    definition = functions["einsum" if "einsum" in functions else "eager"]
    plain = tupled(definition(*inputs))
    exact = tupled(definition(*[x.double() for x in inputs]))
    for provider, function in functions.items():
        for three in zip(tupled(function(*inputs)), plain, exact, strict=True):
            assert_within_budget(f"{name} {provider}", *three)


def measure(seconds: float, threads: list[int], batches: list[int]) -> Iterator[dict[str, Any]]:
    """Ours in microseconds, the peers as ratios to it."""
    for count in threads:
        torch.set_num_threads(count)
        for name, functions, dtype, inputs, grads in cases(batches):
            # Compiled code holds the number of threads, and beyond eight forms of one function
            # PyTorch compiles no more and runs it as it is.
            torch.compiler.reset()
            check(name, functions, inputs)
            for mode in ("forward", "forward-backward"):
                calls = {
                    provider: forward(f, inputs)
                    if mode == "forward"
                    else forward_backward(f, inputs, grads)
                    for provider, f in functions.items()
                }
                found = interleaved_medians(calls, seconds)
                ours = found.pop("ours")
                yield {
                    "op": name,
                    "mode": mode,
                    "dtype": str(dtype).removeprefix("torch."),
                    "batch": inputs[0].shape[0],
                    "threads": count,
                    "ours_us": round(ours * 1e6, 1),
                    **{provider: round(t / ours, 2) for provider, t in found.items()},
                }


def kernels(
    seconds: float, threads: list[int], peaks: dict[int, dict[str, float]]
) -> Iterator[dict[str, Any]]:
    """The kernels alone, outputs at hand, called again and again."""
    for count in threads:
        torch.set_num_threads(count)
        for dtype in (FLOAT32, BFLOAT16):
            for shape in KERNEL_SHAPES:
                out, dq, dk, dv, q, k, v, grad = make_grids(8, shape, dtype=dtype)
                for dim, axis in ((1, "time"), (2, "space")):
                    if shape[dim] == 1:
                        continue
                    ahead = [Forward(out, q, k, v, None, dim)]
                    back = [Backward(dq, dk, dv, grad, q, k, v, None, dim)]
                    flops = 4 * q.numel() * shape[dim]
                    row = {
                        "axis": axis,
                        "shape": shape,
                        "dtype": str(dtype).removeprefix("torch."),
                        "threads": count,
                    }
                    peak = peaks[count].get(row["dtype"], peaks[count].get("float32"))
                    for name, call, work in (
                        ("forward", lambda p=ahead: _cpu.axial_forward(p, 0.125), flops),
                        ("backward", lambda p=back: _cpu.axial_backward(p, 0.125), 2.5 * flops),
                    ):
                        took = interleaved_medians({"ours": call}, seconds)["ours"]
                        row[f"{name}_us"] = round(took * 1e6, 1)
                        row[f"{name}_gflops"] = round(work / took / 1e9, 1)
                        if peak:
                            row[f"{name}_share_of_peak"] = round(work / took / 1e9 / peak, 3)
                    yield row


def overhead_us() -> float:
    """One joint call on a grid of single tokens, without gradients: all that is not arithmetic."""
    tiny = make_grids(6, (1, 1, 1, 1, 1))
    with torch.no_grad():
        seconds = interleaved_medians({"ours": lambda: acmst_attention(*tiny)}, 0.5)["ours"]
    return round(seconds * 1e6, 1)


def processor() -> str:
    """The model's name, where the system tells it."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    facts = {key.strip(): value.strip() for key, _, value in (x.partition(":") for x in lines)}
    found = [facts.get(key, "") for key in ("model name", "cpu family", "model")]
    return "{} (family {}, model {})".format(*found) if all(found) else "unknown"


def main() -> None:
    parser = argparse.ArgumentParser(description="ours against its peers on this CPU")
    parser.add_argument("--out", type=Path, help="write everything as JSON to this file")
    parser.add_argument("--seconds", type=float, default=1.0, help="for each row (default 1)")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument(
        "--threads", type=int, nargs="+", default=[*range(1, min(2, os.cpu_count() or 1) + 1)]
    )
    args = parser.parse_args()
    result: dict[str, Any] = {
        "machine": {"processor": processor(), "cpu_count": os.cpu_count(), **info()},
        "peak_gflops": {count: peak_gflops(count) for count in args.threads},
        "overhead_us": overhead_us(),
        "rows": [],
        "kernels": [],
    }
    print({key: result[key] for key in ("machine", "peak_gflops", "overhead_us")})
    for row in measure(args.seconds, args.threads, args.batches):
        print(row, flush=True)
        result["rows"].append(row)
    for row in kernels(args.seconds / 2, args.threads, result["peak_gflops"]):
        print(row, flush=True)
        result["kernels"].append(row)
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
