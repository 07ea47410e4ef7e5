"""The choices that make one AsyCMST model, checked where they are made."""

from dataclasses import dataclass
from typing import Literal, TypeVar, get_args

from asycmst.network_config import NetworkConfig, check_count, check_real, check_tuple

EncoderKind = Literal["resnet18", "tiny"]
Modality = Literal["bus", "ceus"]
PixelScale = Literal["unit", "imagenet"]
Positions = Literal["joint", "factorised"]
SelfAttentionKind = Literal["joint", "factorised", "dot_product"]
NormPlace = Literal["post", "pre"]
Strategy = Literal["asymmetric", "symmetric", "spatial", "temporal", "global"]
Update = Literal["parallel", "sequential"]
KeySource = Literal["stsa", "raw"]
FeedForward = Literal["residual", "literal"]
Fusion = Literal["sum", "mean"]
Diagnosis = Literal["softmax", "sigmoid"]
CeusTask = Literal["fss"]
BusTask = Literal["dice", "saliency"]
Branch = Literal["lower", "upper"]
TaskPlace = Literal["branch", "modality"]
DiceScope = Literal["frame", "sample", "batch"]

Config = TypeVar("Config", bound="AsyCMSTConfig")

_MAX_HEAD_CHANNELS = 256  # what the attention kernels take


