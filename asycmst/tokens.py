"""From feature grids to tokens with positions (Section 3.1, Fig 2c)."""

import torch
from torch import Tensor, nn


class TokenEmbedding(nn.Module):
    """Flattens a stream's grid and adds its learnable absolute positions.

    Args:
        frames: Longest clip T.
        places: Positions N = H * W of one frame.
        dim: Token width D.
        std: Standard deviation of the untrained positions, a normal cut off at twice that.
    """

    def __init__(self, frames: int, places: int, dim: int, std: float = 0.02) -> None:
        super().__init__()
        self.positions = nn.Parameter(torch.empty(1, frames, places, dim))
        nn.init.trunc_normal_(self.positions, std=std, a=-2 * std, b=2 * std)

    def forward(self, features: Tensor) -> Tensor:
        """X^(0) = F + P.

        Args:
            features: Shape (B, T, H, W, D), T at most the table's.

        Returns:
            Shape (B, T, N, D) with place n = h * W + w; a shorter clip takes the first rows of
            the table.
        """
        return features.flatten(2, 3) + self.positions[:, : features.shape[1]]
