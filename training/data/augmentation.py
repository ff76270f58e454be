"""Augmentation on the device, a whole batch at a time."""

import torch
from torch import Tensor
from torch.nn import functional as F

_GREY = 127


class Augmentation:
    """Random translation, mirroring, cutout, zoom and jitter, drawn anew for each image.

    An image is zero-padded by `pad` and cropped back at a random offset, mirrored with probability one half, and a
    square of `cutout` pixels around a random point is greyed out (DeVries & Taylor 2017); 0 leaves it whole. A `share`
    of the images is distorted beyond that: a random square of `zoom` to 1 of their sides is enlarged to the whole,
    contrast changes by a factor up to e^`jitter` either way, brightness by up to `jitter` of half its range.
    """

    def __init__(
        self,
        pad: int = 4,
        *,
        flip: bool = True,
        cutout: int = 0,
        zoom: float = 1.0,
        jitter: float = 0.0,
        share: float = 1.0,
    ) -> None:
        self.pad = pad
        self.flip = flip
        self.cutout = cutout
        self.zoom = zoom
        self.jitter = jitter
        self.share = share

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
        if self.zoom < 1 or self.jitter:
            chosen = torch.rand(n, device=device) < self.share
            # Of no image at all affine_grid makes no grid.
            if chosen.any():
                moved[chosen] = self._distorted(moved[chosen])
        return moved

    def _distorted(self, images: Tensor) -> Tensor:
        pixels = images.permute(0, 3, 1, 2).float()
        n, device = len(images), images.device
        if self.zoom < 1:
            side = 1 - (1 - self.zoom) * torch.rand(n, 1, 1, device=device)
            centre = (1 - side) * _evenly_around_zero(n, 2, 1, device=device)
            square = torch.cat((side * torch.eye(2, device=device), centre), dim=2)
            grid = F.affine_grid(square, list(pixels.shape), align_corners=False)
            pixels = F.grid_sample(pixels, grid, padding_mode="border", align_corners=False)
        if self.jitter:
            contrast = torch.exp(self.jitter * _evenly_around_zero(n, 1, 1, 1, device=device))
            brightness = self.jitter * _GREY * _evenly_around_zero(n, 1, 1, 1, device=device)
            pixels = (pixels - _GREY) * contrast + _GREY + brightness
        return pixels.round().clamp(0, 255).to(images.dtype).permute(0, 2, 3, 1)

    def _near(self, n: int, size: int, device: torch.device) -> Tensor:
        """Whether each of `size` positions is within `cutout` pixels around a random one, `[n, size]`."""
        start = torch.randint(0, size, (n, 1), device=device) - self.cutout // 2
        offset = torch.arange(size, device=device) - start
        return (offset >= 0) & (offset < self.cutout)


def _evenly_around_zero(*shape: int, device: torch.device) -> Tensor:
    """Uniform in [-1, 1)."""
    return 2 * torch.rand(*shape, device=device) - 1
