"""What a model costs: parameters, arithmetic, attention pairs and memory, part by part.

Nothing is computed: the model runs on PyTorch's meta device, where tensors have a size and no
values, so the table of the paper's model takes a few seconds.
"""

import math
import weakref
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import torch
from rich.table import Table
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from asycmst.config import AsyCMSTConfig, Strategy
from asycmst.encoders import PairedEncoders, feature_grid
from asycmst.model import AsyCMST

_PARTS: dict[str, tuple[str, ...]] = {
    "frame encoders": ("encoders",),
    "positions": ("embed_bus", "embed_ceus"),
    "self-attention": ("self_bus", "self_ceus"),
    "cross-attention": ("cross",),
    "feed-forward": ("ffn_bus", "ffn_ceus"),
    "final norms, classifier": ("norm_bus", "norm_ceus", "classifier"),
    "frame self-sorting": ("frame_sorting",),
    "mask decoder": ("mask_decoder",),
}
_BESIDE_CROSS = ("self_bus", "self_ceus", "ffn_bus", "ffn_ceus")


class Part(NamedTuple):
    """One part of a model.

    Attributes:
        name: what it is.
        modules: how many the model has of it, over streams and layers; shared ones once.
        parameters: trained values, shared ones once.
        flops: multiplications and additions of one clip pair forward, 2 for each pair of them.
    """

    name: str
    modules: int
    parameters: int
    flops: int


class Interactions(NamedTuple):
    """Query-key pairs of one head, over both streams of one layer."""

    self_attention: int
    cross_attention: int


class Complexity(NamedTuple):
    """The cost of a model for one clip pair in float32.

    Attributes:
        parts: in the order of the forward.
        interactions: of a layer that has the cross-attention.
        weight_bytes: parameters and buffers.
        inference_bytes: the most that live tensors hold at one moment of a forward without
            gradients, inputs included, weights not.
        training_bytes: what a training forward keeps for its backward, weights not. Attention
            over all tokens counts with its weight matrices, which a fused kernel does not keep.
    """

    parts: list[Part]
    interactions: Interactions
    weight_bytes: int
    inference_bytes: int
    training_bytes: int


def cross_interactions(strategy: Strategy | None, frames: int, places: int) -> int:
    """Query-key pairs per head and layer, both directions together (Section 4.6, Table 5)."""
    tokens = frames * places
    keys_of_both_queries = {
        "global": 2 * tokens,
        "symmetric": 2 * (places + frames - 1),
        "asymmetric": places + frames,
        "spatial": 2 * places,
        "temporal": 2 * frames,
        None: 0,
    }
    return tokens * keys_of_both_queries[strategy]


def self_interactions(config: AsyCMSTConfig, places: int) -> int:
    """Query-key pairs per head and layer, both streams together; a mean over the heads."""
    tokens = config.frames * places
    keys = {
        "joint": 2 * tokens,
        "factorised": 2 * (config.frames + places),
        "dot_product": config.frames + places,
    }
    return tokens * keys[config.stsa]


def complexity(config: AsyCMSTConfig) -> Complexity:
    """The cost of the model of a configuration at its longest clip."""
    with torch.device("meta"):
        model = AsyCMST(config).eval()
        clip = torch.empty(1, 3, config.frames, *config.frame_size)
    places = math.prod(feature_grid(config))
    flops = _flops(model, clip)
    return Complexity(
        parts=[_part(model, flops, name, stems) for name, stems in _PARTS.items()],
        interactions=Interactions(
            self_interactions(config, places),
            cross_interactions(config.cross_attention, config.frames, places),
        ),
        weight_bytes=sum(_bytes(x) for x in [*model.parameters(), *model.buffers()]),
        inference_bytes=_inference_bytes(model, clip),
        training_bytes=_training_bytes(model, clip),
    )


