"""Layers whose weights lie as oneDNN wants them, with ReLU and residual sum in the same pass.

torch's own layers bring their weights into oneDNN's layout at every call. The operators here are
those that torch's compiler puts in their place; `is_available` says whether they work here.
"""

from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from asycmst.cross_attention import StreamProjection


def is_available(dtype: torch.dtype) -> bool:
    """Whether these layers run in `dtype` on this processor, and oneDNN is not switched off."""
    if not torch.backends.mkldnn.is_available() or not torch.backends.mkldnn.enabled:
        return False
    return dtype in (torch.float32, torch.bfloat16) and _works(dtype)


@cache
def _works(dtype: torch.dtype) -> bool:
    """Whether every operator is there and answers one small input rightly."""
    try:
        if dtype == torch.bfloat16 and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
            return False
        rows = torch.ones(2, 2, dtype=dtype, device="cpu")
        maps = rows.expand(1, 2, 2, 2).contiguous(memory_format=torch.channels_last)
        plain = nn.utils.skip_init(nn.Conv2d, 2, 2, 1, bias=False, dtype=dtype)  # draws nothing
        plain.weight.detach().fill_(1)
        packed = PackedConvolution(plain, 1, (2, 2))
        with torch.no_grad():
            found = [PackedLinear(rows, None, 2, relu=True)(rows), packed(maps)]
            found.append(packed.add_to(maps.clone(), maps))
            return all(bool((x == y).all()) for x, y in zip(found, (2, 2, 3), strict=True))
    except Exception:  # torch's own operators, which another version may have changed in any way
        return False


class PackedLinear(nn.Module):
    """A linear map.

    Args:
        weight: Shape (out, in).
        bias: Shape (out,), or None.
        rows: Expected number of rows of an input; others are possible.
        relu: Whether a ReLU follows.
    """

    def __init__(
        self, weight: Tensor, bias: Tensor | None, rows: int, *, relu: bool = False
    ) -> None:
        super().__init__()
        self.packed = torch.ops.mkldnn._reorder_linear_weight(weight.detach(), rows)
        self.bias = None if bias is None else bias.detach().clone()
        self.then = "relu" if relu else "none"

    def forward(self, values: Tensor) -> Tensor:
        """Values (..., in) to (..., out)."""
        out: Tensor = torch.ops.mkldnn._linear_pointwise(
            values, self.packed, self.bias, self.then, [], ""
        )
        return out


class PackedProjection(nn.Module):
    """A `StreamProjection`; see there.

    Args:
        projection: Whose weights are taken.
        rows: Expected number of tokens.
        together: Whether Q, K and V are made of the same tokens, by one product, or Q by one and
            K and V by another.
    """

    def __init__(self, projection: StreamProjection, rows: int, together: bool) -> None:
        super().__init__()
        self.heads = projection.heads
        weight, bias, dim = projection.weight, projection.bias, projection.in_features
        first, rest = (None, None) if bias is None else (bias[:dim], bias[dim:])
        if together:
            self.all = PackedLinear(weight, bias, rows)
        else:
            self.queries = PackedLinear(weight[:dim], first, rows)
            self.keys_values = PackedLinear(weight[dim:], rest, rows)

    def packed(self, tokens: Tensor) -> Tensor:
        """All three of the same tokens, (B, T, N, 3, H, d)."""
        qkv: Tensor = self.all(tokens).unflatten(-1, (3, self.heads, -1))
        return qkv

    def query(self, tokens: Tensor) -> Tensor:
        """Q alone, (B, T, N, H, d)."""
        query: Tensor = self.queries(tokens).unflatten(-1, (self.heads, -1))
        return query

    def key_value(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """K and V, each (B, T, N, H, d), by one product."""
        key, value = self.keys_values(tokens).unflatten(-1, (2, self.heads, -1)).unbind(3)
        return key, value


class PackedConvolution(nn.Module):
    """A 2-D convolution.

    Args:
        source: Whose weights are taken.
        images: Expected number of images of a call; others are possible.
        size: Rows and columns of an image.
        relu: Whether a ReLU follows.
    """

    def __init__(
        self, source: nn.Conv2d, images: int, size: tuple[int, int], *, relu: bool = False
    ) -> None:
        super().__init__()
        self.place = (source.padding, source.stride, source.dilation, source.groups)
        self.packed = torch.ops.mkldnn._reorder_convolution_weight(
            source.weight.detach(), *self.place, [images, source.in_channels, *size]
        )
        self.bias = None if source.bias is None else source.bias.detach().clone()
        self.then = "relu" if relu else "none"
        self.size = output_size(source, size)

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, C, H, W), channels last, to maps of the same layout."""
        maps: Tensor = torch.ops.mkldnn._convolution_pointwise(
            images, self.packed, self.bias, *self.place, self.then, [], ""
        )
        return maps

    def add_to(self, residual: Tensor, images: Tensor) -> Tensor:
        """ReLU(residual + convolution), written to `residual`."""
        maps: Tensor = torch.ops.mkldnn._convolution_pointwise_.binary(
            residual, images, self.packed, self.bias, *self.place, "add", 1.0, "relu", [], ""
        )
        return maps


class PackedBlock(nn.Module):
    """A basic residual block whose norms are folded; its input is overwritten."""

    def __init__(self, block: Any, images: int, size: tuple[int, int]) -> None:
        super().__init__()
        self.first = PackedConvolution(block.conv1, images, size, relu=True)
        self.second = PackedConvolution(block.conv2, images, self.first.size)
        self.shortcut = (
            None if block.downsample is None else PackedConvolution(block.downsample, images, size)
        )
        self.size = self.second.size

    def forward(self, maps: Tensor) -> Tensor:
        """Maps (B, C, H, W) to maps (B, C', H', W')."""
        inner = self.first(maps)
        residual = maps if self.shortcut is None else self.shortcut(maps)
        return self.second.add_to(residual, inner)


def packed_encoder(
    trunk: Any, project: nn.Conv2d, images: int, size: tuple[int, int]
) -> nn.Sequential:
    """Trunk and 1x1 convolution of a `FrameEncoder` whose norms are folded.

    Args:
        trunk: On the CPU, in the dtype that it will run in.
        project: The 1x1 convolution.
        images: Expected number of images of a call.
        size: Rows and columns of a frame.
    """
    first = PackedConvolution(trunk.conv1, images, size, relu=True)
    layers: list[nn.Module] = [first]
    size = first.size
    if hasattr(trunk, "maxpool"):
        layers.append(trunk.maxpool)
        size = output_size(trunk.maxpool, size)
    for stage in (trunk.layer1, trunk.layer2, trunk.layer3, trunk.layer4):
        for block in stage:
            packed = PackedBlock(block, images, size)
            layers.append(packed)
            size = packed.size
    layers.append(PackedConvolution(project, images, size))
    return nn.Sequential(*layers)


def output_size(layer: nn.Conv2d | nn.MaxPool2d, size: tuple[int, int]) -> tuple[int, int]:
    """Rows and columns that a layer makes of an image."""
    place: list[Any] = [layer.kernel_size, layer.stride, layer.padding]
    kernel, stride, padding = (x if isinstance(x, tuple) else (x, x) for x in place)
    rows, columns = (
        (length + 2 * p - k) // s + 1
        for length, k, s, p in zip(size, kernel, stride, padding, strict=True)
    )
    return rows, columns
