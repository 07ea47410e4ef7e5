"""The choices that make one `SaliencyDualAttention` model."""

from dataclasses import asdict, dataclass
from typing import Literal, get_args

from asycmst.network_config import NetworkConfig, check_count, check_tuple
from asycmst.saliency.network import GROUPS, STAGES, STRIDE
from asycmst.self_supervision import NODULES, SaliencyObjective

Scope = Literal["split", "both"]


@dataclass(frozen=True)
class SaliencyConfig(SaliencyObjective, NetworkConfig):
    """Architecture and loss weights; but for `suppress` the defaults are the published ones.

    Where description and released code differ, `authors` follows the code. The losses are the
    fields of SaliencyObjective. Two things differ from the released code at the border, whatever
    the fields: its Sobel filter sees zeros beyond the image, so that the border itself is an edge
    of the boundary loss, and here image and map go on as they end; its pooling leaves out pixels
    that fill no whole patch, and here they make a patch that is cut off.

    Attributes:
        frames: Images that training takes from each clip, evenly spaced; one is its middle frame.
        image_size: Side of a square image in pixels, or (height, width); multiples of 32.
        saliency_widths: Channels of the six stages of the saliency net, multiples of 4.
        width: Channels of the encoder's first scale; each of the four others has twice as many.
        hidden: Hidden width of the classifier.
        scope: The channel gate acts on the features of the original image and the spatial gate
            on those of the enhanced one ("split"), or both gates on both ("both"). The published
            description says the first and so does the default; the released code does the
            second.
        patch: Side of the spatial gate's patches in pixels of each scale.
        suppress: Take the gates' least value, 1/2, off: a flat channel or a patch without
            activity is cut off. This is ours; the released gates (False) leave at least half of
            everything.

    Raises:
        TypeError: A field has the wrong type.
        ValueError: A value, or a combination of values, describes no model.
    """

    frames: int = 1
    saliency_widths: tuple[int, ...] = (8, 16, 24, 32, 48, 64)
    width: int = 32
    hidden: int = 128
    scope: Scope = "split"
    patch: int = 4
    suppress: bool = True

    def __post_init__(self) -> None:
        NetworkConfig.__post_init__(self)
        SaliencyObjective.__post_init__(self)
        for name in ("width", "hidden", "patch"):
            check_count(name, getattr(self, name))
        check_tuple("saliency_widths", self.saliency_widths)
        if len(self.saliency_widths) != STAGES or any(w % GROUPS for w in self.saliency_widths):
            raise ValueError(
                f"saliency_widths is {self.saliency_widths}; give {STAGES} multiples of {GROUPS}"
            )
        if self.scope not in get_args(Scope):
            raise ValueError(f"scope is {self.scope!r}; choose 'split' or 'both'")
        if not isinstance(self.suppress, bool):
            raise TypeError(f"suppress is {self.suppress!r}; give True or False")
        if any(side % STRIDE for side in self.frame_size):
            raise ValueError(
                f"image_size is {self.image_size}; the saliency net halves an image five times, "
                f"give multiples of {STRIDE}"
            )

    @classmethod
    def authors(cls) -> "SaliencyConfig":
        """The released code's model: both gates on both branches, never below 1/2."""
        return cls(scope="both", suppress=False)

    @classmethod
    def demo(cls) -> "SaliencyConfig":
        """A model that learns to find dark nodules in images of 64 x 64 in minutes on a CPU."""
        return cls(
            image_size=64,
            width=4,
            hidden=32,
            **asdict(NODULES),
        )

    @property
    def reads_ceus(self) -> bool:
        """Whether the contrast clip is needed; a B-mode image is enough here."""
        return False

    @property
    def mixes_frames(self) -> bool:
        """Whether frames are read together; here each is an image of its own."""
        return False
