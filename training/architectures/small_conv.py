"""A small convolutional network for MNIST-like data, which trains in minutes on a CPU."""

from torch import Tensor, nn


class SmallConvNet(nn.Module):
    """Three 3x3 convolutions (batch normalisation, ReLU, pooling) and a linear layer.

    Input `[N, channels, H, W]`, output logits `[N, num_classes]`; H, W >= 8.
    """

    def __init__(self, num_classes: int, channels: int = 1, width: int = 32) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for width_in, width_out in ((channels, width), (width, 2 * width), (2 * width, 4 * width)):
            layers += [
                nn.Conv2d(width_in, width_out, 3, padding=1, bias=False),
                nn.BatchNorm2d(width_out),
                nn.ReLU(),
                nn.MaxPool2d(2),
            ]
        self.features = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.classifier = nn.Linear(4 * width, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits `[N, num_classes]` of normalised images `[N, channels, H, W]`."""
        logits: Tensor = self.classifier(self.features(images))
        return logits
