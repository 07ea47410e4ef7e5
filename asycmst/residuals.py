"""Where a residual sum and its layer norm stand around an attention or a feed-forward network.

Each class wraps a function f of tokens: `enter` prepares its input, `leave` takes up its output.
"""

from torch import Tensor, nn

from asycmst.config import NormPlace


class PostNorm(nn.LayerNorm):
    """x <- LN(x + f(x))."""

    def enter(self, tokens: Tensor) -> Tensor:
        """What f reads."""
        return tokens

    def leave(self, tokens: Tensor, update: Tensor) -> Tensor:
        """The tokens with f's output taken up."""
        return self(tokens + update)  # type: ignore[no-any-return]


class PreNorm(nn.LayerNorm):
    """x <- x + f(LN(x))."""

    def enter(self, tokens: Tensor) -> Tensor:
        """What f reads."""
        return self(tokens)  # type: ignore[no-any-return]

    def leave(self, tokens: Tensor, update: Tensor) -> Tensor:
        """The tokens with f's output taken up."""
        return tokens + update


class NoResidual(nn.Module):
    """x <- f(x)."""

    def enter(self, tokens: Tensor) -> Tensor:
        """What f reads."""
        return tokens

    def leave(self, tokens: Tensor, update: Tensor) -> Tensor:
        """The tokens with f's output taken up."""
        return update


def residual_norm(place: NormPlace, dim: int) -> PostNorm | PreNorm:
    """The norm of a residual over tokens of width `dim`."""
    return PostNorm(dim) if place == "post" else PreNorm(dim)


def final_norm(place: NormPlace, dim: int) -> nn.Module:
    """What ends a stream: norms that stand before their functions leave its end without one."""
    return nn.Identity() if place == "post" else nn.LayerNorm(dim)
