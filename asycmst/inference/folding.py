"""Batch norm that no longer learns, taken up in the weights of the convolution before it."""

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

_PAIRS = (("conv1", "bn1"), ("conv2", "bn2"))


def fold_norms(trunk: nn.Sequential) -> None:
    """Fold every batch norm of a residual network of basic blocks, in place.

    Args:
        trunk: of a `FrameEncoder`, in evaluation mode; its convolutions are replaced, so that
            weights shared with another network stay as they are.
    """
    for module in list(trunk.modules()):
        for convolution, norm in _PAIRS:
            if hasattr(module, norm):
                pair = getattr(module, convolution), getattr(module, norm)
                setattr(module, convolution, fuse_conv_bn_eval(*pair))
                setattr(module, norm, nn.Identity())
        shortcut = getattr(module, "downsample", None)
        if isinstance(shortcut, nn.Sequential):
            module.add_module("downsample", fuse_conv_bn_eval(*shortcut))
