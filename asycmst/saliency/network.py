"""The saliency branch: a small U-Net that marks where the diagnosis is to be made."""

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

STRIDE = 32  # of the deepest stage; images are multiples of it
STAGES = 6
GROUPS = 4
_CONVOLUTIONS = 3  # the first stages; the others mix channels by `DepthwiseMLP`


class SaliencyNet(nn.Module):
    """A U-Net of six stages with additive skips; it needs no pixel labels of its own.

    The first three stages are 3x3 convolutions, the others `DepthwiseMLP`. Stages 1 to 5 are
    normalised over groups and halve the image, stage 6 keeps its size; the decoder mirrors them.

    Args:
        widths: Channels of the six stages, multiples of 4.
    """

    def __init__(self, widths: tuple[int, ...]) -> None:
        super().__init__()
        channels = (3, *widths)
        self.stages = nn.ModuleList(
            _mixer(number, before, after)
            for number, (before, after) in enumerate(pairwise(channels), start=1)
        )
        self.stage_norms = nn.ModuleList(nn.GroupNorm(GROUPS, width) for width in widths[:-1])
        self.decoders = nn.ModuleList(
            _mixer(number, channels[number], channels[number - 1])
            for number in range(len(widths), 1, -1)
        )
        self.decoder_norms = nn.ModuleList(
            nn.GroupNorm(GROUPS, width) for width in reversed(widths[:-1])
        )
        self.logit = nn.Conv2d(widths[0], 1, kernel_size=1)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Marks an image.

        Args:
            image: Floating, shape (B, 3, H, W), H and W multiples of 32.

        Returns:
            Mask logits (B, 1, H, W) and the mean of the deepest stage (B, widths[-1]).
        """
        maps = image
        skips = []
        for stage, norm in zip(self.stages[:-1], self.stage_norms, strict=True):
            maps = F.gelu(F.max_pool2d(norm(stage(maps)), 2))
            skips.append(maps)
        maps = F.gelu(self.stages[-1](maps))
        embedding = maps.mean(dim=(2, 3))
        for decoder, norm in zip(self.decoders, self.decoder_norms, strict=True):
            maps = norm(decoder(maps))
            skip = skips.pop()
            if maps.shape[2:] != skip.shape[2:]:  # all but the first, whose size stage 5 has
                maps = _double(maps)
            maps = F.gelu(maps) + skip
        return _double(self.logit(maps)), embedding


class DepthwiseMLP(nn.Module):
    """A channel MLP with 3x3 depthwise convolutions between its layers.

    z = LN(x); u = GELU(DW(W1 z)); v = GELU(DW(W2 u)); y = W3 LN(v + alpha z), where the norm over
    channels is one and the same, u has half of the channels and alpha starts at 1.

    Args:
        width: Input channels, even.
        out: Output channels.
    """

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        half = width // 2
        self.norm = nn.LayerNorm(width)
        self.squeeze = nn.Linear(width, half)
        self.squeeze_places = nn.Conv2d(half, half, kernel_size=3, padding=1, groups=half)
        self.expand = nn.Linear(half, width)
        self.expand_places = nn.Conv2d(width, width, kernel_size=3, padding=1, groups=width)
        self.alpha = nn.Parameter(torch.ones(()))
        self.out = nn.Linear(width, out)

    def forward(self, maps: Tensor) -> Tensor:
        """Maps (B, width, H, W) to maps (B, out, H, W)."""
        z = self.norm(maps.movedim(1, -1))
        u = F.gelu(self.squeeze_places(self.squeeze(z).movedim(-1, 1)))
        v = F.gelu(self.expand_places(self.expand(u.movedim(1, -1)).movedim(-1, 1)))
        y: Tensor = self.out(self.norm(v.movedim(1, -1) + self.alpha * z))
        return y.movedim(-1, 1)


def _mixer(number: int, before: int, after: int) -> nn.Module:
    if number <= _CONVOLUTIONS:
        return nn.Conv2d(before, after, kernel_size=3, padding=1)
    return DepthwiseMLP(before, after)


def _double(maps: Tensor) -> Tensor:
    return F.interpolate(maps, scale_factor=2, mode="bilinear", align_corners=True)