@dataclass(frozen=True)
class AsyCMSTConfig(NetworkConfig):
    """Architecture and loss weights; the defaults are the paper's model (Section 4.1.2).

    Where the paper leaves a choice open, both readings are here. The two branches of Fig 9 are
    called by what they see in the paper: the lower one ("bus" in all module names) looks along
    time at the other, the upper one ("ceus") over space.

    Attributes:
        frames: Longest clip, T; shorter clips use the first rows of the position tables.
        image_size: Side of a square frame in pixels, or (height, width). An encoder of stride s
            makes ceil(height / s) * ceil(width / s) places of it.
        dim: Token width D.
        layers: Depth L of the dual stream.
        heads: Attention heads M of self- and cross-attention; they divide `dim`.
        lower: The modality that the lower branch sees (Fig 9).
        upper: The modality that the upper branch sees; may be the same.
        pixels: "unit" takes [0, 1] as it comes; "imagenet" subtracts ImageNet's mean and divides
            by its standard deviation, channel by channel.
        encoder: "resnet18" (stride 32), or "tiny" (four blocks of 8 to 32 channels, stride 16)
            for small clips on a CPU.
        share_encoder: One encoder for both branches instead of one each.
        positions: A table of T * N rows ("joint"), or of T plus N rows that add up
            ("factorised").
        share_positions: One table for both streams instead of one each.
        position_std: Spread of the untrained position tables. Far below the spread of the features
            a short training sees frames without an order; the demo starts at 1.
        stsa: Self-attention over all T * N tokens ("joint", ViViT's model 1), over space, then
            time ("factorised", model 3), or half of the heads over space and half over time
            ("dot_product", model 4).
        norm: Layer norm after each residual sum ("post"), or before each attention and
            feed-forward network and once at the end ("pre").
        cross_attention: Which keys of the other modality a token sees (Table 5); None for streams
            that do not interact before the classifier.
        acmst_layers: Layers, counted from 1, that have the cross-attention; None is all of them.
        update: Both streams read the other's state of the same moment ("parallel", Algorithm 2),
            or the lower branch finishes its layer first and the upper one reads the result
            ("sequential").
        kv: A stream reads the other one after its self-attention ("stsa") or as the layer found it
            ("raw"). A finished lower branch ("sequential") is read as it is.
        ffn: LN(x + FFN(x)) ("residual"), or Eq 12-13 by the letter, FFN(x) without residual and
            second norm ("literal").
        ffn_dim: Hidden width of the feed-forward networks.
        bias: Whether the linear maps of attention and feed-forward networks have a bias.
        dropout: Probability in self-attention and feed-forward networks.
        cross_dropout: Probability on the output of the cross-attention.
        fuse: Sum of the two streams (Eq 15) or their mean.
        diagnosis: Two logits ("softmax", Eq 16), or one, the log odds of malignancy beside a
            constant 0 ("sigmoid").
        ceus_task: "fss", frame self-sorting (Eq 1-4), or None.
        bus_task: "dice", nodule segmentation (Eq 5); "saliency", for data without masks, in which
            the decoder learns to mark what is dark for its depth (`asycmst.self_supervision`); or
            None.
        task_place: Frame self-sorting in the upper and segmentation in the lower branch whatever
            they see ("branch": the masks are then those of the lower branch's clip), or with the
            modality they were made for ("modality").
        fss_hidden: Hidden width of the frame scores' network; None is `dim`.
        fss_clamp: Threshold phi of Eq 4.
        fss_weight: w1 of Eq 14; 0 switches the task off as `ceus_task=None` does.
        segmentation_weight: w2 of Eq 14; 0 switches the task off as `bus_task=None` does.
        dice_scope: The sums of Eq 5 run over one annotated frame, over all of a sample or over all
            of a batch; losses of several are averaged.
        decoder_channels: Widths of the mask decoder, one for each doubling of the resolution.
        emulate_layout: Reinterpret memory between clip, images and tokens as the authors' released
            code does, which mixes frames and channels; only to reproduce its outputs.

    Raises:
        TypeError: A field has the wrong type.
        ValueError: A value, or a combination of values, describes no model.
    """

    dim: int = 384
    layers: int = 6
    heads: int = 6
    lower: Modality = "bus"
    upper: Modality = "ceus"
    pixels: PixelScale = "unit"
    encoder: EncoderKind = "resnet18"
    share_encoder: bool = False
    positions: Positions = "joint"
    share_positions: bool = False
    position_std: float = 0.02
    stsa: SelfAttentionKind = "joint"
    norm: NormPlace = "post"
    cross_attention: Strategy | None = "asymmetric"
    acmst_layers: tuple[int, ...] | None = None
    update: Update = "parallel"
    kv: KeySource = "stsa"
    ffn: FeedForward = "residual"
    ffn_dim: int = 2048
    bias: bool = True
    dropout: float = 0.1
    cross_dropout: float = 0.0
    fuse: Fusion = "sum"
    diagnosis: Diagnosis = "softmax"
    ceus_task: CeusTask | None = "fss"
    bus_task: BusTask | None = "dice"
    task_place: TaskPlace = "branch"
    fss_hidden: int | None = None
    fss_clamp: float = 0.9
    fss_weight: float = 0.4
    segmentation_weight: float = 0.4
    dice_scope: DiceScope = "frame"
    decoder_channels: tuple[int, ...] = (256, 128, 64, 32, 16)
    emulate_layout: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_fields(self)
        _check_combinations(self)

    @classmethod
    def authors(cls, emulate_layout: bool = False) -> "AsyCMSTConfig":
        """The authors' released model; `asycmst.load_authors_state_dict` loads its weights.

        It shares encoder and positions, lets the lower branch finish a layer before the upper one
        reads it, averages the streams, and has neither frame self-sorting nor segmentation.

        Args:
            emulate_layout: Reproduce the released code's outputs, its reshapes included. Without
                it the same weights run in the layout that the paper describes.
        """
        return cls(
            share_encoder=True,
            share_positions=True,
            position_std=1.0,
            update="sequential",
            kv="raw",
            fuse="mean",
            ceus_task=None,
            bus_task=None,
            emulate_layout=emulate_layout,
        )

    @classmethod
    def demo(cls: type[Config]) -> Config:
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
    def sorted_branch(self) -> Branch:
        """The branch whose frames are sorted."""
        if self.task_place == "modality" and self.upper != "ceus":
            return "lower"
        return "upper"

    @property
    def segmented_branch(self) -> Branch:
        """The branch whose frames are segmented."""
        if self.task_place == "modality" and self.lower != "bus":
            return "upper"
        return "lower"

    @property
    def learns_masks(self) -> bool:
        """Whether the segmentation is learned from masks."""
        return self.segments_nodule and self.bus_task == "dice"

    @property
    def segmented_modality(self) -> Modality:
        """The clip whose frames are segmented; its masks are what the task learns from."""
        return self.lower if self.segmented_branch == "lower" else self.upper

    @property
    def cross_attention_layers(self) -> tuple[int, ...]:
        """The layers, counted from 1, that have the cross-attention."""
        if self.cross_attention is None:
            return ()
        if self.acmst_layers is None:
            return tuple(range(1, self.layers + 1))
        return self.acmst_layers


