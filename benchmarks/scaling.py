"""Time of one direction against the length of the attended axis, on this CPU.

    python benchmarks/scaling.py --out benchmarks/results/scaling-NAME.png

A token sees L keys, so a grid of fixed size costs time in proportion to L once the products
outweigh everything else: the dashed line. The grid keeps its number of tokens, so that reading and
writing it costs the same at every length.
"""

import argparse
from pathlib import Path

import torch
from compare_cpu import interleaved_medians

from asycmst_ops import _cpu
from asycmst_ops._problem import Backward, Forward
from asycmst_ops.testing import make_grids

TOKENS = 16384
LENGTHS = (8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096)


def seconds(axis: str, length: int, backward: bool) -> float:
    """Median time of a kernel on (1, T, N, 2, 64) with T * N = TOKENS."""
    others = TOKENS // length
    dim = 1 if axis == "time" else 2
    shape = (1, length, others, 2, 64) if dim == 1 else (1, others, length, 2, 64)
    out, dq, dk, dv, q, k, v, grad = make_grids(8, shape)

    def forward() -> None:
        _cpu.axial_forward([Forward(out, q, k, v, None, dim)], 0.125)

    def back() -> None:
        _cpu.axial_backward([Backward(dq, dk, dv, grad, q, k, v, None, dim)], 0.125)

    return interleaved_medians({"ours": back if backward else forward}, 0.3)["ours"]


def main() -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    parser = argparse.ArgumentParser(description="time against the length of the attended axis")
    parser.add_argument("--out", type=Path, required=True, help="the figure, .png or .svg")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    figure, axes = plt.subplots(figsize=(7, 5), layout="constrained")
    for axis, colour in (("time", "#0072b2"), ("space", "#d55e00")):
        for backward, marker in ((False, "o"), (True, "s")):
            times = [seconds(axis, length, backward) * 1e3 for length in LENGTHS]
            name = f"{axis}, {'backward' if backward else 'forward'}"
            print(name, [round(t, 2) for t in times], flush=True)
            axes.loglog(LENGTHS, times, marker=marker, color=colour, label=name)
            ideal = [times[-1] * length / LENGTHS[-1] for length in LENGTHS]
            axes.loglog(LENGTHS, ideal, "--", color=colour, linewidth=0.8)
    axes.set_xlabel("length L of the attended axis")
    axes.set_ylabel("milliseconds")
    axes.set_title(f"{TOKENS} tokens, 2 heads of 64, float32, {args.threads} thread(s)")
    axes.legend(title="dashed: in proportion to L")
    args.out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(args.out, dpi=120)


if __name__ == "__main__":
    main()
