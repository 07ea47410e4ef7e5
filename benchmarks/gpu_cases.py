"""What is measured on a GPU: rows in the order of their importance, and the inputs of each."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch._functorch.config as functorch_config
from providers import AXIAL, JOINT, RANKING, SYMMETRIC, by_backend, compiled, flex, pair
from torch import Tensor
from torch.nn.attention.flex_attention import flex_attention

from asycmst_ops.testing import assert_within_budget, make_grids

FRAMES, PLACES, HEADS, CHANNELS = 16, 49, 6, 64
LONG_PLACES = 196  # 14 x 14
_GRIDS = {"time": (3, 1), "space": (3, 1), "joint": (6, 2), "symmetric": (6, 2)}
_EAGER = {"time": AXIAL["time"], "space": AXIAL["space"], "joint": JOINT, "symmetric": SYMMETRIC}
# Grids that a call must read or write: inputs and outputs; inputs, gradients, and theirs.
_TRAFFIC = {"forward": 4, "backward": 7, "forward-backward": 11}


class Row(NamedTuple):
    """One interleaved run of ours and its peers."""

    op: str  # "time", "space", "joint", "symmetric" or "ranking"
    mode: str  # "forward", "backward" or "forward-backward"
    batch: int
    peers: str = "eager"  # or "compiled": those that torch.compile must build first
    places: int = PLACES
    frames: int = FRAMES
    heads: int = HEADS
    channels: int = CHANNELS
    dtype: str = "bfloat16"

    @property
    def key(self) -> str:
        """What the row is called in reports; unique."""
        words = [self.op, self.mode, f"B={self.batch}", f"T={self.frames}"]
        if self.op != "ranking":
            words += [f"N={self.places}", self.dtype]
        return " ".join([*words, *(["compiled"] if self.peers == "compiled" else [])])

    def traffic(self) -> int:
        """Bytes that have to move, whatever the implementation; copies are not counted."""
        if self.op == "ranking":
            return 2 * 4 * self.batch * self.frames
        element = getattr(torch, self.dtype).itemsize
        grid = self.batch * self.frames * self.places * self.heads * self.channels * element
        return _TRAFFIC[self.mode] * grid * _GRIDS[self.op][1]


def rows() -> list[Row]:
    """Everything that is measured, the most important first: what time does not allow is last."""
    both = ("forward", "backward")
    made = [Row(op, mode, 32) for op in ("time", "space") for mode in both]
    made += [Row(op, mode, 1) for op in ("time", "space") for mode in both]
    made += [Row("ranking", "forward-backward", 32), Row("ranking", "forward-backward", 1)]
    made += [Row("joint", mode, batch) for batch in (32, 1) for mode in both]
    made += [Row(op, mode, 32, "compiled") for op in ("time", "space") for mode in both]
    made += [Row("space", mode, 8, places=LONG_PLACES) for mode in both]
    made += [Row("symmetric", mode, 8) for mode in both]
    made += [Row(op, mode, 8) for op in ("time", "space", "joint") for mode in both]
    made += [Row("symmetric", mode, batch) for batch in (1, 32) for mode in both]
    made += [Row("ranking", "forward-backward", 8)]
    made += [Row("space", mode, b, places=LONG_PLACES) for b in (1, 32) for mode in both]
    made += [Row("joint", mode, 32, "compiled") for mode in both]
    made += [Row("symmetric", mode, 8, "compiled") for mode in both]
    made += [Row(op, mode, b, "compiled") for b in (1, 8) for op in AXIAL for mode in both]
    return made


class Problem(NamedTuple):
    """A row's providers, ours first, with what they are called on."""

    functions: dict[str, Callable[..., Any]]
    inputs: list[Tensor]
    grads: list[Tensor]


def problem(row: Row, device: str) -> Problem:
    """Random inputs, and every provider that the row compares."""
    if row.op == "ranking":
        generator = torch.Generator().manual_seed(0)
        scores = torch.randn(row.batch, row.frames, generator=generator).to(device)
        return Problem(dict(RANKING), [scores], [torch.ones((), device=device)])
    n_in, n_out = _GRIDS[row.op]
    shape = (row.batch, row.frames, row.places, row.heads, row.channels)
    grids = make_grids(n_in + n_out, shape, dtype=getattr(torch, row.dtype), device=device)
    return Problem(_functions(row), grids[:n_in], grids[n_in:])


def _functions(row: Row) -> dict[str, Callable[..., Any]]:
    eager = _EAGER[row.op]
    if row.peers == "eager":
        return by_backend(eager)
    # A function that is compiled for many shapes stops being compiled; and a backward pass that
    # is timed again and again must not give its buffers away.
    torch.compiler.reset()
    functorch_config.donated_buffer = False
    attend = compiled(flex_attention)
    if row.op in AXIAL:
        flexible: Callable[..., Any] = flex(row.op, attend=attend)
    else:
        supports = ("time", "space") if row.op == "joint" else ("symmetric", "symmetric")
        flexible = pair(*(flex(support, attend=attend) for support in supports))
    return {
        "ours": eager["ours"],
        "flex": flexible,
        "einsum-compiled": compiled(eager["einsum"]),
    }


def gate(row: Row, given: Problem) -> dict[str, str]:
    """What is wrong with each provider that must not be timed, in one line.

    Outputs and gradients of each are held to the error budget of the operators' tests; ours has
    to give the same bits twice as well.
    """
    definition = RANKING["eager"] if row.op == "ranking" else _EAGER[row.op]["einsum"]
    plain = _results(definition, given.inputs, given.grads)
    exact = _results(
        definition, [x.double() for x in given.inputs], [x.double() for x in given.grads]
    )
    found = {}
    for name, function in given.functions.items():
        try:
            actual = _results(function, given.inputs, given.grads)
            for index, three in enumerate(zip(actual, plain, exact, strict=True)):
                assert_within_budget(f"result {index}", *three)
            if name == "ours":
                again = _results(function, given.inputs, given.grads)
                same = all(torch.equal(x, y) for x, y in zip(actual, again, strict=True))
                assert same, "two runs differ"
        except Exception as error:  # a peer may refuse a problem in any way it likes
            found[name] = first_line(error)
    return found


def first_line(error: BaseException) -> str:
    """An error in one line that fits a table of remarks."""
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0] if text else ''}"[:200]


def _results(
    function: Callable[..., Any], inputs: list[Tensor], grads: list[Tensor]
) -> tuple[Tensor, ...]:
    """Outputs, and gradients by all inputs."""
    leaves = [x.detach().requires_grad_() for x in inputs]
    out = function(*leaves)
    outputs = out if isinstance(out, tuple) else (out,)
    grads = [grad.to(out.dtype) for grad, out in zip(grads, outputs, strict=True)]
    return *(x.detach() for x in outputs), *torch.autograd.grad(outputs, leaves, grads)
