"""The model that is trained and exported alike: a network with what makes its input of stored rows."""

from typing import Any

from torch import Tensor, nn
from torch.export import Dim

BATCH = Dim("N")


class Model(nn.Module):
    """Base of classifiers, densities and language models.

    `input_names` and `dynamic_shapes` describe the exported graph's inputs, which `prepare` makes of stored rows. What
    `forward` returns has a method `float`: itself in float32, whatever precision the network ran in.
    """

    input_names: tuple[str, ...] = ("images",)
    dynamic_shapes: tuple[dict[int, Any], ...] = ({0: BATCH},)

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def prepare(self, rows: Tensor) -> tuple[Tensor, ...]:
        """The graph's inputs for stored rows, `[N, ...]` as in `training.data.InputArray`: images as they are."""
        return (rows,)

    def initialise(self, rows: Tensor) -> None:
        """Let a network that starts from data see stored training rows."""
