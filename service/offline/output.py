"""The output folder: a parquet file for each part, written in one step, beside the terms of all of them."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from service.offline.errors import OutputRefused, OutputUnwritable
from service.offline.source import Identity

# Readers of parquet folders leave out what begins so.
RUN_FILE = "_run.json"
_PARTIAL = ".partial"
_PART = "part-*.parquet"


class Terms(BaseModel):
    """Everything that the rows depend on. `bundle_sha256` is the manifest's, which has that of every other file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: Identity
    model: str
    version: str
    bundle_sha256: str
    provider: str
    scores: list[str]
    alpha: float
    max_pixels: int
    max_text_chars: int
    batch: int
    part_size: int


class Summary(BaseModel):
    """What came out. `flagged` counts by score, `errors` by type."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    inputs: int
    flagged: dict[str, int]
    errors: dict[str, int]

    @property
    def scored(self) -> int:
        """Inputs with scores."""
        return self.inputs - sum(self.errors.values())


class RunFile(BaseModel):
    """`_run.json`. `thresholds` are those of the scores at `terms.alpha`; `complete` is there once all parts are."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    terms: Terms
    thresholds: dict[str, float | None]
    complete: Summary | None = None


class Output:
    """One run's folder."""

    def __init__(self, folder: Path, run: RunFile) -> None:
        self.folder = folder
        self.run = run

    @classmethod
    def begin(cls, folder: Path, run: RunFile, *, overwrite: bool) -> "Output":
        """A new folder, an empty one, or one that a run on the same terms has begun.

        With `overwrite` what another run wrote there is removed. Raises `OutputRefused` or `OutputUnwritable`.
        """
        with _writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            there = _read(folder)
            if there is not None and not overwrite:
                _compare(folder, there.terms, run.terms)
                return cls(folder, there)
            if there is None and any(folder.iterdir()):
                raise OutputRefused(f"{folder} holds files, but no run of score-dataset. Name an empty folder.")
            for part in folder.glob(_PART):
                part.unlink()
        output = cls(folder, run)
        output._write(RUN_FILE, run.model_dump_json(indent=2).encode() + b"\n")
        return output

    def missing(self, parts: int) -> list[int]:
        """Those of so many parts that are not there yet."""
        return [part for part in range(parts) if not self._path(part).exists()]

    def write(self, part: int, content: bytes) -> None:
        """Write a part, whole or not at all, whatever interrupts it. Raises `OutputUnwritable`."""
        self._write(self._path(part).name, content)

    def finish(self, summary: Summary) -> None:
        """Note that all parts are there."""
        self.run = self.run.model_copy(update={"complete": summary})
        self._write(RUN_FILE, self.run.model_dump_json(indent=2).encode() + b"\n")

    def files(self) -> Iterator[Path]:
        """The parts that are there, in order."""
        return iter(sorted(self.folder.glob(_PART)))

    def _path(self, part: int) -> Path:
        return self.folder / f"part-{part:06d}.parquet"

    def _write(self, name: str, content: bytes) -> None:
        partial = self.folder / f".{name}{_PARTIAL}"
        with _writing(self.folder):
            with partial.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(self.folder / name)


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OutputUnwritable(
            f"{folder} cannot be written: {error}. Mend that, and run the same command again."
        ) from error


def _read(folder: Path) -> RunFile | None:
    path = folder / RUN_FILE
    if not path.exists():
        return None
    try:
        return RunFile.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise OutputRefused(f"{path} is not of this version's score-dataset. Name another --output.") from error


def _compare(folder: Path, there: Terms, wanted: Terms) -> None:
    before, now = _flat(there), _flat(wanted)
    differences = [f"  {name}: {before[name]} there, {now[name]} now" for name in now if before[name] != now[name]]
    if differences:
        raise OutputRefused(
            f"{folder} holds the rows of another run:\n" + "\n".join(differences) + "\nName another --output, or give "
            "--overwrite to remove those rows."
        )


def _flat(terms: Terms) -> dict[str, object]:
    fields = terms.model_dump()
    source = {f"source {name}": value for name, value in fields.pop("source").items()}
    return source | fields
