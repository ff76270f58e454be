"""The gated residual block of PixelCNN++ (section 2.5 and the authors' code)."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.architectures.weight_normalisation import WeightNormalised

_GATE_SCALE = 0.1
"""The scale of the last convolution's initial outputs, which makes a block start near the identity (authors' code)."""


class Features(NamedTuple):
    """A block's output `plain` `[N, F, H, W]`, and `active` `[N, 2F, H, W]`: elu of it and of its negative.

    `active` is stored because several layers use it, as input or as a shortcut.
    """

    plain: Tensor
    active: Tensor

    @classmethod
    def of(cls, plain: Tensor) -> Self:
        """`plain` with its activation."""
        return cls(plain, concat_elu(plain))


def concat_elu(x: Tensor) -> Tensor:
    """elu of `x` `[N, F, H, W]` and of -x, concatenated: `[N, 2F, H, W]`."""
    # In place on the concatenated copy, because the backward pass needs only the result.
    return F.elu(torch.cat((x, -x), dim=1), inplace=True)


class GatedResidual(nn.Module):
    """x + a sigmoid(b), where two convolutions compute a and b from x.

    The output of the first convolution is added to a 1x1 convolution of the activated shortcuts.

    Args:
        convolution: Called as `convolution(width_in, width_out, ...)` to make both convolutions.
        width: The number of features of x and of each shortcut.
        shortcuts: The number of shortcuts.
        dropout: The dropout rate between the convolutions.
    """

    def __init__(self, convolution: Callable[..., nn.Module], width: int, shortcuts: int, dropout: float) -> None:
        super().__init__()
        self.convolution = convolution(2 * width, width)
        self.shortcut = WeightNormalised(partial(nn.Conv2d, 2 * width * shortcuts, width, 1)) if shortcuts else None
        self.dropout = nn.Dropout(dropout)
        self.gate = convolution(2 * width, 2 * width, initial_scale=_GATE_SCALE)

    def forward(self, x: Features, *shortcuts: Features) -> Features:
        """The block's output for `x` and `shortcuts` of the same size."""
        hidden = self.convolution(x.active)
        if self.shortcut is not None:
            active = [shortcut.active for shortcut in shortcuts]
            hidden = hidden + self.shortcut(torch.cat(active, dim=1) if len(active) > 1 else active[0])
        gated = F.glu(self.gate(self.dropout(concat_elu(hidden))), dim=1)
        return Features.of(x.plain + gated)
