"""A network of your own under asycmst's trainer, evaluation and prediction.

    export PYTHONPATH=examples
    asycmst fit --model plug_in:network --config demo --out run/ model.width=16
    asycmst evaluate --model plug_in:network --checkpoint run/best.ckpt ...
    asycmst predict --model plug_in:network --checkpoint run/best.ckpt ...

The checkpoint names plug_in:network. It never makes that code run: whoever loads it gives --model.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from asycmst import AsyCMSTOutput
from asycmst.network_config import NetworkConfig, check_count
from asycmst.training.networks import Network


@dataclass(frozen=True)
class CurveNetConfig(NetworkConfig):
    """What `model.KEY=value` changes, beside `frames` and `image_size`.

    Attributes:
        width: features of each clip.
    """

    width: int = 8

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("width", self.width)


class CurveNet(nn.Module):
    """Mean brightness of each frame, a convolution over time for each clip, one linear map."""

    def __init__(self, config: CurveNetConfig) -> None:
        super().__init__()
        self.config = config
        self.curves = nn.ModuleList(nn.Conv1d(3, config.width, 3, padding=1) for _ in range(2))
        self.fc = nn.Linear(2 * config.width, 2)

    def forward(self, bus: Tensor, ceus: Tensor) -> AsyCMSTOutput:
        """Clips (B, 3, T, H', W') in [0, 1]; neither scores of frames nor a mask."""
        features = torch.cat(
            [
                curve(clip.mean(dim=(3, 4))).relu().amax(dim=2)
                for curve, clip in zip(self.curves, (bus, ceus), strict=True)
            ],
            dim=1,
        )
        return AsyCMSTOutput(self.fc(features), None, None, features)


network = Network(CurveNetConfig, CurveNet)
