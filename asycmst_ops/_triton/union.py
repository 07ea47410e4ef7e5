"""One softmax over the keys of a query's column and of its frame, on CUDA.

A query attends T + N - 1 keys along two axes, which no tile holds together without forming the
scores of a whole clip. So each axis is one pass of the kernels that work in blocks, and the state
of a query carries the softmax from one pass to the next; the column leaves out the own place.

Forward, two launches, 9 grids of traffic: the frame writes its normalised output and the state,
the column continues from both. Backward, five launches, 29 grids: the frame's state; the column
continues it and, now that it is final, writes dq; dk and dv of the column; then the frame adds its
part of dq, and of dk and dv. The state is final before any gradient is formed, so the two passes
depend on one another only in the fixed order in which the second adds to what the first has
written: the same bits at every call.
"""

from collections.abc import Sequence

from torch import Tensor

from asycmst_ops._problem import Backward, Forward, UnionBackward, UnionForward
from asycmst_ops._triton import axial, blocks

_COLUMN, _FRAME = 1, 2  # the attended dimension of a grid (B, T, N, H, d)


def supports(q: Tensor) -> bool:
    """Whether these kernels serve a grid: where attention along each of its axes is served."""
    return all(axial.supports(q, q, dim) for dim in (_COLUMN, _FRAME))


def union_forward(problems: Sequence[UnionForward], scale: float) -> None:
    """Fill `out` of each problem; all tensors on one CUDA device."""
    for problem in problems:
        state = blocks.new_state(problem.q, _FRAME)
        blocks.forward(Forward(*problem, _FRAME), scale, state, save=True)
        blocks.forward(Forward(*problem, _COLUMN), scale, state, resume=True, skip_self=True)


def union_backward(problems: Sequence[UnionBackward], scale: float) -> None:
    """Fill `dq`, `dk` and `dv` of each problem, bit for bit the same at every call."""
    for problem in problems:
        state = blocks.new_state(problem.q, _FRAME)
        frame, column = Backward(*problem, _FRAME), Backward(*problem, _COLUMN)
        blocks.query_gradient(frame, scale, state, write="no")
        blocks.query_gradient(column, scale, state, begin="continued", skip_self=True)
        blocks.key_gradient(column, scale, state, skip_self=True)
        blocks.query_gradient(frame, scale, state, begin="given", save=False, write="add")
        blocks.key_gradient(frame, scale, state, write="add")
