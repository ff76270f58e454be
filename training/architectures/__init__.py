"""Networks: each maps normalised images `[N, C, H, W]`, or token ids `[N, L]` and lengths `[N]`, to logits `[N, K]`.

Those of images' density map float pixels 0..255 `[N, C, H, W]` to nats `[N, H, W]`.
"""

from collections.abc import Callable, Mapping

from torch import nn

from training.architectures.all_conv import AllConvNet
from training.architectures.gru import GRUClassifier
from training.architectures.pixelcnn import PixelCNN
from training.architectures.small_conv import SmallConvNet
from training.architectures.transformer import TransformerClassifier
from training.architectures.whitened_conv import WhitenedConvNet
from training.architectures.wide_resnet import WideResNet

ARCHITECTURES: Mapping[str, Callable[..., nn.Module]] = {
    "wide_resnet": WideResNet,
    "all_conv": AllConvNet,
    "small_conv": SmallConvNet,
    "whitened_conv": WhitenedConvNet,
}

TEXT_ARCHITECTURES: Mapping[str, Callable[..., nn.Module]] = {
    "gru": GRUClassifier,
    "transformer": TransformerClassifier,
}

DENSITY_ARCHITECTURES: Mapping[str, Callable[..., nn.Module]] = {
    "pixelcnn": PixelCNN,
}

__all__ = [
    "ARCHITECTURES",
    "DENSITY_ARCHITECTURES",
    "TEXT_ARCHITECTURES",
    "AllConvNet",
    "GRUClassifier",
    "PixelCNN",
    "SmallConvNet",
    "TransformerClassifier",
    "WhitenedConvNet",
    "WideResNet",
]
