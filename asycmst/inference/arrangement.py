"""A copy of a model whose parts are those of inference."""

import copy
import math
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import nn

from asycmst.config import AsyCMSTConfig
from asycmst.cross_attention import StreamProjection
from asycmst.encoders import feature_grid
from asycmst.fusion import FeedForwardBlock
from asycmst.inference.onednn import PackedLinear, PackedProjection, packed_encoder
from asycmst.inference.parts import (
    DecoderInPieces,
    FlatAttention,
    FoldedEncoders,
    InFloat32,
)
from asycmst.model import AsyCMST
from asycmst.stsa import JointSelfAttention
from asycmst_ops import info

Part = TypeVar("Part", bound=nn.Module)

# Frames of one call on a CPU, as pixels: their maps should stay in its caches.
_PIXELS = 8 * 224 * 224


def arranged(model: AsyCMST, device: torch.device, dtype: torch.dtype, packs: bool) -> AsyCMST:
    """A copy of a model with parts for inference in place of its own.

    Args:
        model: Stays as it is.
        device: Of the copy.
        dtype: Of the large parts. Clips are brought to the encoders' range in their own dtype, and
            the two small heads compute in float32 where this is bfloat16.
        packs: Whether weights are laid out for oneDNN.
    """
    config = model.config
    network = _copied(model).to(device, torch.float32 if dtype == torch.bfloat16 else dtype)
    on_cpu = device.type == "cpu"
    images = max(1, _PIXELS // math.prod(config.frame_size))

    def pack_encoder(trunk: nn.Module, project: nn.Conv2d) -> nn.Module:
        return packed_encoder(trunk, project, images, config.frame_size)

    encoders = FoldedEncoders(
        network.encoders, dtype, images if on_cpu else None, pack_encoder if packs else None
    )
    network.add_module("encoders", encoders)
    large = [network.embed_bus, network.embed_ceus, network.layers]
    large += [network.norm_bus, network.norm_ceus]
    for part in large:
        part.to(dtype)
    if dtype == torch.bfloat16:
        network.add_module("classifier", InFloat32(network.classifier))
        if network.frame_sorting is not None:
            network.add_module("frame_sorting", InFloat32(network.frame_sorting))
    if on_cpu and info()["cpu"]["kernel"] == "csrc":
        _replace(network.layers, JointSelfAttention, FlatAttention)
    if network.mask_decoder is not None:
        decoder = network.mask_decoder.to(dtype)
        if on_cpu:
            pieces = DecoderInPieces(decoder, images)
            network.add_module("mask_decoder", pieces)
    if packs:
        _pack_layers(network.layers, config)
    return network


def _copied(model: AsyCMST) -> AsyCMST:
    """Modules of its own in evaluation mode, with weights of its own and without gradients."""
    own: dict[int, object] = {}
    for weight in model.parameters():
        own[id(weight)] = nn.Parameter(weight.detach().clone(), requires_grad=False)
    for buffer in model.buffers():
        own[id(buffer)] = buffer.detach().clone()
    return copy.deepcopy(model, own).eval()


def _pack_layers(layers: nn.Module, config: AsyCMSTConfig) -> None:
    tokens = config.frames * math.prod(feature_grid(config))
    together = config.update == "parallel" and config.kv == "stsa"

    def feed_forward(block: FeedForwardBlock) -> FeedForwardBlock:
        first, second = (x for x in block.network if isinstance(x, nn.Linear))
        block.network = nn.Sequential(
            PackedLinear(first.weight, first.bias, tokens, relu=True),
            PackedLinear(second.weight, second.bias, tokens),
        )
        return block

    _replace(layers, FeedForwardBlock, feed_forward)
    _replace(layers, StreamProjection, lambda x: PackedProjection(x, tokens, together))
    _replace(layers, nn.Linear, lambda x: PackedLinear(x.weight, x.bias, tokens))


def _replace(module: nn.Module, kind: type[Part], change: Callable[[Part], nn.Module]) -> None:
    """Change every part of a kind below `module`."""
    for name, child in list(module.named_children()):
        if isinstance(child, kind):
            setattr(module, name, change(child))
        else:
            _replace(child, kind, change)
