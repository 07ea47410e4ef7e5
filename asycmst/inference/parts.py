"""Parts of a model as inference runs them: same inputs, same outputs, to rounding."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from asycmst.config import Branch
from asycmst.encoders import FrameEncoder, PairedEncoders
from asycmst.inference.folding import fold_norms
from asycmst.stsa import JointSelfAttention
from asycmst_ops import axial_attention


class FoldedEncoders(nn.Module):
    """Both branches' encoders without batch norm; a shared one takes both clips in one call.

    A trunk put in the place of an encoder's own runs as it is.

    Args:
        encoders: Whose weights are taken; in evaluation mode.
        dtype: In which the networks run.
        images: The most images of one call; None is all of them. A processor's caches hold the
            maps of a few.
        pack: What makes one network of a trunk and its 1x1 convolution; None runs one after the
            other.
    """

    def __init__(
        self,
        encoders: PairedEncoders,
        dtype: torch.dtype,
        images: int | None,
        pack: Callable[[nn.Module, nn.Conv2d], nn.Module] | None = None,
    ) -> None:
        super().__init__()
        self.layout = encoders.bus.layout
        self.dtype = dtype
        self.images = images
        self.pack = pack
        self.lower = self._folded(encoders.bus)
        self.upper = self.lower if encoders.ceus is encoders.bus else self._folded(encoders.ceus)

    def forward(self, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
        """Clips (B, 3, T, H', W') to F_B and F_C, each (B, T, H, W, D)."""
        if self.lower is self.upper:
            images = torch.cat((self._images(lower), self._images(upper)))
            grid = self.layout.grid(self._run(self.lower, images), lower.shape[2])
            first, second = grid.chunk(2)
            return first, second
        return self.encode(lower, "lower"), self.encode(upper, "upper")

    def encode(self, clip: Tensor, branch: Branch) -> Tensor:
        """A clip (B, 3, T, H', W') to the grid (B, T, H, W, D) of one branch."""
        network = self.lower if branch == "lower" else self.upper
        return self.layout.grid(self._run(network, self._images(clip)), clip.shape[2])

    def _folded(self, encoder: FrameEncoder) -> nn.Module:
        folded = fold_norms(encoder.trunk)  # not where another trunk is put in its place
        network = nn.Sequential(encoder.trunk, encoder.project).to(self.dtype)
        if self.pack is not None and folded:
            return self.pack(encoder.trunk, encoder.project)
        return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]

    def _images(self, clip: Tensor) -> Tensor:
        images = self.layout.images(clip).to(self.dtype)
        return images.contiguous(memory_format=torch.channels_last)

    def _run(self, network: nn.Module, images: Tensor) -> Tensor:
        if self.images is None or len(images) <= self.images:
            maps: Tensor = network(images)
            return maps
        return torch.cat([network(some) for some in images.split(self.images)])


class DecoderInPieces(nn.Module):
    """A `MaskDecoder` that takes a few frames at a time, so that their maps stay in the caches.

    Args:
        decoder: Which treats every frame on its own.
        images: The most frames at a time.
    """

    def __init__(self, decoder: nn.Module, images: int) -> None:
        super().__init__()
        self.decoder = decoder
        self.images = images

    def forward(self, features: Tensor, size: tuple[int, int]) -> Tensor:
        """Features (B, T, H, W, D) to mask logits (B, T, *size)."""
        pieces = features.flatten(0, 1).split(self.images)
        masks = torch.cat([self.decoder(piece[None], size)[0] for piece in pieces])
        return masks.reshape(*features.shape[:2], *size)


class FlatAttention(nn.Module):
    """`JointSelfAttention` by the axial operator, a clip's tokens being one frame of T * N places.

    The compiled operator reads the packed projection in place and is faster than torch's fused
    attention on a processor, in bfloat16 twice as fast.
    """

    def __init__(self, attention: JointSelfAttention) -> None:
        super().__init__()
        self.heads = attention.heads
        self.qkv = attention.qkv
        self.output = attention.output

    def forward(self, tokens: Tensor, valid: Tensor | None) -> Tensor:
        """Tokens (B, T, N, D) to tokens (B, T, N, D)."""
        packed = self.qkv(tokens).flatten(1, 2)[:, None].unflatten(-1, (3, self.heads, -1))
        q, k, v = packed.unbind(3)
        mask = None if valid is None else valid.expand(tokens.shape[:3]).flatten(1)[:, None]
        mixed = axial_attention(q, k, v, axis="space", key_mask=mask)
        projected: Tensor = self.output(mixed.reshape(tokens.shape))
        return projected


class InFloat32(nn.Module):
    """A small part of a model of low precision that computes in float32."""

    def __init__(self, part: nn.Module) -> None:
        super().__init__()
        self.part = part

    def forward(self, *inputs: Tensor | None) -> object:
        """As the part, of floating inputs of any dtype."""
        return self.part(
            *(x.float() if x is not None and x.is_floating_point() else x for x in inputs)
        )
