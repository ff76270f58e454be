"""The all convolutional network (Springenberg et al. 2015), the paper's second vision classifier."""

from torch import Tensor, nn


class AllConvNet(nn.Module):
    """Nine GELU convolutions with batch normalisation; pooling and dropout 0.5 after each of the first two groups.

    Input `[N, channels, H, W]`, output logits `[N, num_classes]`; H, W >= 8. Widths 96 and 192 are the paper's.
    """

    def __init__(self, num_classes: int, channels: int = 3, width: int = 96, dropout: float = 0.5) -> None:
        super().__init__()
        wide = 2 * width
        self.features = nn.Sequential(
            *_conv(channels, width), *_conv(width, width), *_conv(width, width),
            nn.MaxPool2d(2), nn.Dropout(dropout),
            *_conv(width, wide), *_conv(wide, wide), *_conv(wide, wide),
            nn.MaxPool2d(2), nn.Dropout(dropout),
            *_conv(wide, wide, padding=0), *_conv(wide, wide, kernel=1), *_conv(wide, wide, kernel=1),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        )  # fmt: skip
        self.classifier = nn.Linear(wide, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits `[N, num_classes]` of normalised images `[N, channels, H, W]`."""
        logits: Tensor = self.classifier(self.features(images))
        return logits


def _conv(width_in: int, width_out: int, kernel: int = 3, padding: int | None = None) -> tuple[nn.Module, ...]:
    pad = kernel // 2 if padding is None else padding
    return nn.Conv2d(width_in, width_out, kernel, padding=pad, bias=False), nn.BatchNorm2d(width_out), nn.GELU()
