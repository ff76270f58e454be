"""What is to be scored, with what, and how it is cut: all that the rows depend on. It can be pickled."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from service.inputs.modality import Limits
from service.offline.items import Item
from service.offline.source import Source
from service.scoring.options import Options

# Texts of so many batches are sorted by length before they are cut into batches.
_BATCHES_SORTED = 8


@dataclass(frozen=True)
class Job:
    """A run. Its inputs are cut into parts of `part_size`, one output file each, and parts into calls of the engine.

    Which inputs share a call depends on the job alone, not on speed, on threads, or on where an interrupted run goes
    on: kernels of other batch sizes round otherwise, and the rows are to be the same to the last bit.
    """

    bundle: Path
    source: Source
    options: Options
    alpha: float
    provider: str
    limits: Limits
    batch: int
    part_size: int

    @property
    def parts(self) -> int:
        """How many parts there are."""
        return -(-self.source.identity.inputs // self.part_size)

    def inputs_of(self, part: int) -> int:
        """How many inputs belong to `part`; the last one may have fewer."""
        return min(self.part_size, self.source.identity.inputs - part * self.part_size)

    def chunks(self, parts: Sequence[int]) -> Iterator[tuple[int, list[Item]]]:
        """The inputs of `parts`, ascending, in pieces to prepare and score together, each with its part.

        Read as they are asked for. Raises `SourceUnusable`.
        """
        size = self.batch if self.source.modality == "image" else self.batch * _BATCHES_SORTED
        items: Iterator[Item] = iter(())
        position = None
        for part in parts:
            if part != position:
                items = self.source.items(part * self.part_size)
            position = part + 1
            of_part = islice(items, self.part_size)
            while chunk := list(islice(of_part, size)):
                yield part, chunk
