"""R(2+1)D (Tran et al., CVPR 2018) in two branches: a residual network of factorised convolutions.

A convolution over time and place is one over place, then one over time, with a norm and a
nonlinearity in between.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from torch import Tensor, nn

from asycmst.baselines.late_fusion import LateFusion, LateFusionConfig
from asycmst.network_config import check_tuple


@dataclass(frozen=True)
class R2Plus1DConfig(LateFusionConfig):
    """Two R(2+1)D networks; the defaults are the 18 layers of Tran et al., Table 1.

    Attributes:
        widths: Channels of the four stages; all but the first halve time, height and width.
        blocks: Residual blocks of each stage, two convolutions each.
    """

    widths: tuple[int, ...] = (64, 128, 256, 512)
    blocks: tuple[int, ...] = (2, 2, 2, 2)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("widths", "blocks"):
            check_tuple(name, getattr(self, name))
        if not self.widths or len(self.widths) != len(self.blocks):
            raise ValueError(
                f"widths {self.widths} and blocks {self.blocks} name different numbers of stages; "
                "give one entry of each for every stage"
            )

    @classmethod
    def demo(cls) -> "R2Plus1DConfig":
        """For clips of 8 x 64 x 64, about as large as the demo's AsyCMST."""
        return cls(frames=8, image_size=64, widths=(8, 16, 24, 32), blocks=(1, 1, 1, 1))


class R2Plus1D(LateFusion):
    """Late fusion of two R(2+1)D networks.

    Args:
        config: Sizes; None is `R2Plus1DConfig.paper()`.
    """

    def __init__(self, config: R2Plus1DConfig | None = None) -> None:
        config = R2Plus1DConfig.paper() if config is None else config
        super().__init__(
            config, lambda: VideoResNet(config.widths, config.blocks), config.widths[-1]
        )


class VideoResNet(nn.Sequential):
    """Clips (B, 3, T, H', W') to features (B, `widths[-1]`), the mean over time and place."""

    def __init__(self, widths: tuple[int, ...], blocks: tuple[int, ...]) -> None:
        stem = FactorisedConvolution(3, widths[0], 7, (1, 2))
        super().__init__(
            stem,
            _normed(widths[0]),
            *_blocks(widths, blocks),
            nn.AdaptiveAvgPool3d(1),
            nn.Flatten(),
        )
        for module in self.modules():
            if isinstance(module, nn.Conv3d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


def _blocks(widths: tuple[int, ...], blocks: tuple[int, ...]) -> Iterator[nn.Module]:
    for number, (before, width) in enumerate(pairwise((widths[0], *widths))):
        yield ResidualBlock(before, width, stride=1 if number == 0 else 2)
        for _ in range(blocks[number] - 1):
            yield ResidualBlock(width, width, stride=1)


class ResidualBlock(nn.Module):
    """Two factorised convolutions around a shortcut, which is projected where the shape changes.

    Args:
        before: Channels of the input.
        width: Channels of the output.
        stride: Of the first convolution, in time, height and width.
    """

    def __init__(self, before: int, width: int, stride: int) -> None:
        super().__init__()
        self.convolutions = nn.Sequential(
            FactorisedConvolution(before, width, 3, (stride, stride)),
            _normed(width),
            FactorisedConvolution(width, width, 3, (1, 1)),
            nn.BatchNorm3d(width),
        )
        self.shortcut = (
            nn.Identity()
            if stride == 1 and before == width
            else nn.Sequential(
                nn.Conv3d(before, width, 1, stride, bias=False), nn.BatchNorm3d(width)
            )
        )
        self.relu = nn.ReLU()

    def forward(self, maps: Tensor) -> Tensor:
        """Maps (B, C, T, H, W) to maps (B, `width`, T / stride, H / stride, W / stride)."""
        result: Tensor = self.relu(self.convolutions(maps) + self.shortcut(maps))
        return result


class FactorisedConvolution(nn.Sequential):
    """A 3 x `size` x `size` convolution as 1 x `size` x `size` and then 3 x 1 x 1.

    Args:
        before: Channels of the input.
        width: Channels of the output.
        size: Of the convolution over place.
        strides: In time, and in height and width.
    """

    def __init__(self, before: int, width: int, size: int, strides: tuple[int, int]) -> None:
        time, place = strides
        between = channels_between(before, width, size)
        super().__init__(
            nn.Conv3d(
                before,
                between,
                (1, size, size),
                stride=(1, place, place),
                padding=(0, size // 2, size // 2),
                bias=False,
            ),
            _normed(between),
            nn.Conv3d(between, width, (3, 1, 1), (time, 1, 1), (1, 0, 0), bias=False),
        )


def channels_between(before: int, width: int, size: int) -> int:
    """Channels M between the two convolutions (Tran et al., Section 3.5).

    The most with which both together have no more weights than the 3 x `size` x `size`
    convolution that they replace.
    """
    over_place = size * size * before
    return 3 * over_place * width // (over_place + 3 * width)


def _normed(width: int) -> nn.Module:
    return nn.Sequential(nn.BatchNorm3d(width), nn.ReLU())
