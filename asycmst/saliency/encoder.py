"""Two branches over five scales, fused by attention at each of them."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from asycmst.saliency.config import SaliencyConfig
from asycmst_ops import dual_attention_gates

_SCALES = 5


class DualAttentionFusion(nn.Module):
    """Maps of the original and of the enhanced image, under their gates, to one map.

    A variance-guided channel gate and a patch-wise spatial gate, in one pass over the features,
    then a 1x1 convolution without bias from twice the channels to once.

    Args:
        config: Which gate acts on which branch, the patch, and whether the gates reach 0.
        width: Channels of each map.
    """

    def __init__(self, config: SaliencyConfig, width: int) -> None:
        super().__init__()
        self.scope = config.scope
        self.patch = config.patch
        # A gate is the sigmoid of a variance, or of a mean of what a ReLU left: at least 1/2.
        least = 0.5 if config.scope == "split" else 1.0
        self.floor = least if config.suppress else 0.0
        self.project = nn.Conv2d(2 * width, width, kernel_size=1, bias=False)

    def forward(self, original: Tensor, enhanced: Tensor) -> Tensor:
        """Two maps (B, width, H, W) to one."""
        features = torch.cat((original, enhanced), dim=1)
        dtype = features.dtype
        if self.floor > 0:
            # In 16 bits a weak gate would be lost: it is the difference of two close numbers.
            features = features.to(torch.promote_types(dtype, torch.float32))
        gated = dual_attention_gates(features, scope=self.scope, patch=self.patch)
        fused: Tensor = self.project((gated - self.floor * features).to(dtype))
        return fused


class DualBranchEncoder(nn.Module):
    """Features of an image and of its enhanced version, fused at five scales.

    At each scale each branch is two 3x3 convolutions with batch norm and ReLU. Each branch goes
    on from the mean of 2 x 2 of its own map plus the fused one.

    Args:
        config: Widths and gates.
    """

    def __init__(self, config: SaliencyConfig) -> None:
        super().__init__()
        widths = [config.width * 2**scale for scale in range(_SCALES)]
        befores = [3, *widths[:-1]]
        self.width = widths[-1]
        pairs = list(zip(befores, widths, strict=True))
        self.original = nn.ModuleList(_convolutions(*pair) for pair in pairs)
        self.enhanced = nn.ModuleList(_convolutions(*pair) for pair in pairs)
        self.fusions = nn.ModuleList(DualAttentionFusion(config, width) for width in widths)

    def forward(self, original: Tensor, enhanced: Tensor) -> Tensor:
        """Images (B, 3, H, W) to the last fused map (B, 16 width, H / 16, W / 16)."""
        fused = original
        for scale, fusion in enumerate(self.fusions):
            if scale > 0:
                original = F.avg_pool2d(original + fused, 2)
                enhanced = F.avg_pool2d(enhanced + fused, 2)
            original = self.original[scale](original)
            enhanced = self.enhanced[scale](enhanced)
            fused = fusion(original, enhanced)
        return fused


def _convolutions(before: int, after: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(before, after, kernel_size=3, padding=1, bias=False),
        nn.BatchNorm2d(after),
        nn.ReLU(),
        nn.Conv2d(after, after, kernel_size=3, padding=1, bias=False),
        nn.BatchNorm2d(after),
        nn.ReLU(),
    )
