"""Diagnosis of single B-mode images from the image and what a saliency map leaves of it."""

from typing import NamedTuple

from torch import Tensor, nn

from asycmst.model import AsyCMSTOutput
from asycmst.saliency.config import SaliencyConfig
from asycmst.saliency.encoder import DualBranchEncoder
from asycmst.saliency.network import SaliencyNet


class ImageOutput(NamedTuple):
    """What the model says about images.

    Attributes:
        logits: Shape (B, 2), class 1 is malignant.
        saliency_logits: Shape (B, 1, H, W); the saliency map is their sigmoid.
        enhanced: Shape (B, 3, H, W), the image times the saliency map.
        features: Shape (B, D), what the classifier sees.
    """

    logits: Tensor
    saliency_logits: Tensor
    enhanced: Tensor
    features: Tensor


class SaliencyDualAttention(nn.Module):
    """A saliency net marks the image; two branches over five scales read image and marked image.

    Published for single images. A clip is its frames: each is marked on its own, and the
    diagnosis of a clip is that of the mean of its frames' features. An image is a clip of one.

    Args:
        config: Sizes, gates and losses; None is `SaliencyConfig.paper()`.
    """

    def __init__(self, config: SaliencyConfig | None = None) -> None:
        super().__init__()
        config = SaliencyConfig.paper() if config is None else config
        self.config = config
        self.saliency = SaliencyNet(config.saliency_widths)
        self.encoder = DualBranchEncoder(config)
        self.embed_saliency = nn.Linear(config.saliency_widths[-1], self.encoder.width)
        self.classifier = nn.Sequential(
            nn.Linear(self.encoder.width, config.hidden), nn.ReLU(), nn.Linear(config.hidden, 2)
        )

    def forward(self, bus: Tensor, ceus: Tensor | None = None) -> AsyCMSTOutput:
        """Diagnoses a batch of B-mode clips, of one frame or more.

        Args:
            bus: Floating, shape (B, 3, T, H, W) with (H, W) = `config.frame_size`, values in
                [0, 1].
            ceus: Not looked at; it lets the model stand where one of paired clips does.

        Returns:
            `mask_logits` (B, T, H, W) are those of the saliency maps; there are no frame scores.

        Raises:
            TypeError: `bus` is not floating.
            ValueError: The shape does not fit.
        """
        if bus.ndim != 5:
            raise ValueError(f"bus has shape {tuple(bus.shape)}; give (B, 3, T, H, W)")
        frames = bus.shape[2]
        logits, _, features = self._read(bus.transpose(1, 2).flatten(0, 1))
        pooled = features.unflatten(0, (-1, frames)).mean(1)
        return AsyCMSTOutput(
            logits=self.classifier(pooled),
            frame_scores=None,
            mask_logits=logits.reshape(-1, frames, *bus.shape[3:]),
            features=pooled,
        )

    def diagnose(self, image: Tensor) -> ImageOutput:
        """The same of single images, with the enhanced image to look at.

        Args:
            image: Floating, shape (B, 3, H, W), values in [0, 1].

        Raises:
            TypeError: `image` is not floating.
            ValueError: The shape does not fit.
        """
        logits, enhanced, features = self._read(image)
        return ImageOutput(self.classifier(features), logits, enhanced, features)

    def _read(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        self._check(images)
        logits, embedding = self.saliency(images)
        enhanced = images * logits.sigmoid()
        features = self.encoder(images, enhanced).mean((2, 3)) + self.embed_saliency(embedding)
        return logits, enhanced, features

    def _check(self, images: Tensor) -> None:
        if not images.is_floating_point():
            raise TypeError(f"images are {images.dtype}; give floating values in [0, 1]")
        wanted = (3, *self.config.frame_size)
        if images.ndim != 4 or images.shape[1:] != wanted:
            raise ValueError(
                f"images of shape {tuple(images.shape[1:])}; this model takes {wanted}, resize "
                "them or set image_size"
            )
