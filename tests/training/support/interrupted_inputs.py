"""Inputs that end a training run in the middle of an epoch, as Ctrl-C does."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.data import InputArray


class InterruptedInputs:
    """Inputs whose reader is interrupted after `reads_left` reads; each batch is one read."""

    in_memory = True

    def __init__(self, inputs: InputArray, reads_left: int) -> None:
        self._inputs = inputs
        self._reads_left = reads_left
        self.shape = inputs.shape

    def __getitem__(self, rows: NDArray[np.int64], /) -> NDArray[Any]:
        self._reads_left -= 1
        if self._reads_left < 0:
            raise KeyboardInterrupt
        return self._inputs[rows]
