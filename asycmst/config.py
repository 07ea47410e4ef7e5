"""The choices that make one AsyCMST model, checked where they are made."""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

EncoderKind = Literal["resnet18", "tiny"]
SelfAttentionKind = Literal["joint", "factorised"]
Strategy = Literal["asymmetric", "symmetric", "spatial", "temporal", "global"]
CeusTask = Literal["fss"]
BusTask = Literal["dice"]

_MAX_HEAD_CHANNELS = 256  # what the attention kernels take


@dataclass(frozen=True)
class AsyCMSTConfig:
    """Architecture and loss weights; the defaults are the paper's model (Section 4.1.2).

    Attributes:
        frames: Longest clip, T; shorter clips use the first rows of the position tables.
        image_size: Height and width of a frame in pixels.
        dim: Token width D.
        layers: Depth L of the dual stream.
        heads: Attention heads M of self- and cross-attention; they divide `dim`.
        position_std: Spread of the untrained position tables. Far below the spread of the features
            a short training sees frames without an order; the demo starts at 1.
        encoder: "resnet18" (stride 32), or "tiny" (four blocks of 8 to 32 channels, stride 16)
            for small clips on a CPU.
        stsa: Self-attention over all T * N tokens ("joint") or over space, then time
            ("factorised").
        cross_attention: Which keys of the other modality a token sees (Table 5); None for streams
            that do not interact before the classifier.
        acmst_layers: Layers, counted from 1, that have the cross-attention; None is all of them.
        ffn_dim: Hidden width of the feed-forward networks.
        dropout: Probability in self-attention and feed-forward networks; the cross-attention has
            none.
        ceus_task: "fss", frame self-sorting (Eq 1-4), or None.
        bus_task: "dice", nodule segmentation (Eq 5), or None.
        fss_clamp: Threshold phi of Eq 4.
        fss_weight: w1 of Eq 14; 0 switches the task off as `ceus_task=None` does.
        segmentation_weight: w2 of Eq 14; 0 switches the task off as `bus_task=None` does.
        decoder_channels: Widths of the mask decoder, one for each doubling of the resolution.

    Raises:
        TypeError: A field has the wrong type.
        ValueError: A value, or a combination of values, describes no model.
    """

    frames: int = 16
    image_size: int = 224
    dim: int = 384
    layers: int = 6
    heads: int = 6
    position_std: float = 0.02
    encoder: EncoderKind = "resnet18"
    stsa: SelfAttentionKind = "joint"
    cross_attention: Strategy | None = "asymmetric"
    acmst_layers: tuple[int, ...] | None = None
    ffn_dim: int = 2048
    dropout: float = 0.1
    ceus_task: CeusTask | None = "fss"
    bus_task: BusTask | None = "dice"
    fss_clamp: float = 0.9
    fss_weight: float = 0.4
    segmentation_weight: float = 0.4
    decoder_channels: tuple[int, ...] = (256, 128, 64, 32, 16)

    def __post_init__(self) -> None:
        for name in ("frames", "image_size", "dim", "layers", "heads", "ffn_dim"):
            _check_count(name, getattr(self, name))
        _check_choice("encoder", self.encoder, get_args(EncoderKind))
        _check_choice("stsa", self.stsa, get_args(SelfAttentionKind))
        _check_choice("cross_attention", self.cross_attention, (*get_args(Strategy), None))
        _check_choice("ceus_task", self.ceus_task, (*get_args(CeusTask), None))
        _check_choice("bus_task", self.bus_task, (*get_args(BusTask), None))
        for name in (
            "position_std",
            "dropout",
            "fss_clamp",
            "fss_weight",
            "segmentation_weight",
        ):
            _check_real(name, getattr(self, name))
        if self.position_std <= 0:
            raise ValueError(f"position_std is {self.position_std}; choose a spread > 0")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout is {self.dropout}; choose a probability in [0, 1)")
        if not 0 < self.fss_clamp <= 1:
            raise ValueError(f"fss_clamp is {self.fss_clamp}; choose a threshold in (0, 1]")
        for name in ("fss_weight", "segmentation_weight"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}; choose a weight >= 0")
        if self.dim % self.heads:
            raise ValueError(
                f"dim {self.dim} is not a multiple of heads {self.heads}; change either"
            )
        if self.dim // self.heads > _MAX_HEAD_CHANNELS:
            raise ValueError(
                f"dim {self.dim} over heads {self.heads} gives {self.dim // self.heads} channels "
                f"per head, at most {_MAX_HEAD_CHANNELS} are possible; use more heads"
            )
        _check_tuple("decoder_channels", self.decoder_channels)
        if not self.decoder_channels:
            raise ValueError("decoder_channels is empty; give at least one width")
        if self.acmst_layers is not None:
            self._check_acmst_layers(self.acmst_layers)

    def _check_acmst_layers(self, chosen: tuple[int, ...]) -> None:
        _check_tuple("acmst_layers", chosen)
        if self.cross_attention is None:
            raise ValueError(
                f"acmst_layers is {chosen} without a cross-attention; "
                "leave it None or choose cross_attention"
            )
        if list(chosen) != sorted(set(chosen)) or (chosen and chosen[-1] > self.layers):
            raise ValueError(
                f"acmst_layers is {chosen}; give different layers of 1 to {self.layers}, "
                "lowest first"
            )

    @classmethod
    def paper(cls) -> "AsyCMSTConfig":
        """The paper's model; the same as `AsyCMSTConfig()`."""
        return cls()

    @classmethod
    def demo(cls) -> "AsyCMSTConfig":
        """A model that trains on clips of 8 x 64 x 64 in minutes on a CPU."""
        return cls(
            frames=8,
            image_size=64,
            dim=48,
            layers=2,
            heads=2,
            position_std=1.0,
            encoder="tiny",
            stsa="factorised",
            ffn_dim=4 * 48,
            dropout=0.0,
            decoder_channels=(24, 16, 8, 8),
        )

    @property
    def sorts_frames(self) -> bool:
        """Whether the model has the frame self-sorting task."""
        return self.ceus_task is not None and self.fss_weight > 0

    @property
    def segments_nodule(self) -> bool:
        """Whether the model has the nodule segmentation task."""
        return self.bus_task is not None and self.segmentation_weight > 0

    @property
    def cross_attention_layers(self) -> tuple[int, ...]:
        """The layers, counted from 1, that have the cross-attention."""
        if self.cross_attention is None:
            return ()
        if self.acmst_layers is None:
            return tuple(range(1, self.layers + 1))
        return self.acmst_layers

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain types, fit for JSON and for checkpoints."""
        values = ((field.name, getattr(self, field.name)) for field in dataclasses.fields(self))
        return {name: list(v) if isinstance(v, tuple) else v for name, v in values}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "AsyCMSTConfig":
        """The inverse of `to_dict`; absent fields take their defaults.

        Raises:
            ValueError: A key names no field.
        """
        known = [field.name for field in dataclasses.fields(cls)]
        unknown = sorted(set(values) - set(known))
        if unknown:
            raise ValueError(f"unknown config keys {unknown}; remove them, known are {known}")
        fields: dict[str, Any] = {
            name: tuple(v) if isinstance(v, list) else v for name, v in values.items()
        }
        return cls(**fields)


def _check_count(name: str, value: object) -> None:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name} is {value!r}; give an integer")
    if value < 1:
        raise ValueError(f"{name} is {value}; give an integer >= 1")


def _check_real(name: str, value: object) -> None:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise TypeError(f"{name} is {value!r}; give a number")
    if not math.isfinite(value):
        raise ValueError(f"{name} is {value}; give a finite number")


def _check_tuple(name: str, value: object) -> None:
    if not isinstance(value, tuple):
        raise TypeError(f"{name} is {value!r}; give a tuple of integers")
    for entry in value:
        _check_count(f"an entry of {name}", entry)


def _check_choice(name: str, value: object, allowed: tuple[object, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"{name} is {value!r}; choose one of {', '.join(map(repr, allowed))}")
