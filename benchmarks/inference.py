"""One clip pair through the whole model, ours against the same model built naively, in turn.

    python benchmarks/inference.py --out benchmarks/results/FILE.json [--device cuda]

Rows are the paper's model and the authors' arrangement of it (one encoder for both streams, no
frame sorting, no segmentation). Each round calls every provider once, so that a change of the
machine's speed meets all of them; a figure is the median, with the fastest and slowest round
beside it. Batch 1, evaluation, no gradients, the device waited for: 20 calls to warm up and 100
timed ones on a GPU, on a CPU 2 and `--rounds`. On a CPU the files of `asycmst export` join, in
onnxruntime and as an AOTInductor package, which takes minutes to compile. All providers are
checked against the plain model before anything is timed.

The same plain model is also timed by the loop of the authors' released code, which is no latency:
training mode, batches of 16, the clock read without waiting for the device, seconds over 16.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from compare_cpu import processor
from naive import naive_model
from torch import Tensor, nn

from asycmst import AsyCMST, AsyCMSTConfig, AsyCMSTOutput
from asycmst.export import aoti_package, onnx_file
from asycmst.export.graph import NamedOutputs, clip_graph, without_norms
from asycmst.export.results import Runner
from asycmst.inference import onednn
from asycmst.inference.arrangement import arranged
from asycmst.inference.prepare import prepare_model
from asycmst_ops import info

FLOAT32, BFLOAT16 = torch.float32, torch.bfloat16
CONFIGS = {
    "paper": AsyCMSTConfig.paper(),
    "authors' arrangement": AsyCMSTConfig.authors(),
}
# Largest difference of a logit from the plain model's in float32.
BOUNDS = {FLOAT32: 1e-4, BFLOAT16: 0.05}
# Clips to logits; everything else that the model answers is computed too.
Call = Callable[[Tensor, Tensor], Tensor]


def autocast(device: torch.device, dtype: torch.dtype) -> AbstractContextManager[object]:
    """bfloat16 as torch chooses where to use it, or nothing."""
    return nullcontext() if dtype == FLOAT32 else torch.autocast(device.type, dtype)


def eager(model: nn.Module, device: torch.device, dtype: torch.dtype) -> Call:
    """A model called as it is."""

    def call(bus: Tensor, ceus: Tensor) -> Tensor:
        with torch.no_grad(), autocast(device, dtype):
            output: AsyCMSTOutput = model(bus, ceus)
        return output.logits

    return call


def prepared(model: AsyCMST, dtype: torch.dtype, *, compile: bool = False) -> Call:
    """Ours."""
    ready = prepare_model(model, dtype=dtype, compile=compile)
    return lambda bus, ceus: ready(bus, ceus).logits


def providers(model: AsyCMST, device: torch.device) -> dict[str, tuple[torch.dtype, Call]]:
    """What is timed, by name."""
    naive = naive_model(model).to(device).eval()
    found: dict[str, tuple[torch.dtype, Call]] = {}
    for dtype, name in ((FLOAT32, "float32"), (BFLOAT16, "bfloat16")):
        found[f"ours {name}"] = dtype, prepared(model, dtype)
        autocasts = " autocast" if dtype == BFLOAT16 else ""
        found[f"naive {name}{autocasts}"] = dtype, eager(naive, device, dtype)
    if device.type == "cpu":
        found |= {name: (FLOAT32, call) for name, call in exported(model).items()}
    if device.type == "cuda":
        torch.compiler.reset()  # a function compiled for many models stops being compiled
        compiled = torch.compile(naive)
        found["naive bfloat16 compiled"] = BFLOAT16, eager(compiled, device, BFLOAT16)
        recorded = torch.compile(naive, mode="reduce-overhead")  # with CUDA graphs, as ours
        found["naive bfloat16 compiled, graphs"] = BFLOAT16, eager(recorded, device, BFLOAT16)
        found["ours bfloat16 compiled"] = BFLOAT16, prepared(model, BFLOAT16, compile=True)
    return found


def exported(model: AsyCMST) -> dict[str, Call]:
    """The files of `asycmst export` that are made for speed, loaded back."""
    program = clip_graph(NamedOutputs(without_norms(model), segments=True), lengths=False)
    found = {}
    for name, file in (("onnxruntime", onnx_file), ("AOTInductor", aoti_package)):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.pt2"
            file.write(program, path)
            found[f"{name} float32"] = logits_of(file.load(path))
    return found


def logits_of(runner: Runner) -> Call:
    """An exported file."""
    return lambda bus, ceus: runner(bus, ceus)["logits"]


def check(model: AsyCMST, calls: dict[str, tuple[torch.dtype, Call]], clips: Tensor) -> Any:
    """The gate: the largest difference of a logit from the plain model, by provider."""
    with torch.no_grad():
        wanted = model(*clips).logits
    found = {}
    for name, (dtype, call) in calls.items():
        found[name] = float((call(*clips).float() - wanted).abs().max())
        assert found[name] < BOUNDS[dtype], f"{name}: logits differ by {found[name]:.1e}"
    return found


def seconds(call: Callable[[], object], wait: Callable[[], None]) -> float:
    """One call, the device waited for before and after."""
    wait()
    start = time.perf_counter()
    call()
    wait()
    return time.perf_counter() - start


def shares(network: nn.Module, clips: Tensor, wait: Callable[[], None]) -> dict[str, float]:
    """Seconds of a forward pass by part; what a layer spends elsewhere is its cross-attention."""
    spent: dict[str, float] = {}
    handles = []

    def follow(part: nn.Module, name: str) -> None:
        started: list[float] = []

        def before(*_: object) -> None:
            wait()
            started.append(time.perf_counter())

        def after(*_: object) -> None:
            wait()
            spent[name] = spent.get(name, 0.0) + time.perf_counter() - started.pop()

        handles.append(part.register_forward_pre_hook(before))
        handles.append(part.register_forward_hook(after))

    parts: Any = network
    follow(network, "all")
    follow(parts.encoders, "encoders")
    for layer in parts.layers:
        follow(layer, "layers")
        for name in ("self_bus", "self_ceus"):
            follow(getattr(layer, name), "self-attention")
        for name in ("ffn_bus", "ffn_ceus"):
            follow(getattr(layer, name), "feed-forward")
    for part, name in (
        (parts.classifier, "classifier, frame sorting"),
        (parts.frame_sorting, "classifier, frame sorting"),
        (parts.mask_decoder, "mask decoder"),
    ):
        if part is not None:
            follow(part, name)
    runs = []
    for _ in range(4):
        spent.clear()
        with torch.no_grad():
            network(*clips)
        runs.append(dict(spent))
    for handle in handles:
        handle.remove()
    median = {name: statistics.median(run[name] for run in runs[1:]) for name in runs[0]}
    layers = median.pop("layers")
    median["cross-attention"] = layers - median["self-attention"] - median["feed-forward"]
    parted = sum(value for name, value in median.items() if name != "all")
    median["rest"] = median["all"] - parted
    return {name: round(value, 4) for name, value in median.items()}


def released_loop(model: AsyCMST, batch: int, batches: int, device: torch.device) -> float:
    """Seconds per sample as the authors' released code counts them; see above."""
    shape = (2, batch, 3, model.config.frames, *model.config.frame_size)
    clips = torch.rand(shape, device=device)
    model.train()
    times = []
    for _ in range(batches):
        start = time.perf_counter()
        model(*clips)
        times.append((time.perf_counter() - start) / batch)
    model.eval()
    return statistics.fmean(times)