_COUNTS = ("dim", "layers", "heads", "ffn_dim")
_REALS = (
    "position_std",
    "dropout",
    "cross_dropout",
    "fss_clamp",
    "fss_weight",
    "segmentation_weight",
)
_SWITCHES = ("share_encoder", "share_positions", "bias", "emulate_layout")
_CHOICES: dict[str, tuple[object, ...]] = {
    "lower": get_args(Modality),
    "upper": get_args(Modality),
    "pixels": get_args(PixelScale),
    "encoder": get_args(EncoderKind),
    "positions": get_args(Positions),
    "stsa": get_args(SelfAttentionKind),
    "norm": get_args(NormPlace),
    "cross_attention": (*get_args(Strategy), None),
    "update": get_args(Update),
    "kv": get_args(KeySource),
    "ffn": get_args(FeedForward),
    "fuse": get_args(Fusion),
    "diagnosis": get_args(Diagnosis),
    "ceus_task": (*get_args(CeusTask), None),
    "bus_task": (*get_args(BusTask), None),
    "task_place": get_args(TaskPlace),
    "dice_scope": get_args(DiceScope),
}


def _check_fields(config: AsyCMSTConfig) -> None:
    """Each field on its own."""
    for name in _COUNTS:
        check_count(name, getattr(config, name))
    for name in _REALS:
        check_real(name, getattr(config, name))
    for name in _SWITCHES:
        value = getattr(config, name)
        if not isinstance(value, bool):
            raise TypeError(f"{name} is {value!r}; give True or False")
    for name, allowed in _CHOICES.items():
        value = getattr(config, name)
        if value not in allowed:
            raise ValueError(f"{name} is {value!r}; choose one of {', '.join(map(repr, allowed))}")
    if config.fss_hidden is not None:
        check_count("fss_hidden", config.fss_hidden)
    if config.acmst_layers is not None:
        check_tuple("acmst_layers", config.acmst_layers)
    check_tuple("decoder_channels", config.decoder_channels)
    if not config.decoder_channels:
        raise ValueError("decoder_channels is empty; give at least one width")
    if config.position_std <= 0:
        raise ValueError(f"position_std is {config.position_std}; choose a spread > 0")
    for name in ("dropout", "cross_dropout"):
        if not 0 <= getattr(config, name) < 1:
            raise ValueError(f"{name} is {getattr(config, name)}; choose a probability in [0, 1)")
    if not 0 < config.fss_clamp <= 1:
        raise ValueError(f"fss_clamp is {config.fss_clamp}; choose a threshold in (0, 1]")
    for name in ("fss_weight", "segmentation_weight"):
        if getattr(config, name) < 0:
            raise ValueError(f"{name} is {getattr(config, name)}; choose a weight >= 0")


def _check_combinations(config: AsyCMSTConfig) -> None:
    """Fields against each other."""
    if config.dim % config.heads:
        raise ValueError(
            f"dim {config.dim} is not a multiple of heads {config.heads}; change either"
        )
    width = config.dim // config.heads
    if width > _MAX_HEAD_CHANNELS:
        raise ValueError(
            f"dim {config.dim} over heads {config.heads} gives {width} channels per head, "
            f"at most {_MAX_HEAD_CHANNELS} are possible; use more heads"
        )
    if config.stsa == "dot_product" and config.heads % 2:
        raise ValueError(
            f"stsa 'dot_product' gives half of the heads to space and half to time, heads is "
            f"{config.heads}; choose an even number"
        )
    if config.ffn == "literal" and config.norm == "pre":
        raise ValueError(
            "ffn 'literal' is Eq 12-13, which norm after the cross-attention; choose norm 'post'"
        )
    chosen = config.acmst_layers
    if chosen is not None:
        if config.cross_attention is None:
            raise ValueError(
                f"acmst_layers is {chosen} without a cross-attention; "
                "leave it None or choose cross_attention"
            )
        if list(chosen) != sorted(set(chosen)) or (chosen and chosen[-1] > config.layers):
            raise ValueError(
                f"acmst_layers is {chosen}; give different layers of 1 to {config.layers}, "
                "lowest first"
            )
    seen = (config.lower, config.upper)
    if config.task_place == "modality":
        for task, wanted, is_on in (
            ("ceus_task", "ceus", config.sorts_frames),
            ("bus_task", "bus", config.segments_nodule),
        ):
            if is_on and wanted not in seen:
                raise ValueError(
                    f"task_place 'modality' keeps {task} with {wanted.upper()}, which neither "
                    f"branch sees; set {task} to None or task_place to 'branch'"
                )
    if config.bus_task == "saliency" and config.segmented_modality != "bus":
        raise ValueError(
            "bus_task 'saliency' marks dark nodules of B-mode, the segmented branch sees "
            f"{config.segmented_modality.upper()}; set bus_task to None"
        )
    if config.emulate_layout and (config.sorts_frames or config.segments_nodule):
        raise ValueError(
            "emulate_layout mixes the frames of a clip, so none of them can be scored or "
            "segmented; set ceus_task and bus_task to None"
        )
