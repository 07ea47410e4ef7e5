"""The AsyCMST network: paired BUS and CEUS clips to a diagnosis (Fig 2)."""

import math
from itertools import chain
from typing import NamedTuple

import torch
from torch import Tensor, nn

from asycmst.config import AsyCMSTConfig
from asycmst.cross_attention import CrossModalAttention, RecordedKeys
from asycmst.encoders import PairedEncoders, feature_grid, pixel_norm
from asycmst.fusion import dual_stream_layer
from asycmst.heads import Classifier, FrameSortingHead, MaskDecoder
from asycmst.residuals import final_norm
from asycmst.tokens import TokenEmbedding


class AsyCMSTOutput(NamedTuple):
    """What the model says about a batch; a task that is off gives None.

    Attributes:
        logits: Shape (B, 2), class 1 is malignant.
        frame_scores: Shape (B, T), Eq 2; later frames score higher.
        mask_logits: Shape (B, T, H', W'), nodule mask before the sigmoid, of the frames that
            the segmented branch sees (BUS, in the paper's arrangement).
        features: Shape (B, D), what the classifier sees.
    """

    logits: Tensor
    frame_scores: Tensor | None
    mask_logits: Tensor | None
    features: Tensor


class BranchFeatures(NamedTuple):
    """Feature grids of every frame, before positions are added.

    Attributes:
        lower: Shape (B, T, H, W, D), of the modality that the lower branch sees.
        upper: As `lower`, of the upper branch.
    """

    lower: Tensor
    upper: Tensor


