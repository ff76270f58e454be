"""Networks: each maps normalised images `[N, C, H, W]` to logits `[N, K]`."""

from collections.abc import Callable, Mapping

from torch import nn

from training.architectures.all_conv import AllConvNet
from training.architectures.small_conv import SmallConvNet
from training.architectures.whitened_conv import WhitenedConvNet
from training.architectures.wide_resnet import WideResNet

ARCHITECTURES: Mapping[str, Callable[..., nn.Module]] = {
    "wide_resnet": WideResNet,
    "all_conv": AllConvNet,
    "small_conv": SmallConvNet,
    "whitened_conv": WhitenedConvNet,
}

__all__ = ["ARCHITECTURES", "AllConvNet", "SmallConvNet", "WhitenedConvNet", "WideResNet"]
