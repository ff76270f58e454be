"""Augmentation on the device, a whole batch at a time."""

import torch
from torch import Tensor
from torch.nn import functional as F


class PadCropFlip:
    """Zero-pad by `pad`, crop back at a random offset, mirror with probability one half; a draw per image."""

    def __init__(self, pad: int = 4, *, flip: bool = True) -> None:
        self.pad = pad
        self.flip = flip

    def __call__(self, images: Tensor) -> Tensor:
        """Augmented copies of `images` `[N, H, W, C]`, same dtype and shape; draws from torch's generator."""
        n, height, width, _ = images.shape
        device = images.device
        top = torch.randint(0, 2 * self.pad + 1, (n, 1), device=device)
        left = torch.randint(0, 2 * self.pad + 1, (n, 1), device=device)
        rows = top + torch.arange(height, device=device)
        columns = left + torch.arange(width, device=device)
        if self.flip:
            mirrored = torch.rand(n, 1, device=device) < 0.5
            columns = torch.where(mirrored, columns.flip(1), columns)
        padded = F.pad(images, (0, 0, self.pad, self.pad, self.pad, self.pad))
        batch = torch.arange(n, device=device)
        return padded[batch[:, None, None], rows[:, :, None], columns[:, None, :]]
