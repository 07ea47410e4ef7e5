"""From feature grids to tokens with positions (Section 3.1, Fig 2c)."""

import torch
from torch import Tensor, nn

from asycmst.config import Positions


class TokenEmbedding(nn.Module):
    """Flattens a stream's grid and adds its learnable absolute positions.

    Args:
        frames: Longest clip T.
        places: Positions N = H * W of one frame.
        dim: Token width D.
        std: Standard deviation of the untrained positions, a normal cut off at twice that.
        kind: One table of T * N rows ("joint"), or the sums of T and N rows ("factorised").
    """

    def __init__(
        self, frames: int, places: int, dim: int, std: float = 0.02, kind: Positions = "joint"
    ) -> None:
        super().__init__()
        self.positions = _TABLES[kind](frames, places, dim, std)

    def forward(self, features: Tensor) -> Tensor:
        """X^(0) = F + P.

        Args:
            features: Shape (B, T, H, W, D), T at most the table's.

        Returns:
            Shape (B, T, N, D) with place n = h * W + w; a shorter clip takes the first rows of
            the table.
        """
        tokens: Tensor = features.flatten(2, 3) + self.positions(features.shape[1])
        return tokens


class JointPositions(nn.Module):
    """A row for every frame and place."""

    def __init__(self, frames: int, places: int, dim: int, std: float) -> None:
        super().__init__()
        self.table = _untrained(std, frames, places, dim)

    def forward(self, frames: int) -> Tensor:
        """The rows of the first frames, (1, T, N, D)."""
        return self.table[:, :frames]


class FactorisedPositions(nn.Module):
    """The row of the frame plus the row of the place."""

    def __init__(self, frames: int, places: int, dim: int, std: float) -> None:
        super().__init__()
        self.time = _untrained(std, frames, 1, dim)
        self.space = _untrained(std, 1, places, dim)

    def forward(self, frames: int) -> Tensor:
        """The sums for the first frames, (1, T, N, D)."""
        return self.time[:, :frames] + self.space


def _untrained(std: float, frames: int, places: int, dim: int) -> nn.Parameter:
    table = nn.Parameter(torch.empty(1, frames, places, dim))
    nn.init.trunc_normal_(table, std=std, a=-2 * std, b=2 * std)
    return table


_TABLES = {"joint": JointPositions, "factorised": FactorisedPositions}