def _flops(model: AsyCMST, clip: Tensor) -> dict[str, int]:
    """FLOPs of a forward by the path of the module."""
    model.requires_grad_(False)
    with FlopCounterMode(display=False) as counter:
        model(clip, clip)
    model.requires_grad_(True)
    root = f"{type(model).__name__}."
    flops = {
        name.removeprefix(root): sum(counts.values())
        for name, counts in counter.get_flop_counts().items()
    }
    # A layer calls methods of its cross-attention that the counter does not see as a module.
    for number in range(len(model.layers)):
        layer = f"layers.{number}"
        others = (flops.get(f"{layer}.{stem}", 0) for stem in _BESIDE_CROSS)
        flops[f"{layer}.cross"] = flops.get(layer, 0) - sum(others)
    return flops


def _part(model: AsyCMST, flops: dict[str, int], name: str, stems: tuple[str, ...]) -> Part:
    found = {
        path: module
        for path, module in model.named_modules(remove_duplicate=False)
        if path.split(".")[-1] in stems and path.count(".") in (0, 2)
    }
    parameters = {p for module in found.values() for p in module.parameters()}
    return Part(
        name,
        _count(found.values()),
        sum(p.numel() for p in parameters),
        sum(flops.get(path, 0) for path in found),
    )


def _count(modules: Iterable[nn.Module]) -> int:
    """Different modules with parameters; paired encoders count by encoder."""
    single: set[nn.Module] = set()
    for module in modules:
        single |= set(module.children()) if isinstance(module, PairedEncoders) else {module}
    return sum(1 for module in single if any(True for _ in module.parameters()))


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


class _LiveBytes(TorchDispatchMode):
    """Follows the memory that tensors made inside the block hold, and its peak."""

    def __init__(self, held: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.held = self.peak = held
        self._known: set[int] = set()

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, Tensor):
                self._follow(leaf.untyped_storage())
        return out

    def _follow(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key in self._known:
            return
        self._known.add(key)
        size = storage.nbytes()
        self.held += size
        self.peak = max(self.peak, self.held)
        weakref.finalize(storage, self._drop, key, size)

    def _drop(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.held -= size


def _inference_bytes(model: nn.Module, clip: Tensor) -> int:
    with _LiveBytes(2 * _bytes(clip)) as live, torch.no_grad():
        model(clip, clip)
    peak: int = live.peak
    return peak


def _training_bytes(model: nn.Module, clip: Tensor) -> int:
    weights = {p.untyped_storage()._cdata for p in [*model.parameters(), *model.buffers()]}
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in weights:
            kept[storage._cdata] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        output = model.train()(clip, clip)
    del output
    model.eval()
    total: int = sum(storage.nbytes() for storage in kept.values())
    return total


def complexity_table(name: str, config: AsyCMSTConfig) -> Table:
    """The cost of a model as a table to print.

    Args:
        name: what to call the model.
        config: of the model.
    """
    found = complexity(config)
    height, width = config.frame_size
    rows, columns = feature_grid(config)
    flops = sum(part.flops for part in found.parts)
    cross = len(config.cross_attention_layers)
    table = Table(
        title=f"{name}: two clips of {config.frames} x {height} x {width}, "
        f"{config.frames} x {rows} x {columns} tokens of width {config.dim}",
        caption=f"pairs of query and key per head: self-attention "
        f"{found.interactions.self_attention:,} in each of {config.layers} layers, "
        f"cross-attention {found.interactions.cross_attention:,} in {cross}\n"
        f"memory in float32: weights {_megabytes(found.weight_bytes)}, and per sample "
        f"{_megabytes(found.inference_bytes)} for inference, "
        f"{_megabytes(found.training_bytes)} kept for the backward\n"
        "(attention over all tokens counted unfused: a fused kernel keeps less)",
        caption_justify="left",
        title_justify="left",
    )
    table.add_column("part")
    for heading in ("modules", "parameters", "GFLOP per sample", "share"):
        table.add_column(heading, justify="right")
    for part in found.parts:
        table.add_row(
            part.name,
            f"{part.modules}",
            f"{part.parameters:,}",
            f"{part.flops / 1e9:.3f}",
            f"{part.flops / flops:.1%}",
        )
    table.add_section()
    table.add_row(
        "all", "", f"{sum(p.parameters for p in found.parts):,}", f"{flops / 1e9:.3f}", "100.0%"
    )
    return table


def _megabytes(count: int) -> str:
    return f"{count / 1e6:,.1f} MB"
