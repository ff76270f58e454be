"""Wide residual networks (Zagoruyko & Komodakis 2016), the paper's main vision classifier."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.architectures.pooling import GlobalAveragePool


class WideResNet(nn.Module):
    """WRN-depth-widen_factor with pre-activation basic blocks; the paper uses 40-2 with dropout 0.3.

    `depth` must be 6n + 4. Input `[N, channels, H, W]`, output logits `[N, num_classes]`; any H, W >= 8.
    """

    def __init__(
        self, num_classes: int, channels: int = 3, depth: int = 40, widen_factor: int = 2, dropout: float = 0.3
    ) -> None:
        super().__init__()
        if (depth - 4) % 6 or depth < 10:
            raise ValueError(f"depth must be 6n + 4 with n >= 1 (10, 16, 22, 28, 34, 40 ...), not {depth}")
        blocks_per_group = (depth - 4) // 6
        widths = [16, 16 * widen_factor, 32 * widen_factor, 64 * widen_factor]
        self.stem = nn.Conv2d(channels, widths[0], 3, padding=1, bias=False)
        self.groups = nn.Sequential(
            *(
                _Block(widths[g] if b == 0 else widths[g + 1], widths[g + 1], 2 if g and b == 0 else 1, dropout)
                for g in range(3)
                for b in range(blocks_per_group)
            )
        )
        self.norm = nn.BatchNorm2d(widths[3])
        self.pool = GlobalAveragePool()
        self.classifier = nn.Linear(widths[3], num_classes)
        self.apply(_initialise)

    def forward(self, images: Tensor) -> Tensor:
        """Logits `[N, num_classes]` of normalised images `[N, channels, H, W]`."""
        features = F.relu(self.norm(self.groups(self.stem(images))))
        logits: Tensor = self.classifier(self.pool(features))
        return logits


class _Block(nn.Module):
    """Pre-activation residual block; if the shape changes, the shortcut is a 1x1 convolution of the activated input."""

    def __init__(self, width_in: int, width_out: int, stride: int, dropout: float) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(width_in)
        self.conv1 = nn.Conv2d(width_in, width_out, 3, stride=stride, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(width_out)
        self.conv2 = nn.Conv2d(width_out, width_out, 3, padding=1, bias=False)
        self.dropout = nn.Dropout(dropout) if dropout > 0 else nn.Identity()
        same = width_in == width_out and stride == 1
        self.shortcut = None if same else nn.Conv2d(width_in, width_out, 1, stride=stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        activated = F.relu(self.norm1(x))
        residual = x if self.shortcut is None else self.shortcut(activated)
        hidden = self.dropout(F.relu(self.norm2(self.conv1(activated))))
        return torch.add(residual, self.conv2(hidden))


def _initialise(module: nn.Module) -> None:
    """He initialisation by fan-out, as the paper's code does it."""
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    elif isinstance(module, nn.Linear):
        nn.init.zeros_(module.bias)
