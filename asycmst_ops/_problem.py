"""What one kernel call works on; the three kernel families share these shapes."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from torch import Tensor


class Forward(NamedTuple):
    """Attention along one axis: fill `out` from `q`, `k`, `v`.

    Grids are (B, T, N, H, d) with any strides and a contiguous last dimension; `dim` is 1 (time)
    or 2 (space). `k` and `v` share a shape that may differ from `q` along `dim` only. `key_mask`
    is None or bool with the first three sizes of `k`; True means the key takes part.
    """

    out: Tensor
    q: Tensor
    k: Tensor
    v: Tensor
    key_mask: Tensor | None
    dim: int


class Backward(NamedTuple):
    """Gradients of one `Forward`: fill `dq`, `dk`, `dv` from `grad` and the inputs."""

    dq: Tensor
    dk: Tensor
    dv: Tensor
    grad: Tensor
    q: Tensor
    k: Tensor
    v: Tensor
    key_mask: Tensor | None
    dim: int


class UnionForward(NamedTuple):
    """One softmax over the own column and the own frame: fill `out` from `q`, `k`, `v`.

    Grids are (B, T, N, H, d) of one shape, also from problem to problem of a call, with any
    strides and a contiguous last dimension. `key_mask` is None or bool (B, T, N); True means the
    key takes part.
    """

    out: Tensor
    q: Tensor
    k: Tensor
    v: Tensor
    key_mask: Tensor | None


class UnionBackward(NamedTuple):
    """Gradients of one `UnionForward`: fill `dq`, `dk`, `dv` from `grad` and the inputs."""

    dq: Tensor
    dk: Tensor
    dv: Tensor
    grad: Tensor
    q: Tensor
    k: Tensor
    v: Tensor
    key_mask: Tensor | None


class Kernels(Protocol):
    """What a kernel family offers; each function fills tensors that the caller allocated."""

    def axial_forward(self, problems: Sequence[Forward], scale: float) -> None: ...

    def axial_backward(self, problems: Sequence[Backward], scale: float) -> None: ...

    def union_forward(self, problems: Sequence[UnionForward], scale: float) -> None: ...

    def union_backward(self, problems: Sequence[UnionBackward], scale: float) -> None: ...

    def fss_ranking(
        self, loss: Tensor, grad: Tensor, scores: Tensor, lengths: Tensor | None, clamp: float
    ) -> None: ...

    def gates_forward(self, out: Tensor, x: Tensor, patch: int, split: bool) -> None: ...

    def gates_backward(
        self, dx: Tensor, grad: Tensor, x: Tensor, patch: int, split: bool
    ) -> None: ...

    def saliency_losses_forward(
        self, losses: Tensor, target: Tensor, saliency: Tensor, floor: float
    ) -> None: ...

    def saliency_losses_backward(
        self, slope: Tensor, grad: Tensor, target: Tensor, saliency: Tensor, floor: float
    ) -> None: ...
