"""Network architectures, by task. Imports recipes, data and errors at most.

Classifiers map normalised images `[N, C, H, W]`, or token ids `[N, L]` and lengths `[N]`, to logits `[N, K]`. Density
networks map float pixels 0..255 `[N, C, H, W]` to nats `[N, H, W]`. Language networks map symbols `[N, W]` and a state
to the logits `[N, W, V]` of the next symbols and the next state.
"""

from collections.abc import Callable, Mapping

from torch import nn

from training.architectures.all_conv import AllConvNet
from training.architectures.gru import GRUClassifier
from training.architectures.language_network import LanguageNetwork
from training.architectures.pixelcnn import PixelCNN
from training.architectures.qrnn import QRNNLanguageModel
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

LANGUAGE_ARCHITECTURES: Mapping[str, Callable[..., LanguageNetwork]] = {
    "qrnn": QRNNLanguageModel,
}

__all__ = [
    "ARCHITECTURES",
    "DENSITY_ARCHITECTURES",
    "LANGUAGE_ARCHITECTURES",
    "TEXT_ARCHITECTURES",
    "AllConvNet",
    "GRUClassifier",
    "LanguageNetwork",
    "PixelCNN",
    "QRNNLanguageModel",
    "SmallConvNet",
    "TransformerClassifier",
    "WhitenedConvNet",
    "WideResNet",
]
