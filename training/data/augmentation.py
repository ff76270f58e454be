"""Augmentation of image batches, on the device that holds them."""

import torch
from torch import Tensor
from torch.nn import functional as F

_GREY = 127


class Augmentation:
    """Random translation, mirroring, cutout, zoom and jitter, drawn independently for each image.

    Args:
        pad: Zero padding on each side; the image is cropped to its size at a random offset.
        flip: Whether images are mirrored with probability one half.
        cutout: Side of the grey square around a random point, in pixels (DeVries & Taylor 2017); 0 for none.
        zoom: The smallest side, relative to the image's, of the random square that is enlarged to the image's size.
        jitter: The contrast changes by a factor between e^-`jitter` and e^`jitter`, the brightness by at most `jitter`
            times half its range.
        share: The share of images that `zoom` and `jitter` apply to.
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
        """Augmented copies of `images` uint8 `[N, H, W, C]`; draws from torch's default generator."""
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
            moved[self._cut(n, height, device)[:, :, None] & self._cut(n, width, device)[:, None, :]] = _GREY
        if self.zoom < 1 or self.jitter:
            selected = torch.rand(n, device=device) < self.share
            # affine_grid fails on an empty batch.
            if selected.any():
                moved[selected] = self._distorted(moved[selected])
        return moved

    def _distorted(self, images: Tensor) -> Tensor:
        """Copies of `images` `[N, H, W, C]` with zoom and jitter."""
        pixels = images.permute(0, 3, 1, 2).float()
        n, device = len(images), images.device
        if self.zoom < 1:
            side = 1 - (1 - self.zoom) * torch.rand(n, 1, 1, device=device)
            centre = (1 - side) * _signed_uniform(n, 2, 1, device=device)
            square = torch.cat((side * torch.eye(2, device=device), centre), dim=2)
            grid = F.affine_grid(square, list(pixels.shape), align_corners=False)
            pixels = F.grid_sample(pixels, grid, padding_mode="border", align_corners=False)
        if self.jitter:
            contrast = torch.exp(self.jitter * _signed_uniform(n, 1, 1, 1, device=device))
            brightness = self.jitter * _GREY * _signed_uniform(n, 1, 1, 1, device=device)
            pixels = (pixels - _GREY) * contrast + _GREY + brightness
        return pixels.round().clamp(0, 255).to(images.dtype).permute(0, 2, 3, 1)

    def _cut(self, n: int, size: int, device: torch.device) -> Tensor:
        """Masks bool `[n, size]` of `cutout` positions around a random one; positions beyond the edges are lost."""
        start = torch.randint(0, size, (n, 1), device=device) - self.cutout // 2
        offset = torch.arange(size, device=device) - start
        return (offset >= 0) & (offset < self.cutout)


def _signed_uniform(*shape: int, device: torch.device) -> Tensor:
    """Uniform random numbers in [-1, 1)."""
    return 2 * torch.rand(*shape, device=device) - 1
