"""The plan: how what a bundle takes becomes what a foreign graph takes, one class for each kind of input."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, ValueInfoProto

from bundle import ImageInput, TextInput
from training.data import DataLocations, Reader

Feed = Mapping[str, NDArray[np.generic]]


class InputAdapter(Protocol):
    """How the inputs of one kind are read, and made the foreign graph's: by NumPy, and by nodes inside the graph."""

    @property
    def options(self) -> str:
        """The command's options that say what the graph takes, for messages."""
        ...

    @property
    def remedy(self) -> str:
        """How to export a graph in whose batches every row is its own."""
        ...

    @property
    def spec(self) -> ImageInput | TextInput:
        """The bundle's input."""
        ...

    @property
    def inputs(self) -> list[ValueInfoProto]:
        """The inputs of the bundle's graph."""
        ...

    @property
    def files(self) -> Mapping[str, Path]:
        """Files that the bundle needs besides, by their names in it."""
        ...

    def reader(self, locations: DataLocations) -> Reader:
        """Reads sources as rows `[N, ...]`."""
        ...

    def prepare(self, rows: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """What the bundle's graph takes for stored rows, in the order of `inputs`."""
        ...

    def feed(self, rows: NDArray[Any]) -> Feed:
        """What the foreign graph takes for stored rows, computed by NumPy: the reference for `nodes`."""
        ...

    def nodes(self, targets: Mapping[str, str]) -> tuple[list[NodeProto], list[TensorProto]]:
        """Nodes and constants that compute the foreign graph's inputs from `inputs`.

        `targets` are the names that its inputs have in the bundle's graph, by those that they had.
        """
        ...
