"""The interface of input adapters: from a bundle's inputs to an ONNX classifier's, one class per kind of input."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from onnx import GraphProto

from bundle import ImageInput, TextInput
from training.data import DataLocations, Reader

Feed = Mapping[str, NDArray[np.generic]]
"""The arrays of a graph's inputs, by name."""

PREFIX = "ood-input/"
"""The prefix of tensors between the bundle's inputs and the classifier's."""


class InputAdapter(Protocol):
    """Reads inputs of one kind and converts them to the classifier's: in NumPy, and as a graph."""

    @property
    def options(self) -> str:
        """The command's options that describe the classifier's input, for messages."""
        ...

    @property
    def remedy(self) -> str:
        """How to export a classifier whose logits for an input do not depend on the rest of the batch."""
        ...

    @property
    def spec(self) -> ImageInput | TextInput:
        """The bundle's input."""
        ...

    @property
    def files(self) -> Mapping[str, Path]:
        """Further files of the bundle, by their names in it."""
        ...

    @property
    def graph(self) -> GraphProto:
        """The conversion as ONNX nodes: the outputs are the classifier's inputs, in their order."""
        ...

    def reader(self, locations: DataLocations, *, skip_broken: bool = False) -> Reader:
        """A reader of data sets as rows `[N, ...]`, which can leave out inputs that cannot be read."""
        ...

    def probe_rows(self) -> Sequence[NDArray[Any]]:
        """Generated stored inputs `[1, ...]` of different contents; texts of the largest and the smallest length."""
        ...

    def prepare(self, rows: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The inputs of the bundle's graph for stored rows, in the order of the graph."""
        ...

    def feed(self, rows: NDArray[Any]) -> Feed:
        """The classifier's inputs for stored rows, computed by NumPy: `graph` is compared with it."""
        ...
