"""ViViT (Arnab et al., ICCV 2021) in two branches: transformers over tubelets of a clip."""

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from asycmst.baselines.late_fusion import LateFusion, LateFusionConfig
from asycmst.network_config import check_count, check_real

Encoder = Literal["factorised", "joint"]


@dataclass(frozen=True)
class ViViTConfig(LateFusionConfig):
    """Two ViViT networks; the defaults are ViViT-B/16x2 with the factorised encoder.

    Attributes:
        encoder: "factorised" is model 2, a transformer over the places of each moment and then
            one over moments; "joint" is model 1, one over all tubelets.
        patch: Side of a tubelet in pixels.
        tubelet: Frames of a tubelet.
        dim: Token width D.
        heads: Attention heads; they divide `dim`.
        layers: Of the transformer over places, or over all tubelets.
        temporal_layers: Of the transformer over moments; "joint" has none.
        ffn_dim: Hidden width of the feed-forward networks.
        dropout: Probability in attention and feed-forward networks.
        position_std: Spread of the untrained position tables. Far below the spread of the tokens
            a short training tells neither places nor moments apart; the demo starts at 1.
    """

    encoder: Encoder = "factorised"
    patch: int = 16
    tubelet: int = 2
    dim: int = 768
    heads: int = 12
    layers: int = 12
    temporal_layers: int = 4
    ffn_dim: int = 3072
    dropout: float = 0.0
    position_std: float = 0.02

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("patch", "tubelet", "dim", "heads", "layers", "temporal_layers", "ffn_dim"):
            check_count(name, getattr(self, name))
        for name in ("dropout", "position_std"):
            check_real(name, getattr(self, name))
        if self.position_std <= 0:
            raise ValueError(f"position_std is {self.position_std}; choose a spread > 0")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout is {self.dropout}; choose a probability in [0, 1)")
        if self.encoder not in get_args(Encoder):
            raise ValueError(f"encoder is {self.encoder!r}; choose 'factorised' or 'joint'")
        if self.dim % self.heads:
            raise ValueError(
                f"dim {self.dim} is not a multiple of heads {self.heads}; change either"
            )
        if self.frames % self.tubelet:
            raise ValueError(
                f"frames {self.frames} is not a multiple of tubelet {self.tubelet}; change either"
            )
        if any(side % self.patch for side in self.frame_size):
            raise ValueError(
                f"image_size {self.image_size} is not a multiple of patch {self.patch}; change "
                "either"
            )

    @classmethod
    def demo(cls) -> "ViViTConfig":
        """For clips of 8 x 64 x 64, about as large as the demo's AsyCMST."""
        return cls(
            frames=8,
            image_size=64,
            dim=48,
            heads=2,
            layers=2,
            temporal_layers=1,
            ffn_dim=4 * 48,
            position_std=1.0,
        )

    @property
    def grid(self) -> tuple[int, int]:
        """Moments and places of the longest clip, as tubelets."""
        height, width = self.frame_size
        return self.frames // self.tubelet, (height // self.patch) * (width // self.patch)


class ViViT(LateFusion):
    """Late fusion of two ViViT networks.

    Args:
        config: Sizes; None is `ViViTConfig.paper()`.
    """

    def __init__(self, config: ViViTConfig | None = None) -> None:
        config = ViViTConfig.paper() if config is None else config
        kinds = {"factorised": FactorisedEncoder, "joint": JointEncoder}
        super().__init__(config, lambda: kinds[config.encoder](config), config.dim)


class Tubelets(nn.Module):
    """A linear map of every tubelet, which do not overlap."""

    def __init__(self, config: ViViTConfig) -> None:
        super().__init__()
        size = (config.tubelet, config.patch, config.patch)
        self.frames = config.tubelet
        self.project = nn.Conv3d(3, config.dim, size, stride=size)

    def forward(self, clip: Tensor) -> Tensor:
        """Clip (B, 3, T, H', W') to tokens (B, moments, places, D).

        Raises:
            ValueError: The frames make no whole number of tubelets.
        """
        if clip.shape[2] % self.frames:
            raise ValueError(
                f"the clip has {clip.shape[2]} frames, a tubelet {self.frames}; give a multiple, "
                "or set tubelet"
            )
        tokens: Tensor = self.project(clip).flatten(3).permute(0, 2, 3, 1)
        return tokens


class TokenTransformer(nn.Module):
    """Tokens with positions, preceded by one that collects what the classifier sees.

    Args:
        config: Widths, heads and dropout.
        length: The most tokens.
        layers: Pre-norm transformer layers (attention, then two linear maps around a GELU).
    """

    def __init__(self, config: ViViTConfig, length: int, layers: int) -> None:
        super().__init__()
        self.collector = nn.Parameter(torch.zeros(1, 1, config.dim))
        self.positions = nn.Parameter(torch.empty(1, 1 + length, config.dim))
        nn.init.normal_(self.positions, std=config.position_std)
        self.layers = nn.Sequential(
            *(
                nn.TransformerEncoderLayer(
                    config.dim,
                    config.heads,
                    config.ffn_dim,
                    config.dropout,
                    activation="gelu",
                    batch_first=True,
                    norm_first=True,
                )
                for _ in range(layers)
            )
        )
        self.norm = nn.LayerNorm(config.dim)

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens (B, n, D), n at most `length`, to features (B, D)."""
        tokens = torch.cat((self.collector.expand(tokens.shape[0], -1, -1), tokens), dim=1)
        collected: Tensor = self.norm(self.layers(tokens + self.positions[:, : tokens.shape[1]]))
        return collected[:, 0]


class JointEncoder(nn.Module):
    """Model 1: every tubelet attends to all others."""

    def __init__(self, config: ViViTConfig) -> None:
        super().__init__()
        moments, places = config.grid
        self.embed = Tubelets(config)
        self.transformer = TokenTransformer(config, moments * places, config.layers)

    def forward(self, clip: Tensor) -> Tensor:
        """Clip (B, 3, T, H', W') to features (B, D)."""
        features: Tensor = self.transformer(self.embed(clip).flatten(1, 2))
        return features


class FactorisedEncoder(nn.Module):
    """Model 2: what each moment shows, then how that changes."""

    def __init__(self, config: ViViTConfig) -> None:
        super().__init__()
        moments, places = config.grid
        self.embed = Tubelets(config)
        self.over_places = TokenTransformer(config, places, config.layers)
        self.over_moments = TokenTransformer(config, moments, config.temporal_layers)

    def forward(self, clip: Tensor) -> Tensor:
        """Clip (B, 3, T, H', W') to features (B, D)."""
        tokens = self.embed(clip)
        seen = self.over_places(tokens.flatten(0, 1)).unflatten(0, tokens.shape[:2])
        features: Tensor = self.over_moments(seen)
        return features
