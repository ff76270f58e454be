"""Evidence: the part of each position of an image in the logit of the predicted class.

The logits of a network that ends in global pooling and a linear layer are sums over positions p (class activation
mapping, Zhou et al. 2016):

    logit_k = bias_k + sum_p sum_d w_kd s_d(p),

where s_d(p) is the part of position p in the pooled feature d.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn

from training.architectures.pooling import is_global_pool, position_shares
from training.models.classifier import ImageClassifier, Mirrored
from training.models.model import Model


class EvidenceLayers(NamedTuple):
    """The layers of a classifier of images that its evidence is computed from.

    Attributes:
        pool: The global pooling of feature maps `[N, D, H, W]`.
        linear: The last linear layer.
        scale: The factor between the linear layer and the logits.
        mirrored: Whether the classifier averages the logits of each image and its mirror image.
    """

    pool: nn.Module
    linear: nn.Linear
    scale: float
    mirrored: bool

    @classmethod
    def of(cls, model: Model) -> Self | None:
        """The layers of `model`; None unless it is a classifier of images with one global pooling."""
        mirrored = isinstance(model, Mirrored)
        classifier = model.network if mirrored else model
        if not isinstance(classifier, ImageClassifier):
            return None
        modules = list(classifier.modules())
        pools = [module for module in modules if is_global_pool(module)]
        linear = [module for module in modules if isinstance(module, nn.Linear)]
        if len(pools) != 1 or not linear:
            return None
        return cls(pools[0], linear[-1], float(getattr(classifier.network, "logit_scale", 1.0)), mirrored)

    def bias(self, classes: int) -> list[float]:
        """The part of each class's logit that no position has, for the first `classes` outputs."""
        if self.linear.bias is None:
            return [0.0] * classes
        return [self.scale * float(value) for value in self.linear.bias[:classes].detach().cpu()]

    @contextmanager
    def recorded_maps(self) -> Iterator[list[Tensor]]:
        """The inputs of the pooling inside the block, in the order of its calls."""
        recorded: list[Tensor] = []

        def record(_pool: nn.Module, arguments: tuple[Any, ...]) -> None:
            recorded.append(arguments[0])

        hook = self.pool.register_forward_pre_hook(record)
        try:
            yield recorded
        finally:
            hook.remove()

    def evidence(self, maps: Tensor, predicted: Tensor) -> Tensor:
        """The evidence float32 `[N, H, W]` of each position for the predicted class.

        Args:
            maps: The input of the pooling `[N, D, H, W]`; with mirror images `[2N, D, H, W]`.
            predicted: The predicted classes int64 `[N]`.
        """
        weights = self.scale * self.linear.weight.float()[predicted]
        shares = position_shares(self.pool, maps.float())
        if not self.mirrored:
            return torch.einsum("ndhw,nd->nhw", shares, weights)
        upright, mirrored = shares.reshape(2, -1, *shares.shape[1:])
        return torch.einsum("ndhw,nd->nhw", (upright + mirrored.flip(3)) / 2, weights)
