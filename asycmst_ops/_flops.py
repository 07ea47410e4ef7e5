"""FLOP formulas of the operators for `torch.utils.flop_counter`.

That module imports Triton, which takes longer than everything here together and may be absent.
So the formulas are registered when a user imports the counter, not when this package loads.
"""

import importlib.abc
import importlib.util
import sys
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

import torch

_COUNTER = "torch.utils.flop_counter"
Shape = Sequence[int]


def _axial(q: Shape, k: Shape, dim: int) -> int:
    """Scores and values of one forward: 2 * 2 * d for each pair of query and key."""
    batch, frames, places, heads, width = q
    return 4 * batch * frames * places * heads * width * k[dim]


def _joint(grid: Shape) -> int:
    return _axial(grid, grid, 1) + _axial(grid, grid, 2)


def _union(grid: Shape) -> int:
    """Both directions over the column and the frame, whose common token counts once."""
    batch, frames, places, heads, width = grid
    return 2 * _axial(grid, (batch, frames + places - 1, places, heads, width), 1)


def _backward(forward: int) -> int:
    """The backward recomputes the scores and forms four more products of the same size."""
    return forward * 5 // 2


# Each formula takes the shapes of the operator's tensors and its other arguments as they are.
_FORMULAS: dict[str, Callable[..., int]] = {
    "axial": lambda q, k, v, mask, dim, *_, **__: _axial(q, k, dim),
    "axial_backward": lambda g, q, k, v, mask, dim, *_, **__: _backward(_axial(q, k, dim)),
    "acmst": lambda q, *_, **__: _joint(q),
    "acmst_backward": lambda grad, *_, **__: _backward(_joint(grad)),
    "acmst_qkvpacked": lambda qkv, *_, **__: _joint((*qkv[:3], *qkv[4:])),
    "acmst_qkvpacked_backward": lambda grad, *_, **__: _backward(_joint(grad)),
    "union": lambda q, *_, **__: _union(q),
    "union_backward": lambda grad, *_, **__: _backward(_union(grad)),
}


def _register(counter: ModuleType) -> None:
    for name, formula in _FORMULAS.items():
        counter.register_flop_formula(getattr(torch.ops.asycmst, name))(formula)


class _AfterImport(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Loads the counter as Python would, then registers, and is gone."""

    def find_spec(self, name: str, path: Any, target: Any = None) -> ModuleSpec | None:
        if name != _COUNTER:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec is None or spec.loader is None:
            return None
        self._loader, spec.loader = spec.loader, self
        return spec

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        assert module.__spec__ is not None
        module.__spec__.loader = module.__loader__ = self._loader
        self._loader.exec_module(module)
        _register(module)


def register_when_counting() -> None:
    """Register now if the counter is loaded, else right after it is."""
    if _COUNTER in sys.modules:
        _register(sys.modules[_COUNTER])
    else:
        sys.meta_path.insert(0, _AfterImport())
