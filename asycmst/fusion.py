"""The layers of the dual stream: self-attention, cross-attention, feed-forward (Section 3.3).

Streams are tokens (B, T, N, D); `valid` is None or bool (B, T, 1), False where a frame is padding.
The paper leaves open in which order the streams are updated and in which state they read each
other; each answer is a class, chosen once by `dual_stream_layer`.
"""

from torch import Tensor, nn

from asycmst.config import AsyCMSTConfig, Strategy
from asycmst.cross_attention import CrossModalAttention, key_set
from asycmst.dropout import Dropout
from asycmst.residuals import NoResidual, residual_norm
from asycmst.stsa import SelfAttentionBlock


class CrossAttentionBlock(nn.Module):
    """The cross-attention and its residual in each stream: x <- LN(x + Att).

    With norms before their functions, queries, keys and values are all made of normed tokens.
    """

    def __init__(self, config: AsyCMSTConfig, strategy: Strategy) -> None:
        super().__init__()
        self.attention = CrossModalAttention(
            config.dim, config.heads, key_set(strategy), config.cross_dropout, config.bias
        )
        self.norm_bus = residual_norm(config.norm, config.dim)
        self.norm_ceus = residual_norm(config.norm, config.dim)

    def forward(self, bus: Tensor, ceus: Tensor, valid: Tensor | None) -> tuple[Tensor, Tensor]:
        """Both streams at once, each reading the other as given."""
        att_bus, att_ceus = self.attention(
            self.norm_bus.enter(bus), self.norm_ceus.enter(ceus), valid
        )
        return self.norm_bus.leave(bus, att_bus), self.norm_ceus.leave(ceus, att_ceus)

    def read_earlier(
        self, bus: Tensor, ceus: Tensor, from_bus: Tensor, from_ceus: Tensor, valid: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Both streams at once, each reading an earlier state of the other."""
        att_bus, att_ceus = self.attention.read_earlier(
            self.norm_bus.enter(bus),
            self.norm_ceus.enter(ceus),
            self.norm_bus.enter(from_bus),
            self.norm_ceus.enter(from_ceus),
            valid,
        )
        return self.norm_bus.leave(bus, att_bus), self.norm_ceus.leave(ceus, att_ceus)

    def read_ceus(self, bus: Tensor, from_ceus: Tensor, valid: Tensor | None) -> Tensor:
        """The BUS stream alone."""
        attended = self.attention.read_ceus(
            self.norm_bus.enter(bus), self.norm_ceus.enter(from_ceus), valid
        )
        return self.norm_bus.leave(bus, attended)

    def read_bus(self, ceus: Tensor, from_bus: Tensor, valid: Tensor | None) -> Tensor:
        """The CEUS stream alone."""
        attended = self.attention.read_bus(
            self.norm_ceus.enter(ceus), self.norm_bus.enter(from_bus), valid
        )
        return self.norm_ceus.leave(ceus, attended)


class SeparateStreams(nn.Module):
    """In place of a `CrossAttentionBlock`: the streams pass by each other."""

    def forward(self, bus: Tensor, ceus: Tensor, valid: Tensor | None) -> tuple[Tensor, Tensor]:
        """Both streams as they are."""
        return bus, ceus

    def read_earlier(
        self, bus: Tensor, ceus: Tensor, from_bus: Tensor, from_ceus: Tensor, valid: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Both streams as they are."""
        return bus, ceus

    def read_ceus(self, bus: Tensor, from_ceus: Tensor, valid: Tensor | None) -> Tensor:
        """The BUS stream as it is."""
        return bus

    def read_bus(self, ceus: Tensor, from_bus: Tensor, valid: Tensor | None) -> Tensor:
        """The CEUS stream as it is."""
        return ceus


class FeedForwardBlock(nn.Module):
    """The feed-forward network, linear, ReLU, dropout, linear, dropout, in its residual.

    Eq 12-13 print neither a residual around the network nor a norm after it. Both are taken here
    unless the configuration asks for the letter, which then has neither.
    """

    def __init__(self, config: AsyCMSTConfig, hidden: int | None = None) -> None:
        super().__init__()
        hidden = config.ffn_dim if hidden is None else hidden
        self.network = nn.Sequential(
            nn.Linear(config.dim, hidden, config.bias),
            nn.ReLU(inplace=True),
            Dropout(config.dropout),
            nn.Linear(hidden, config.dim, config.bias),
            Dropout(config.dropout),
        )
        self.norm = (
            NoResidual() if config.ffn == "literal" else residual_norm(config.norm, config.dim)
        )

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens (..., D) to tokens (..., D)."""
        return self.norm.leave(tokens, self.network(self.norm.enter(tokens)))


class DualStreamLayer(nn.Module):
    """One layer, X^(l) to X^(l+1). This class is Algorithm 2: both streams finish their
    self-attention, read each other in that state, and go through their feed-forward networks.

    Args:
        config: Sizes and kinds.
        number: The layer's number, counted from 1; it decides whether the layer has a
            cross-attention.
    """

    def __init__(self, config: AsyCMSTConfig, number: int) -> None:
        super().__init__()
        self.self_bus = SelfAttentionBlock(config)
        self.self_ceus = SelfAttentionBlock(config)
        self.cross = (
            SeparateStreams()
            if config.cross_attention is None or number not in config.cross_attention_layers
            else CrossAttentionBlock(config, config.cross_attention)
        )
        self.ffn_bus = FeedForwardBlock(config)
        self.ffn_ceus = FeedForwardBlock(config)

    def forward(self, bus: Tensor, ceus: Tensor, valid: Tensor | None) -> tuple[Tensor, Tensor]:
        """Streams (B, T, N, D) to streams (B, T, N, D)."""
        bus, ceus = self.self_bus(bus, valid), self.self_ceus(ceus, valid)
        bus, ceus = self.cross(bus, ceus, valid)
        return self.ffn_bus(bus), self.ffn_ceus(ceus)


class EarlierStateLayer(DualStreamLayer):
    """As Algorithm 2, but each stream reads the other as it was before its self-attention."""

    def forward(self, bus: Tensor, ceus: Tensor, valid: Tensor | None) -> tuple[Tensor, Tensor]:
        """Streams (B, T, N, D) to streams (B, T, N, D)."""
        new_bus, new_ceus = self.self_bus(bus, valid), self.self_ceus(ceus, valid)
        new_bus, new_ceus = self.cross.read_earlier(new_bus, new_ceus, bus, ceus, valid)
        return self.ffn_bus(new_bus), self.ffn_ceus(new_ceus)


class SequentialLayer(DualStreamLayer):
    """The BUS stream reads CEUS after its self-attention and finishes the layer, then the CEUS
    stream reads the finished BUS stream.
    """

    def forward(self, bus: Tensor, ceus: Tensor, valid: Tensor | None) -> tuple[Tensor, Tensor]:
        """Streams (B, T, N, D) to streams (B, T, N, D)."""
        ceus = self.self_ceus(ceus, valid)
        bus = self.ffn_bus(self.cross.read_ceus(self.self_bus(bus, valid), ceus, valid))
        return bus, self.ffn_ceus(self.cross.read_bus(ceus, bus, valid))


class SequentialEarlierStateLayer(DualStreamLayer):
    """As `SequentialLayer`, but the BUS stream reads CEUS as it was before its self-attention:
    the order of the authors' released code.
    """

    def forward(self, bus: Tensor, ceus: Tensor, valid: Tensor | None) -> tuple[Tensor, Tensor]:
        """Streams (B, T, N, D) to streams (B, T, N, D)."""
        bus = self.ffn_bus(self.cross.read_ceus(self.self_bus(bus, valid), ceus, valid))
        return bus, self.ffn_ceus(self.cross.read_bus(self.self_ceus(ceus, valid), bus, valid))


def dual_stream_layer(config: AsyCMSTConfig, number: int) -> DualStreamLayer:
    """Layer `number`, counted from 1, of the kind that the configuration names."""
    return _LAYERS[config.update, config.kv](config, number)


_LAYERS = {
    ("parallel", "stsa"): DualStreamLayer,
    ("parallel", "raw"): EarlierStateLayer,
    ("sequential", "stsa"): SequentialLayer,
    ("sequential", "raw"): SequentialEarlierStateLayer,
}
