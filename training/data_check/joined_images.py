"""Images of several sets as one array."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from training.data.examples import InputArray


@dataclass(frozen=True)
class JoinedImages:
    """The images `members` of `sets`, read when they are indexed.

    Attributes:
        sets: The images of each set.
        members: The number of a set, and the index of an image in it, int64 `[N, 2]`.
    """

    sets: tuple[InputArray, ...]
    members: NDArray[np.int64]

    @classmethod
    def of(cls, sets: Sequence[InputArray], members: Sequence[tuple[int, int]]) -> Self:
        """The images `members`, each the number of a set and an index in it."""
        return cls(tuple(sets), np.asarray(members, dtype=np.int64).reshape(-1, 2))

    @property
    def in_memory(self) -> bool:
        """Whether no image is decoded on reading."""
        return all(images.in_memory for images in self.sets)

    @property
    def shape(self) -> tuple[int, ...]:
        """`(N, H, W, C)`."""
        return (len(self.members), *self.sets[0].shape[1:])

    def __getitem__(self, rows: NDArray[np.int64], /) -> NDArray[Any]:
        chosen = self.members[rows]
        images = np.empty((len(rows), *self.shape[1:]), dtype=np.uint8)
        for number, array in enumerate(self.sets):
            is_here = chosen[:, 0] == number
            if is_here.any():
                images[is_here] = array[chosen[is_here, 1]]
        return images
