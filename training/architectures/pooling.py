"""Global pooling of feature maps, and the part that each position has in its result."""

from torch import Tensor, nn


class GlobalAveragePool(nn.Module):
    """The mean of each feature over all positions: `[N, D, H, W]` to `[N, D]`."""

    def forward(self, maps: Tensor) -> Tensor:
        """The means `[N, D]` of feature maps `[N, D, H, W]`."""
        return maps.mean(dim=(2, 3))


class GlobalMaxPool(nn.Module):
    """The largest value of each feature over all positions: `[N, D, H, W]` to `[N, D]`."""

    def forward(self, maps: Tensor) -> Tensor:
        """The maxima `[N, D]` of feature maps `[N, D, H, W]`."""
        return maps.amax(dim=(2, 3))


def is_global_pool(module: nn.Module) -> bool:
    """Whether `module` pools feature maps over all positions, so that `position_shares` decomposes its result."""
    if isinstance(module, nn.AdaptiveAvgPool2d):
        return module.output_size in (1, (1, 1))
    return isinstance(module, GlobalAveragePool | GlobalMaxPool)


def position_shares(pool: nn.Module, maps: Tensor) -> Tensor:
    """The part `[N, D, H, W]` that each position has in the pooled features; the sum over positions is the result.

    Positions share a mean in proportion to their values; the positions with the largest value share a maximum equally.

    Args:
        pool: A module for which `is_global_pool` holds.
        maps: Its input `[N, D, H, W]`.
    """
    if isinstance(pool, GlobalMaxPool):
        is_largest = (maps == maps.amax(dim=(2, 3), keepdim=True)).to(maps.dtype)
        return maps * is_largest / is_largest.sum(dim=(2, 3), keepdim=True)
    return maps / (maps.shape[2] * maps.shape[3])
