"""Early fusion: one stream over BUS and CEUS stacked as channels."""

import math
from collections import OrderedDict
from dataclasses import dataclass, fields

import torch
from monai.networks.nets.resnet import ResNet
from torch import Tensor, nn

from asycmst.config import AsyCMSTConfig, EncoderKind
from asycmst.encoders import feature_grid
from asycmst.fusion import FeedForwardBlock
from asycmst.heads import FrameSortingHead, MaskDecoder
from asycmst.model import AsyCMST, AsyCMSTOutput
from asycmst.residuals import final_norm
from asycmst.stsa import SelfAttentionBlock
from asycmst.tokens import TokenEmbedding

_NOT_READ = (
    "lower",
    "upper",
    "pixels",
    "update",
    "kv",
    "cross_dropout",
    "fuse",
    "diagnosis",
    "task_place",
    "emulate_layout",
)


@dataclass(frozen=True)
class EarlyFusionConfig(AsyCMSTConfig):
    """The full model that an early fusion is as large as; its fields are those of AsyCMSTConfig.

    Raises:
        ValueError: A choice has no meaning for a single stream.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name in _NOT_READ and value != field.default:
                raise ValueError(
                    f"{field.name} is {value!r}, which early fusion does not read; leave it at "
                    f"{field.default!r}"
                )


class EarlyFusion(nn.Module):
    """One stream: BUS and CEUS are stacked to six channels before the first convolution.

    The same kind of encoder, self-attention, tasks and heads as the full model of `config`, spent
    on one stream: an encoder as large as the full model's two, twice as many layers, and a
    feed-forward width that brings the parameters to those of the full model. What it lacks is
    separate streams and an attention between them.

    Args:
        config: of the full model that this one is compared with.
    """

    def __init__(self, config: EarlyFusionConfig) -> None:
        super().__init__()
        self.config = config
        layers = 2 * config.layers
        places = math.prod(feature_grid(config))
        self.encoder = SixChannelEncoder(config.encoder, config.dim)
        self.embed = TokenEmbedding(
            config.frames, places, config.dim, config.position_std, config.positions
        )
        self.attention = nn.ModuleList(SelfAttentionBlock(config) for _ in range(layers))
        self.norm = final_norm(config.norm, config.dim)
        self.fc = nn.Linear(config.dim, 2)
        self.frame_sorting = (
            FrameSortingHead(config.dim, config.fss_hidden) if config.sorts_frames else None
        )
        self.mask_decoder = (
            MaskDecoder(config.dim, config.decoder_channels) if config.segments_nodule else None
        )
        with torch.device("meta"):
            full = parameter_count(AsyCMST(config))
            narrowest = parameter_count(FeedForwardBlock(config, 1))
            unit = parameter_count(FeedForwardBlock(config, 2)) - narrowest
        spare = full - parameter_count(self) - layers * narrowest
        hidden = 1 + max(0, round(spare / (layers * unit)))
        self.ffn = nn.ModuleList(FeedForwardBlock(config, hidden) for _ in range(layers))

    def forward(self, bus: Tensor, ceus: Tensor) -> AsyCMSTOutput:
        """Clips (B, 3, T, H', W') in [0, 1], as the full model takes them; outputs as its."""
        grid = self.encoder(torch.cat((bus, ceus), dim=1))
        tokens = self.embed(grid)
        for attention, ffn in zip(self.attention, self.ffn, strict=True):
            tokens = ffn(attention(tokens, None))
        pooled = self.norm(tokens).mean(dim=(1, 2))
        return AsyCMSTOutput(
            logits=self.fc(pooled),
            frame_scores=None if self.frame_sorting is None else self.frame_sorting(grid),
            mask_logits=(
                None
                if self.mask_decoder is None
                else self.mask_decoder(grid, (bus.shape[3], bus.shape[4]))
            ),
            features=pooled,
        )


class SixChannelEncoder(nn.Module):
    """A residual network over stacked BUS and CEUS frames, its parameters those of two encoders.

    Args:
        kind: blocks and strides of this kind of FrameEncoder, widths times the root of two.
        dim: output channels D.
    """

    def __init__(self, kind: EncoderKind, dim: int) -> None:
        super().__init__()
        tiny = kind == "tiny"
        widths = [11, 23, 34, 45] if tiny else [91, 181, 362, 724]
        network = ResNet(
            "basic",
            [1, 1, 1, 1] if tiny else [2, 2, 2, 2],
            widths,
            spatial_dims=2,
            n_input_channels=6,
            conv1_t_size=5 if tiny else 7,
            conv1_t_stride=2,
            no_max_pool=tiny,
            feed_forward=False,
            bias_downsample=False,
        )
        stages = ("conv1", "bn1", "act", "maxpool", "layer1", "layer2", "layer3", "layer4")
        self.trunk = nn.Sequential(
            OrderedDict(
                (stage, getattr(network, stage))
                for stage in stages
                if not (tiny and stage == "maxpool")
            )
        )
        self.project = nn.Conv2d(widths[-1], dim, kernel_size=1)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, clip: Tensor) -> Tensor:
        """Clip (B, 6, T, H', W') to features (B, T, H, W, D)."""
        batch, _, frames = clip.shape[:3]
        images = clip.transpose(1, 2).flatten(0, 1).contiguous(memory_format=torch.channels_last)
        features: Tensor = self.project(self.trunk(images))
        grid: Tensor = features.permute(0, 2, 3, 1).unflatten(0, (batch, frames))
        return grid


def parameter_count(model: nn.Module) -> int:
    """Number of trained values."""
    return sum(parameter.numel() for parameter in model.parameters())
