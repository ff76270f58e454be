"""A scoring job: the model, the source, the options and the division into parts, on which all rows depend."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from service.inputs.modality import Limits
from service.offline.source import Item, Source
from service.scoring.options import Options

# Texts of this many batches are sorted by length before they are divided into batches.
_BATCHES_SORTED = 8


@dataclass(frozen=True)
class Job:
    """A run, divided into parts of `part_size` inputs with one output file each. It can be pickled.

    The inputs of an engine call depend on the job alone, not on the speed, the number of threads or an interruption.
    Kernels for different batch sizes round differently, and the rows of a job must be identical to the last bit.

    Attributes:
        bundle: The bundle's folder.
        source: The inputs.
        options: The scores and the alpha.
        alpha: The false-flag rate in force.
        provider: The value of the setting `provider`.
        limits: The limits of one input.
        batch: The largest number of inputs per engine call.
        part_size: The number of inputs per output file.
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
        """The number of parts."""
        return -(-self.source.identity.inputs // self.part_size)

    def inputs_of(self, part: int) -> int:
        """The number of inputs in `part`; the last part may have fewer than the others."""
        return min(self.part_size, self.source.identity.inputs - part * self.part_size)

    def chunks(self, parts: Sequence[int]) -> Iterator[tuple[int, list[Item]]]:
        """Read the inputs of `parts` lazily, in chunks that are prepared and scored together.

        Args:
            parts: The numbers of the parts, ascending.

        Yields:
            Each chunk after the number of its part.

        Raises:
            SourceUnusable: The source cannot be read.
        """
        size = self.batch if self.source.modality == "image" else self.batch * _BATCHES_SORTED
        items: Iterator[Item] = iter(())
        next_part = None
        for part in parts:
            if part != next_part:
                items = self.source.items(part * self.part_size)
            next_part = part + 1
            of_part = islice(items, self.part_size)
            while chunk := list(islice(of_part, size)):
                yield part, chunk
