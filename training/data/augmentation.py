"""Augmentation on the device, a whole batch at a time."""

import torch
from torch import Tensor
from torch.nn import functional as F

_GREY = 127


class Augmentation:
    """Random translation, mirroring and cutout, drawn anew for each image.

    An image is zero-padded by `pad` and cropped back at a random offset, mirrored with probability one half, and a
    square of `cutout` pixels around a random point is greyed out (DeVries & Taylor 2017); 0 leaves it whole.
    """

    def __init__(self, pad: int = 4, *, flip: bool = True, cutout: int = 0) -> None:
        self.pad = pad
        self.flip = flip
        self.cutout = cutout

    def __call__(self, images: Tensor) -> Tensor:
        """Augmented copies of `images` uint8 `[N, H, W, C]`; draws from torch's generator."""
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
        moved = padded[batch[:, None, None], rows[:, :, None], columns[:, None, :]]
        if self.cutout:
            moved[self._near(n, height, device)[:, :, None] & self._near(n, width, device)[:, None, :]] = _GREY
        return moved

    def _near(self, n: int, size: int, device: torch.device) -> Tensor:
        """Whether each of `size` positions is within `cutout` pixels around a random one, `[n, size]`."""
        start = torch.randint(0, size, (n, 1), device=device) - self.cutout // 2
        offset = torch.arange(size, device=device) - start
        return (offset >= 0) & (offset < self.cutout)
