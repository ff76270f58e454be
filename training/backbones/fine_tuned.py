"""A network of a pretrained backbone and a classifier of its features, which are trained together."""

import torch
from torch import Tensor, nn

from training.architectures.linear_probe import LinearProbe
from training.backbones.transformers_model import ImageFeatures, TextFeatures

_BATCH = 32


class FineTunedNetwork(nn.Module):
    """Logits of images or texts: the classifier `head` of the features of `backbone`.

    Args:
        backbone: Computes features `[N, D]` of images `[N, C, H, W]`, or of token ids and lengths.
        head: Computes logits `[N, K]` of features.
    """

    def __init__(self, backbone: ImageFeatures | TextFeatures, head: LinearProbe) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head

    @torch.no_grad()
    def initialise(self, *inputs: Tensor) -> None:
        """Standardise the features of training inputs `[N, ...]` for the classifier."""
        self.backbone.eval()
        batches = zip(*(torch.split(tensor, _BATCH) for tensor in inputs), strict=True)
        self.head.initialise(torch.cat([self.backbone(*batch) for batch in batches]))
        self.backbone.train()

    def forward(self, *inputs: Tensor) -> Tensor:
        """Logits `[N, K]`."""
        logits: Tensor = self.head(self.backbone(*inputs))
        return logits
