"""Frame encoders: one 2-D network per modality, each frame on its own (Section 3.1)."""

import pickle
from collections import OrderedDict
from pathlib import Path

import torch
from monai.networks.nets.resnet import ResNet, resnet18
from torch import Tensor, nn

from asycmst.config import AsyCMSTConfig, Branch, EncoderKind, PixelScale

_TRUNK = ("conv1", "bn1", "act", "maxpool", "layer1", "layer2", "layer3", "layer4")
_COUNTER = "num_batches_tracked"  # absent from weights that older torch versions wrote


class FrameEncoder(nn.Module):
    """Encodes every frame of a clip into a grid of D channels.

    `trunk` ends with the last stage of the residual network: its output, shape (B * T, C, H, W)
    after the ReLU, is the map to hook for class activation maps. `project` is the 1x1
    convolution from C to D.

    Args:
        kind: "resnet18" (stride 32, C = 512, laid out and named as torchvision's) or "tiny"
            (stride 16, C = 32).
        dim: Output channels D.
        layout: How clips become images and maps become grids; None is `FrameLayout`.
    """

    def __init__(self, kind: EncoderKind, dim: int, layout: "FrameLayout | None" = None) -> None:
        super().__init__()
        self.layout = FrameLayout() if layout is None else layout
        network, stages, width = _NETWORKS[kind]()
        self.trunk = nn.Sequential(
            OrderedDict((stage, getattr(network, stage)) for stage in stages)
        )
        self.project = nn.Conv2d(width, dim, kernel_size=1)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, clip: Tensor) -> Tensor:
        """Features of each frame.

        Args:
            clip: Floating, shape (B, 3, T, H', W'), any strides.

        Returns:
            Shape (B, T, H, W, D) with H = ceil(H' / stride) and W likewise.
        """
        features: Tensor = self.project(self.trunk(self.layout.images(clip)))
        return self.layout.grid(features, clip.shape[2])


class FrameLayout:
    """A frame is an image, and an image's map is the grid of its frame (Section 3.1)."""

    def images(self, clip: Tensor) -> Tensor:
        """Clip (B, 3, T, H', W') to images (B * T, 3, H', W')."""
        batch, channels, frames, height, width = clip.shape
        # Channels last all the way: one copy here, and the token layout at the end is a view.
        images = clip.permute(0, 2, 3, 4, 1).reshape(batch * frames, height, width, channels)
        return images.permute(0, 3, 1, 2)

    def grid(self, maps: Tensor, frames: int) -> Tensor:
        """Maps (B * T, D, H, W) to a grid (B, T, H, W, D)."""
        grid: Tensor = maps.permute(0, 2, 3, 1).unflatten(0, (-1, frames))
        return grid


class ReleasedLayout(FrameLayout):
    """The reshapes of the authors' released code, which permute nothing.

    An image holds three successive planes of the clip in memory, which are three moments of one
    colour, and token (t, n) holds every T-th channel of all images at place n.
    """

    def images(self, clip: Tensor) -> Tensor:
        """Clip (B, 3, T, H', W') to images (B * T, 3, H', W') of the same memory."""
        batch, channels, frames, height, width = clip.shape
        return clip.reshape(batch * frames, channels, height, width)

    def grid(self, maps: Tensor, frames: int) -> Tensor:
        """Maps (B * T, D, H, W) to a grid (B, T, H, W, D), by way of (B, D, T, H, W)."""
        _, dim, rows, columns = maps.shape
        return maps.reshape(-1, dim, frames, rows, columns).permute(0, 2, 3, 4, 1)


class PairedEncoders(nn.Module):
    """The encoders of the two branches, `bus` and `ceus`: one each, or one and the same."""

    def __init__(self, config: AsyCMSTConfig) -> None:
        super().__init__()
        layout = ReleasedLayout() if config.emulate_layout else FrameLayout()
        self.bus = FrameEncoder(config.encoder, config.dim, layout)
        self.ceus = (
            self.bus if config.share_encoder else FrameEncoder(config.encoder, config.dim, layout)
        )

    def forward(self, bus: Tensor, ceus: Tensor) -> tuple[Tensor, Tensor]:
        """Clips (B, 3, T, H', W') to F_B and F_C, each (B, T, H, W, D)."""
        return self.encode(bus, "lower"), self.encode(ceus, "upper")

    def encode(self, clip: Tensor, branch: Branch) -> Tensor:
        """A clip (B, 3, T, H', W') to the grid (B, T, H, W, D) of one branch."""
        grid: Tensor = self.bus(clip) if branch == "lower" else self.ceus(clip)
        return grid


