"""The model as one writes it first: the peer of the benchmarks of whole models.

torch's attention modules with the weights returned, cross-attention by einsum with all weights in
memory, tensors in their default layout, nothing compiled. It takes the weights of a model with
joint self-attention and the asymmetric cross-attention, as the paper's and the authors' are.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from asycmst import AsyCMST
from asycmst.cross_attention import CrossModalAttention
from asycmst.encoders import FrameEncoder
from asycmst.heads import MaskDecoder
from asycmst.stsa import JointSelfAttention


class NaiveSelfAttention(nn.Module):
    """nn.MultiheadAttention over all T * N tokens, its weights returned."""

    def __init__(self, ours: JointSelfAttention) -> None:
        super().__init__()
        dim = ours.output.in_features
        self.attention = nn.MultiheadAttention(
            dim, ours.heads, dropout=ours.dropout, batch_first=True
        )
        self.attention.in_proj_weight.data.copy_(ours.qkv.weight.data)
        self.attention.in_proj_bias.data.copy_(ours.qkv.bias.data)
        self.attention.out_proj.load_state_dict(ours.output.state_dict())

    def forward(self, tokens: Tensor, valid: Tensor | None) -> Tensor:
        """Tokens (B, T, N, D) to the same."""
        flat = tokens.flatten(1, 2)
        mixed, self.weights = self.attention(flat, flat, flat, need_weights=True)
        return mixed.reshape(tokens.shape)


class NaiveCrossAttention(nn.Module):
    """Eq 8 and Eq 10 with matrix products and softmax, every intermediate in memory."""

    def __init__(self, ours: CrossModalAttention) -> None:
        super().__init__()
        self.heads = ours.project_bus.heads
        for name in ("project_bus", "project_ceus", "output_bus", "output_ceus"):
            source = getattr(ours, name)
            layer = nn.Linear(source.in_features, source.out_features)
            layer.load_state_dict(source.state_dict())
            setattr(self, name, layer)

    def forward(self, bus: Tensor, ceus: Tensor, valid: Tensor | None) -> tuple[Tensor, Tensor]:
        """Streams (B, T, N, D) to what each reads from the other."""
        q_bus, k_bus, v_bus = self._heads(self.project_bus, bus)
        q_ceus, k_ceus, v_ceus = self._heads(self.project_ceus, ceus)
        return self._over_time(q_bus, k_ceus, v_ceus), self._over_space(q_ceus, k_bus, v_bus)

    def read_ceus(self, bus: Tensor, from_ceus: Tensor, valid: Tensor | None) -> Tensor:
        """The BUS stream alone."""
        query, _, _ = self._heads(self.project_bus, bus, "q")
        _, key, value = self._heads(self.project_ceus, from_ceus, "kv")
        return self._over_time(query, key, value)

    def read_bus(self, ceus: Tensor, from_bus: Tensor, valid: Tensor | None) -> Tensor:
        """The CEUS stream alone."""
        query, _, _ = self._heads(self.project_ceus, ceus, "q")
        _, key, value = self._heads(self.project_bus, from_bus, "kv")
        return self._over_space(query, key, value)

    def _over_time(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        scores = torch.einsum("btnhd,bunhd->bnhtu", q, k) / math.sqrt(q.shape[-1])
        self.time_weights = scores.softmax(-1)
        mixed = torch.einsum("bnhtu,bunhd->btnhd", self.time_weights, v)
        return self.output_bus(mixed.flatten(-2))

    def _over_space(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        scores = torch.einsum("btnhd,btmhd->bthnm", q, k) / math.sqrt(q.shape[-1])
        self.space_weights = scores.softmax(-1)
        mixed = torch.einsum("bthnm,btmhd->btnhd", self.space_weights, v)
        return self.output_ceus(mixed.flatten(-2))

    def _heads(self, linear: nn.Linear, tokens: Tensor, wanted: str = "qkv") -> list[Any]:
        """Q, K and V by one product, or those that are wanted by one each; the others are None."""
        if wanted == "qkv":
            packed = linear(tokens).chunk(3, dim=-1)
            return [x.unflatten(-1, (self.heads, -1)) for x in packed]
        made: list[Any] = [None] * 3
        weights, biases = linear.weight.chunk(3), linear.bias.chunk(3)
        for index, name in enumerate("qkv"):
            if name in wanted:
                flat = F.linear(tokens, weights[index], biases[index])
                made[index] = flat.unflatten(-1, (self.heads, -1))
        return made


class NaiveEncoder(nn.Module):
    """The same network on images in the default layout."""

    def __init__(self, ours: FrameEncoder) -> None:
        super().__init__()
        self.trunk, self.project = ours.trunk, ours.project

    def forward(self, clip: Tensor) -> Tensor:
        """Clip (B, 3, T, H', W') to features (B, T, H, W, D)."""
        batch, channels, frames, height, width = clip.shape
        images = clip.transpose(1, 2).reshape(batch * frames, channels, height, width)
        maps = self.project(self.trunk(images))
        return maps.reshape(batch, frames, *maps.shape[1:]).permute(0, 1, 3, 4, 2).contiguous()


class NaiveDecoder(MaskDecoder):
    """The same network on maps in the default layout."""

    def forward(self, features: Tensor, size: tuple[int, int]) -> Tensor:
        """Features (B, T, H, W, D) to mask logits (B, T, *size)."""
        images = features.flatten(0, 1).permute(0, 3, 1, 2).contiguous()
        logits: Tensor = self.logit(self.doublings(images))
        return logits.reshape(*features.shape[:2], *size)


def naive_model(ours: AsyCMST) -> AsyCMST:
    """A model with the weights of `ours` and naive parts in place of its own."""
    model = AsyCMST(ours.config)
    model.load_state_dict(ours.state_dict())
    for parameter in model.parameters():
        parameter.data = parameter.data.contiguous()
    shared = model.encoders.ceus is model.encoders.bus
    model.encoders.bus = NaiveEncoder(model.encoders.bus)
    model.encoders.ceus = model.encoders.bus if shared else NaiveEncoder(model.encoders.ceus)
    if model.mask_decoder is not None:
        model.mask_decoder.__class__ = NaiveDecoder
    for layer in model.layers:
        for block in (layer.self_bus, layer.self_ceus):
            block.attention = NaiveSelfAttention(block.attention)
        layer.cross.attention = NaiveCrossAttention(layer.cross.attention)
    return model