class AsyCMST(nn.Module):
    """Diagnosis of nodules from synchronised BUS and CEUS clips.

    `encoders.bus` and `encoders.ceus` are the `FrameEncoder`s of the lower and the upper branch
    (Fig 9); the output of their `trunk` is the last map before the 1x1 convolution.
    `frame_sorting` and `mask_decoder` serve training: set to None, the diagnosis stays the same.

    Args:
        config: Sizes, kinds and tasks; None is `AsyCMSTConfig.paper()`.
    """

    frame_sorting: FrameSortingHead | None
    mask_decoder: MaskDecoder | None

    def __init__(self, config: AsyCMSTConfig | None = None) -> None:
        super().__init__()
        config = AsyCMSTConfig.paper() if config is None else config
        self.config = config
        self.pixels = pixel_norm(config.pixels)
        self.encoders = PairedEncoders(config)
        self.embed_bus = self._embedding()
        self.embed_ceus = self.embed_bus if config.share_positions else self._embedding()
        self.layers = nn.ModuleList(
            dual_stream_layer(config, number) for number in range(1, config.layers + 1)
        )
        self.norm_bus = final_norm(config.norm, config.dim)
        self.norm_ceus = final_norm(config.norm, config.dim)
        self.classifier = Classifier(config)
        self.frame_sorting = (
            FrameSortingHead(config.dim, config.fss_hidden) if config.sorts_frames else None
        )
        self.mask_decoder = (
            MaskDecoder(config.dim, config.decoder_channels) if config.segments_nodule else None
        )

    def _embedding(self) -> TokenEmbedding:
        config = self.config
        places = math.prod(feature_grid(config))
        return TokenEmbedding(
            config.frames, places, config.dim, config.position_std, config.positions
        )

    def forward(
        self, bus: Tensor, ceus: Tensor, frame_lengths: Tensor | None = None
    ) -> AsyCMSTOutput:
        """Diagnoses a batch of clips.

        Args:
            bus: Floating, shape (B, 3, T, H', W') with T <= `config.frames` and
                (H', W') = `config.frame_size`, values in [0, 1], any strides.
            ceus: As `bus`.
            frame_lengths: None or integer (B,), clamped to [1, T]: the clip's own frames, what
                follows is padding and is never read. In evaluation the result equals that of the
                unpadded clip; frame scores and mask logits are 0 on padding. In training the
                encoders' batch statistics include the padded frames, which count as black.

        Raises:
            TypeError: `bus` or `ceus` is not floating, or `frame_lengths` not integer.
            ValueError: A shape does not fit, or `frame_lengths` come with a layout that mixes
                frames.
        """
        self._check(bus, ceus, frame_lengths)
        frames = bus.shape[2]
        valid = None
        if frame_lengths is not None:
            index = torch.arange(frames, device=frame_lengths.device)
            valid = (index < frame_lengths.clamp(min=1)[:, None])[..., None]
            padding = ~valid[:, None, :, :, None]
            bus, ceus = bus.masked_fill(padding, 0), ceus.masked_fill(padding, 0)

        return self.from_features(self.encode(bus, ceus), valid)

    def encode(self, bus: Tensor, ceus: Tensor) -> BranchFeatures:
        """Features of each frame, which depend on that frame alone (Section 3.1).

        Args:
            bus: As `forward` takes it.
            ceus: As `forward` takes it.
        """
        clips = {"bus": bus, "ceus": ceus}
        lower = self.pixels(clips[self.config.lower])
        upper = self.pixels(clips[self.config.upper])
        return BranchFeatures(*self.encoders(lower, upper))

    def from_features(
        self, features: BranchFeatures, valid: Tensor | None = None
    ) -> AsyCMSTOutput:
        """What `forward` makes of the features of its frames.

        Args:
            features: Of T <= `config.frames` frames in both branches.
            valid: None or bool (B, T, 1), True for the clip's own frames, False for padding.
        """
        tokens_bus = self.embed_bus(features.lower)
        tokens_ceus = self.embed_ceus(features.upper)
        for layer in self.layers:
            tokens_bus, tokens_ceus = layer(tokens_bus, tokens_ceus, valid)
        logits, pooled = self.classifier(
            self.norm_bus(tokens_bus), self.norm_ceus(tokens_ceus), valid
        )

        scores = masks = None
        if self.frame_sorting is not None:
            scores = self.frame_sorting(getattr(features, self.config.sorted_branch))
        if self.mask_decoder is not None:
            segmented = getattr(features, self.config.segmented_branch)
            masks = self.mask_decoder(segmented, self.config.frame_size)
        if valid is not None:
            scores = None if scores is None else scores.masked_fill(~valid[..., 0], 0)
            masks = None if masks is None else masks.masked_fill(~valid[..., None], 0)
        return AsyCMSTOutput(logits, scores, masks, pooled)

    def _check(self, bus: Tensor, ceus: Tensor, frame_lengths: Tensor | None) -> None:
        size, longest = self.config.frame_size, self.config.frames
        for name, clip in (("bus", bus), ("ceus", ceus)):
            if not clip.is_floating_point():
                raise TypeError(
                    f"{name} is {clip.dtype}; give floating values in [0, 1], "
                    f"uint8 clips as {name}.float() / 255"
                )
            if clip.ndim != 5 or clip.shape[1] != 3:
                raise ValueError(f"{name} has shape {tuple(clip.shape)}; give (B, 3, T, H', W')")
            if clip.shape[3:] != size:
                raise ValueError(
                    f"{name} has frames of {clip.shape[3]} x {clip.shape[4]}; this model takes "
                    f"{size[0]} x {size[1]}, resize the clip or set image_size"
                )
            if not 1 <= clip.shape[2] <= longest:
                raise ValueError(
                    f"{name} has {clip.shape[2]} frames; this model takes 1 to {longest}, "
                    "sample the clip or set frames"
                )
        if bus.shape != ceus.shape:
            raise ValueError(
                f"bus has shape {tuple(bus.shape)}, ceus {tuple(ceus.shape)}; give equal shapes"
            )
        if frame_lengths is not None:
            if self.config.emulate_layout:
                raise ValueError(
                    "frame_lengths are given to a model with emulate_layout, which mixes frames; "
                    "leave them out or set emulate_layout=False"
                )
            if frame_lengths.is_floating_point() or frame_lengths.dtype == torch.bool:
                raise TypeError(f"frame_lengths is {frame_lengths.dtype}; give an integer tensor")
            if frame_lengths.shape != bus.shape[:1]:
                raise ValueError(
                    f"frame_lengths has shape {tuple(frame_lengths.shape)}; "
                    f"give one length per clip, ({bus.shape[0]},)"
                )


class AttentionInputs(NamedTuple):
    """Queries and keys of one layer's cross-attention, each (B, T, N, H, d)."""

    q_bus: Tensor
    k_ceus: Tensor
    q_ceus: Tensor
    k_bus: Tensor


@torch.no_grad()
def attention_inputs(model: AsyCMST, bus: Tensor, ceus: Tensor) -> list[AttentionInputs]:
    """What `asycmst_ops.attention_weights` needs to show when and where the streams look.

    Args:
        model: In evaluation mode.
        bus: As `AsyCMST.forward` takes it.
        ceus: As `AsyCMST.forward` takes it.

    Returns:
        One entry for each layer that has a cross-attention, lowest first. The weights of
        (q_bus, k_ceus) along "time" are those of Eq 8, of (q_ceus, k_bus) along "space" of Eq 10.

    Raises:
        ValueError: The model is in training mode, where dropout would disturb the picture.
    """
    if model.training:
        raise ValueError("the model is in training mode; call model.eval() before looking at it")
    attentions = [m for m in model.modules() if isinstance(m, CrossModalAttention)]
    recorders = [RecordedKeys(attention.keys) for attention in attentions]
    try:
        for attention, recorder in zip(attentions, recorders, strict=True):
            attention.keys = recorder
        model(bus, ceus)
    finally:
        for attention, recorder in zip(attentions, recorders, strict=True):
            attention.keys = recorder.keys
    return [AttentionInputs(*chain.from_iterable(recorder.calls)) for recorder in recorders]
