"""Batch norm that no longer learns, taken up in the weights of the convolution before it."""

from monai.networks.nets.resnet import ResNetBlock
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

_STEM: dict[str, type[nn.Module]] = {
    "conv1": nn.Conv2d,
    "bn1": nn.BatchNorm2d,
    "act": nn.ReLU,
    "maxpool": nn.MaxPool2d,
}
_STAGES = ("layer1", "layer2", "layer3", "layer4")
_PAIRS = (("conv1", "bn1"), ("conv2", "bn2"))


def fold_norms(trunk: nn.Module) -> bool:
    """Fold every batch norm of a residual network of basic blocks, in place.

    Args:
        trunk: In evaluation mode; its convolutions are replaced, so that weights shared with
            another network stay as they are.

    Returns:
        Whether the trunk is made as that of a `FrameEncoder`. Any other stays as it is: parts of
        the same names may stand in another order.
    """
    if not _is_residual(trunk):
        return False
    for module in list(trunk.modules()):
        for convolution, norm in _PAIRS:
            if hasattr(module, norm):
                pair = getattr(module, convolution), getattr(module, norm)
                setattr(module, convolution, fuse_conv_bn_eval(*pair))
                setattr(module, norm, nn.Identity())
        shortcut = getattr(module, "downsample", None)
        if isinstance(shortcut, nn.Sequential):
            module.add_module("downsample", fuse_conv_bn_eval(*shortcut))
    return True


def _is_residual(trunk: nn.Module) -> bool:
    parts = dict(trunk.named_children())
    stem = [name for name in _STEM if name in parts or name != "maxpool"]
    if type(trunk) is not nn.Sequential or list(parts) != [*stem, *_STAGES]:
        return False
    stages = [parts[name] for name in _STAGES]
    return (
        all(_is(parts[name], _STEM[name]) for name in stem)
        and all(type(stage) is nn.Sequential for stage in stages)
        and all(_is_basic(block) for stage in stages for block in stage.children())
    )


def _is_basic(block: nn.Module) -> bool:
    if type(block) is not ResNetBlock:
        return False
    shortcut = block.downsample
    return (
        _is(block.act, nn.ReLU)
        and all(_is_pair(getattr(block, name), getattr(block, norm)) for name, norm in _PAIRS)
        and (shortcut is None or (type(shortcut) is nn.Sequential and _is_pair(*shortcut)))
    )


def _is_pair(*parts: nn.Module) -> bool:
    return len(parts) == 2 and _is(parts[0], nn.Conv2d) and _is(parts[1], nn.BatchNorm2d)


def _is(part: object, kind: type[nn.Module]) -> bool:
    """Of that very class, with zeros beyond the border and statistics of its own."""
    if isinstance(part, nn.Conv2d) and part.padding_mode != "zeros":
        return False
    if isinstance(part, nn.BatchNorm2d) and part.running_mean is None:
        return False
    return type(part) is kind