class PixelNorm(nn.Module):
    """(x - mean) / std for each colour channel of clips in [0, 1]."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        for name, values in (("mean", mean), ("std", std)):
            column = torch.tensor(values)[:, None, None, None]
            self.register_buffer(name, column, persistent=False)

    def forward(self, clip: Tensor) -> Tensor:
        """Clip (B, 3, T, H', W') to the same shape."""
        return (clip - self.mean) / self.std


def pixel_norm(scale: PixelScale) -> nn.Module:
    """What brings clips in [0, 1] to the range that a model's encoders take."""
    if scale == "unit":
        return nn.Identity()
    return PixelNorm((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def feature_grid(config: AsyCMSTConfig) -> tuple[int, int]:
    """Rows and columns of the grid that the model's encoders make of a frame."""
    height, width = config.frame_size
    stride = _STRIDES[config.encoder]
    return -(-height // stride), -(-width // stride)


def load_imagenet_weights(encoder: FrameEncoder, path: str | Path) -> None:
    """Loads a local torchvision-keyed ResNet-18 state dict into `encoder.trunk`, in place.

    The 1x1 convolution keeps its weights, the file's classifier `fc` is ignored. Only tensors are
    unpickled.

    Raises:
        FileNotFoundError: No such file.
        ValueError: The file holds no state dict, or one with other keys or shapes.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no weights file {path}; give a torchvision ResNet-18 state dict")
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(f"{path} holds more than tensors; save the state dict alone") from error
    if not isinstance(loaded, dict):
        raise ValueError(f"{path} holds a {type(loaded).__name__}; save a state dict")
    given = {key: value for key, value in loaded.items() if not key.startswith("fc.")}
    expected = encoder.trunk.state_dict()
    missing = [key for key in expected if key not in given and not key.endswith(_COUNTER)]
    extra = [key for key in given if key not in expected]
    if missing or extra:
        raise ValueError(
            f"{path} does not fit the encoder: {_first(missing)} missing, {_first(extra)} "
            "unexpected; give a torchvision ResNet-18 state dict to a resnet18 encoder"
        )
    reshaped = [key for key in given if given[key].shape != expected[key].shape]
    if reshaped:
        raise ValueError(
            f"{path} does not fit the encoder: {_first(reshaped)} of another shape; "
            "give a torchvision ResNet-18 state dict to a resnet18 encoder"
        )
    encoder.trunk.load_state_dict(expected | given)


def _first(keys: list[str]) -> str:
    return f"{len(keys)} keys ({keys[0]}, ...)" if keys else "no keys"


def _resnet18() -> tuple[ResNet, tuple[str, ...], int]:
    # MONAI's defaults differ from torchvision's: stride 1 first, biased downsampling.
    network = resnet18(
        spatial_dims=2,
        n_input_channels=3,
        conv1_t_size=7,
        conv1_t_stride=2,
        shortcut_type="B",
        bias_downsample=False,
        feed_forward=False,
    )
    return network, _TRUNK, 512


def _tiny() -> tuple[ResNet, tuple[str, ...], int]:
    network = ResNet(
        "basic",
        [1, 1, 1, 1],
        [8, 16, 24, 32],
        spatial_dims=2,
        n_input_channels=3,
        conv1_t_size=5,
        conv1_t_stride=2,
        no_max_pool=True,
        feed_forward=False,
        bias_downsample=False,
    )
    return network, tuple(stage for stage in _TRUNK if stage != "maxpool"), 32


_NETWORKS = {"resnet18": _resnet18, "tiny": _tiny}
_STRIDES = {"resnet18": 32, "tiny": 16}
