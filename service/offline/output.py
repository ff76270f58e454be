"""The output folder of a run: one parquet file per part, the run's terms, and the summary when it is complete."""

import errno
import fcntl
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, ValidationError

from service.offline.errors import OutputRefused, OutputUnwritable
from service.offline.source import Identity
from service.offline.table import ERROR, TRUNCATED, flagged_column

# Readers of parquet folders skip names that begin with an underscore.
RUN_FILE = "_run.json"
_LOCK_FILE = "_lock"
_PARTIAL = ".partial"
_PART = "part-*.parquet"


class Terms(BaseModel):
    """Everything that the rows depend on. The manifest's `bundle_sha256` covers all files of the bundle."""

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
    """The counts of a complete run: flagged inputs by score, texts that were read in part, and errors by type."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    inputs: int
    flagged: dict[str, int]
    truncated: int = 0
    errors: dict[str, int]

    @property
    def scored(self) -> int:
        """The number of inputs with scores."""
        return self.inputs - sum(self.errors.values())


class RunFile(BaseModel):
    """The content of `_run.json`: the terms, the thresholds at `terms.alpha`, and the summary once all parts exist."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    terms: Terms
    thresholds: dict[str, float | None]
    complete: Summary | None = None


class Output:
    """The folder of one run. One process at a time can open it, until `close` or the end of the process."""

    def __init__(self, folder: Path, run: RunFile, lock: int) -> None:
        self.folder = folder
        self.run = run
        self._lock = lock

    @classmethod
    def begin(cls, folder: Path, run: RunFile, *, overwrite: bool) -> "Output":
        """Open a new or empty folder, or one that a run on the same terms has started.

        Args:
            folder: The folder.
            run: The run without a summary.
            overwrite: Whether to remove the rows of another run.

        Raises:
            OutputRefused: The folder holds the rows of another run, or other files, or another process writes to it.
            OutputUnwritable: The folder cannot be written.
        """
        with _writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            if _read(folder) is None and any(file.name != _LOCK_FILE for file in folder.iterdir()):
                raise OutputRefused(f"{folder} holds files, but no run of score-dataset. Name an empty folder.")
            output = cls(folder, run, _locked(folder))
        try:
            output._resume_or_clear(overwrite=overwrite)
        except BaseException:
            output.close()
            raise
        return output

    def _resume_or_clear(self, *, overwrite: bool) -> None:
        with _writing(self.folder):
            previous = _read(self.folder)
            if previous is not None and not overwrite:
                _require_same_terms(self.folder, previous.terms, self.run.terms)
                self.run = previous
                return
            for part in self.folder.glob(_PART):
                part.unlink()
        self._write_run_file()

    def close(self) -> None:
        """Let another process open the folder."""
        os.close(self._lock)

    def missing(self, parts: int) -> list[int]:
        """The numbers below `parts` whose part does not exist."""
        return [part for part in range(parts) if not self._path(part).exists()]

    def write(self, part: int, content: bytes) -> None:
        """Write a part in one step, so that an interruption leaves no partial file.

        Raises:
            OutputUnwritable: The folder cannot be written.
        """
        self._write(self._path(part).name, content)

    def finish(self) -> None:
        """Count the rows of all parts, including those of earlier runs, and add the summary to the run file."""
        self.run = self.run.model_copy(update={"complete": self._summarise()})
        self._write_run_file()

    def describe(self) -> str:
        """The summary of a complete run in words, one line per count."""
        summary = self.run.complete
        assert summary is not None, "only a complete run has a summary"
        lines = [f"{summary.inputs:,} inputs in {self.folder}, {summary.scored:,} of them scored"]
        for score, count in summary.flagged.items():
            share = f"{count / summary.scored:.2%}" if summary.scored else "none"
            threshold = self.run.thresholds[score]
            limit = "nothing can be flagged" if threshold is None else f"anomaly above {threshold:.5g}"
            lines.append(f"  flagged by {score}: {count:,} ({share}) at alpha {self.run.terms.alpha:g} ({limit})")
        if summary.truncated:
            lines.append(f"  truncated: {summary.truncated:,} texts were read only in part")
        lines += [f"  error {kind}: {count:,}" for kind, count in summary.errors.items()]
        return "\n".join(lines)

    def _summarise(self) -> Summary:
        """Count over all parts, with one of them in memory."""
        inputs = truncated = 0
        flagged = dict.fromkeys(self.run.terms.scores, 0)
        errors: Counter[str] = Counter()
        for file in sorted(self.folder.glob(_PART)):
            columns = [ERROR, *(flagged_column(score) for score in flagged)]
            # Only parts of texts have the column.
            table = pq.read_table(file, columns=[*columns, *({TRUNCATED} & set(pq.read_schema(file).names))])
            inputs += table.num_rows
            if TRUNCATED in table.column_names:
                truncated += pc.sum(table[TRUNCATED]).as_py() or 0
            for score in flagged:
                flagged[score] += pc.sum(table[flagged_column(score)]).as_py() or 0
            errors.update(kind for kind in table[ERROR].to_pylist() if kind is not None)
        return Summary(inputs=inputs, flagged=flagged, truncated=truncated, errors=dict(errors.most_common()))

    def _path(self, part: int) -> Path:
        return self.folder / f"part-{part:06d}.parquet"

    def _write_run_file(self) -> None:
        self._write(RUN_FILE, self.run.model_dump_json(indent=2).encode() + b"\n")

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
    """Turn I/O errors into `OutputUnwritable`."""
    try:
        yield
    except OSError as error:
        raise OutputUnwritable(
            f"{folder} cannot be written: {error}. Mend that, and run the same command again."
        ) from error


def _locked(folder: Path) -> int:
    """The descriptor of the folder's lock file, which this process holds until it closes it or ends."""
    lock = os.open(folder / _LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise OutputRefused(
            f"Another run of score-dataset writes to {folder}. Wait for its end, or name another --output."
        ) from None
    except OSError as error:
        # Some network file systems have no locks.
        if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
            os.close(lock)
            raise
    return lock


def _read(folder: Path) -> RunFile | None:
    """The run file of `folder`; None if there is none."""
    path = folder / RUN_FILE
    if not path.exists():
        return None
    try:
        return RunFile.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise OutputRefused(f"{path} is not of this version's score-dataset. Name another --output.") from error


def _require_same_terms(folder: Path, previous: Terms, terms: Terms) -> None:
    present, requested = _flat(previous), _flat(terms)
    differences = [
        f"  {name}: {present[name]} in the folder, {value} requested"
        for name, value in requested.items()
        if present[name] != value
    ]
    if differences:
        raise OutputRefused(
            f"{folder} holds the rows of another run:\n" + "\n".join(differences) + "\nName another --output, or give "
            "--overwrite to remove those rows."
        )


def _flat(terms: Terms) -> dict[str, object]:
    fields = terms.model_dump()
    source = {f"source {name}": value for name, value in fields.pop("source").items()}
    return source | fields