def measure(config: AsyCMSTConfig, device: torch.device, args: argparse.Namespace) -> Any:
    """One row."""
    torch.manual_seed(0)
    model = AsyCMST(config).to(device).eval()
    clips = torch.rand(2, 1, 3, config.frames, *config.frame_size, device=device)
    wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    calls = providers(model, device)
    differences = check(model, calls, clips)
    warm_up, rounds = (20, 100) if device.type == "cuda" else (2, args.rounds)
    times: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(warm_up + rounds):
        for name, (_, call) in calls.items():
            spent = seconds(lambda call=call: call(*clips), wait)
            if number >= warm_up:
                times[name].append(spent)
    medians = {name: statistics.median(values) for name, values in times.items()}
    row: dict[str, Any] = {
        "calls": {"warm-up": warm_up, "timed": rounds},
        "logit_difference": differences,
        "seconds": {name: round(value, 4) for name, value in medians.items()},
        "spread": {name: [round(min(v), 4), round(max(v), 4)] for name, v in times.items()},
        "faster": {
            "float32 over naive float32": medians["naive float32"] / medians["ours float32"],
            "bfloat16 over naive autocast": (
                medians["naive bfloat16 autocast"] / medians["ours bfloat16"]
            ),
            "bfloat16 over naive float32": medians["naive float32"] / medians["ours bfloat16"],
        },
        "shares": {},
    }
    if device.type == "cpu":
        for name in ("onnxruntime", "AOTInductor"):
            ratio = medians[f"{name} float32"] / medians["ours float32"]
            row["faster"][f"float32 over {name}"] = ratio
    if device.type == "cuda":
        row["faster"]["bfloat16 compiled over naive compiled, graphs"] = (
            medians["naive bfloat16 compiled, graphs"] / medians["ours bfloat16 compiled"]
        )
    row["faster"] = {name: round(value, 2) for name, value in row["faster"].items()}
    naive = naive_model(model).to(device).eval()
    for dtype, name in ((FLOAT32, "float32"), (BFLOAT16, "bfloat16")):
        with autocast(device, dtype):
            row["shares"][f"naive {name}"] = shares(naive, clips, wait)
        packs = device.type == "cpu" and onednn.is_available(dtype)
        network = arranged(model, device, dtype, packs)
        row["shares"][f"ours {name}"] = shares(network, clips, wait)
    if args.released_batch:
        batches = rounds if device.type == "cuda" else 2
        row["seconds_by_the_released_loop"] = {
            "batch": args.released_batch,
            "plain float32": round(released_loop(model, args.released_batch, batches, device), 4),
        }
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description="inference of the whole model")
    parser.add_argument("--out", type=Path, help="write everything as JSON to this file")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=15, help="timed calls on a CPU (15)")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument(
        "--released-batch",
        type=int,
        default=16,
        help="batch of the released loop, 16 there; 0 leaves it out (about 8 GB of memory)",
    )
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    device = torch.device(args.device)
    result: dict[str, Any] = {
        "machine": {"processor": processor(), "threads": args.threads, **info()},
        "torch": torch.__version__,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "protocol": "batch 1, evaluation, providers in turn, median; see the benchmark's head",
        "rows": {},
    }
    for name, config in CONFIGS.items():
        result["rows"][name] = measure(config, device, args)
        print(name, json.dumps(result["rows"][name], indent=1), flush=True)
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
