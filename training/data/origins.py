"""Origins: where each example of a data set comes from."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from datafiles import printable
from training.data.encoded_images import EncodedImages


@dataclass(frozen=True)
class Origins:
    """The origin of each example of a set.

    Attributes:
        root: The path of the source.
        numbers: The number of each example's row in the source, int64 `[N]`.
        images: The encoded images of the source; None for texts.
        positions: The position of each example in `images`, int64 `[N]`.
    """

    root: str
    numbers: NDArray[np.int64]
    images: EncodedImages | None
    positions: NDArray[np.int64]

    def at(self, rows: NDArray[np.int64]) -> "Origins":
        """The origins of the examples at `rows`."""
        return Origins(self.root, self.numbers[rows], self.images, self.positions[rows])

    def name(self, index: int) -> str:
        """The path of an example's file relative to the source, or the number of its row if it has no file."""
        file = None if self.images is None else self.images.file(int(self.positions[index]))
        if file is None:
            return f"row {self.numbers[index]}"
        path = Path(file)
        is_inside = path.is_relative_to(self.root)
        return printable(str(path.relative_to(self.root) if is_inside else path.name))
