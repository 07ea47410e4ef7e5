"""The training objective of `SaliencyDualAttention`."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from asycmst.losses import AsyCMSTLosses
from asycmst.model import AsyCMSTOutput
from asycmst.saliency.config import SaliencyConfig


class SaliencyLoss(nn.Module):
    """Two-class cross entropy plus the saliency losses of `config` (SaliencyObjective).

    Args:
        config: The saliency losses and their weights; None is `SaliencyConfig.paper()`.
        class_weights: Of benign and malignant in the cross entropy, then a weighted mean.
    """

    fss_weight = 0.0
    segmentation_weight = 1.0
    class_weights: Tensor | None

    def __init__(
        self,
        config: SaliencyConfig | None = None,
        class_weights: tuple[float, float] | None = None,
    ) -> None:
        super().__init__()
        self.config = SaliencyConfig.paper() if config is None else config
        weights = None if class_weights is None else torch.tensor(class_weights)
        self.register_buffer("class_weights", weights, persistent=False)

    def forward(
        self,
        output: AsyCMSTOutput,
        label: Tensor,
        mask: Tensor | None = None,
        mask_valid: Tensor | None = None,
        *,
        bus: Tensor | None = None,
    ) -> AsyCMSTLosses:
        """Losses of a batch, in float32 or, for float64 outputs, in float64.

        Args:
            output: What the model returned.
            label: Integer (B,), 1 is malignant.
            mask: Not looked at; nor is `mask_valid`.
            bus: The clips that the model saw, shape (B, 3, T, H, W).

        Returns:
            `segmentation` is the weighted sum of the saliency losses, a mean over all frames;
            `fss` is 0.

        Raises:
            ValueError: `bus` is missing.
        """
        if bus is None:
            raise ValueError("the saliency losses compare with the image; give bus")
        assert output.mask_logits is not None
        wide = torch.promote_types(output.logits.dtype, torch.float32)
        logits = output.logits.to(wide)
        weights = None if self.class_weights is None else self.class_weights.to(logits)
        diagnosis = F.cross_entropy(logits, label.long(), weights)
        images = bus.transpose(1, 2).flatten(0, 1).to(wide)
        saliency = output.mask_logits.flatten(0, 1).to(wide).sigmoid()
        supervision = self.config.total(self.config.terms(images, saliency)).mean()
        return AsyCMSTLosses(
            diagnosis + supervision, diagnosis, diagnosis.new_zeros(()), supervision
        )

    def divisors(self, label: Tensor, mask_valid: Tensor) -> Tensor:
        """What the means of the parts of a batch divide by, as `AsyCMSTLoss.divisors`.

        Args:
            label: Integer (B,).
            mask_valid: Bool (B, T).

        Returns:
            float32 (3,): the sum of the class weights, and twice the samples.
        """
        samples = torch.ones_like(label, dtype=torch.float32)
        weights = samples if self.class_weights is None else self.class_weights[label]
        return torch.stack((weights.sum(), samples.sum(), samples.sum()))
