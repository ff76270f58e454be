"""The base class of all models: a network and the conversion of stored examples to its inputs."""

from typing import Any

from torch import Tensor, nn
from torch.export import Dim

BATCH = Dim("N")
"""The batch dimension of exported graphs."""


class Model(nn.Module):
    """Base of classifiers, densities and language models.

    `forward` returns a named tuple with a method `float`, which converts it from the network's precision to float32.

    Attributes:
        input_names: Names of the exported graph's inputs, in the order in which `prepare` returns them.
        dynamic_shapes: Dynamic dimensions of each of those inputs, for torch.export.
    """

    input_names: tuple[str, ...] = ("images",)
    dynamic_shapes: tuple[dict[int, Any], ...] = ({0: BATCH},)

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def prepare(self, rows: Tensor) -> tuple[Tensor, ...]:
        """The graph's inputs for stored rows `[N, ...]` of a `training.data.InputArray`; images are unchanged."""
        return (rows,)

    def initialise(self, rows: Tensor) -> None:
        """Initialise a network from stored training rows, if it has data-dependent initialisation."""
