"""Sources: opens a recipe's data set, and selects and labels its rows."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, cast

import numpy as np
from numpy.typing import NDArray

from datafiles import DataFileError, Fault, ImageFolder, Table, as_image, as_text, metadata_files, open_table, printable
from datafiles.parquet_table import ParquetTable, has_bytes
from datafiles.table import Value
from training.data.encoded_images import EncodedImages, ImageFiles, ImageTable, TableImages
from training.data.labels import Labels, folder_labels, read_labels
from training.data.problems import Problem
from training.errors import DataError
from training.recipe import Source

_PART_SEED = 0
"""Independent of the recipe's seed: parts of one source must be disjoint across recipes, too."""

_SUFFIXES = {"parquet": ".parquet", "csv": ".csv", "json": ".jsonl", "text": ".txt"}
"""The suffix of each format of a source."""
_FILE_NAME, _SHOWN = "file_name", 20

Progress = Callable[[str, int, int], None]
"""Called with the name of the set that is read, the rows done and the total."""


def _half_of_memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2


@dataclass(frozen=True)
class DataLocations:
    """The folders of data and of decoded copies.

    Attributes:
        data_dir: The folder that relative paths of sources start from.
        cache_dir: The folder of decoded images.
        cache_bytes: Sets whose decoded images are larger are decoded on demand and not cached.
    """

    data_dir: Path = field(default_factory=lambda: Path(os.environ.get("OOD_DATA", "data")))
    cache_dir: Path = field(
        default_factory=lambda: Path(os.environ.get("OOD_CACHE", Path.home() / ".cache" / "ood-scoring-service"))
    )
    cache_bytes: int = field(default_factory=_half_of_memory)


@dataclass(frozen=True)
class Rows:
    """The selected rows of a source that have an input and, if it is labelled, a class.

    Attributes:
        texts: The texts; none if the source holds images.
        images: The encoded images; None if the source holds texts. They are not decoded, so some may be broken.
        numbers: The number of each row in the source int64 `[N]`.
        y: Class indices int64 `[N]`; None if the source is unlabelled.
        labels: The class names.
        origin: The path or hub name of the source.
        problems: The selected rows that are left out, because their text or label is missing or unreadable.
    """

    texts: Sequence[str]
    images: EncodedImages | None
    numbers: NDArray[np.int64]
    y: NDArray[np.int64] | None
    labels: tuple[str, ...]
    origin: str
    problems: tuple[Problem, ...] = ()

    def __len__(self) -> int:
        return len(self.numbers)

    def at(self, indices: NDArray[np.int64]) -> "Rows":
        """The subset at ascending `indices`."""
        return replace(
            self,
            texts=[self.texts[index] for index in indices.tolist()] if self.images is None else (),
            images=None if self.images is None else self.images.at(indices),
            numbers=self.numbers[indices],
            y=None if self.y is None else self.y[indices],
        )

    def encoded(self) -> EncodedImages:
        """The encoded images of a source of images."""
        assert self.images is not None, "the source was read as images"
        return self.images


@dataclass(frozen=True)
class _Everything:
    """All rows of a source: the inputs, and the classes if it is labelled."""

    texts: Sequence[str | Fault]
    images: EncodedImages | None
    labels: Labels | None

    def __len__(self) -> int:
        return len(self.texts) if self.images is None else len(self.images)


def read_rows(source: Source, data_dir: Path, kind: Literal["image", "text"]) -> Rows:
    """Open `source` and select the rows by its labels, `part` and `limit`.

    Args:
        source: The data set.
        data_dir: The folder that relative paths start from.
        kind: The kind of its inputs.

    Raises:
        DataError: The source cannot be read, lacks a column, or no row is selected.
    """
    origin = source.path if source.format == "hub" else str(data_dir / source.path)
    try:
        everything = _read_everything(source, data_dir, kind)
    except DataFileError as error:
        raise DataError(str(error.path), error.reason, error.remedy) from error
    y, names = (None, ()) if everything.labels is None else (everything.labels.y, everything.labels.names)
    rows = _selected(y, names, source, len(everything))
    if not len(rows):
        raise DataError(origin, "has no row of the labels and the part that are selected", "Check the source")
    problems = _problems(everything, rows, origin)
    broken = {problem.row for problem in problems}
    kept = rows if not broken else np.asarray([row for row in rows.tolist() if row not in broken], dtype=np.int64)
    if y is not None:
        y, names = _compact(y[kept], names, source)
    images = everything.images
    return Rows(
        texts=[str(everything.texts[row]) for row in kept.tolist()] if images is None else (),
        images=images if images is None or len(kept) == len(everything) else images.at(kept),
        numbers=kept,
        y=y,
        labels=names,
        origin=origin,
        problems=tuple(problems),
    )


def _problems(everything: _Everything, rows: NDArray[np.int64], origin: str) -> list[Problem]:
    faults = {} if everything.labels is None else everything.labels.faults
    images, problems = everything.images, []
    for row in rows.tolist():
        text = everything.texts[row] if images is None else None
        if isinstance(text, Fault):
            problems.append(Problem(origin, row, text.detail.rstrip(".")))
        # A row without a text is left out, with or without a label.
        elif row in faults and (images is not None or (text and text.strip())):
            problems.append(Problem(origin, row, faults[row], None if images is None else images.file(row)))
    return problems


def _read_everything(source: Source, data_dir: Path, kind: Literal["image", "text"]) -> _Everything:
    if source.format == "hub":
        return _read_tables([_open_hub(source)], source, kind)
    paths = [data_dir / path for path in (source.path, *source.also)]
    for path in paths:
        if not path.exists():
            remedy = "Set the data directory with --data or OOD_DATA, or correct the recipe's path"
            raise DataError(str(path), "does not exist", remedy)
    if source.format == "imagefolder":
        return _read_folders(paths, source)
    return _read_tables([_open_file(path, source, kind) for path in paths], source, kind)


def _open_hub(source: Source) -> Table:
    # The package is large, and only sources of the hub need it.
    import datasets  # noqa: PLC0415

    from training.data.hub_table import HubTable  # noqa: PLC0415

    # Its progress bars count rows of an intermediate file.
    datasets.disable_progress_bars()
    try:
        data = datasets.load_dataset(path=source.path, split=source.split)
    except Exception as error:
        # The builders of `datasets` raise exceptions of many types.
        raise DataError(source.path, f"cannot be read from the hub: {error}", "Check path and split") from error
    return HubTable(source.path, data)


def _open_file(path: Path, source: Source, kind: Literal["image", "text"]) -> Table:
    wanted = [_column(source, kind), *([] if source.label is None else [source.label])]
    try:
        return open_table(path, wanted, _SUFFIXES[source.format])
    except DataFileError as error:
        reason = f"cannot be read as {source.format}: {error.reason}"
        raise DataError(str(error.path), reason, f"{error.remedy}, or correct the source's format") from error


def _column(source: Source, kind: Literal["image", "text"]) -> str:
    return source.image if kind == "image" else source.text


def _read_tables(tables: Sequence[Table], source: Source, kind: Literal["image", "text"]) -> _Everything:
    column, label = _column(source, kind), source.label
    columns = [column] if label is None else [column, label]
    texts: list[str | Fault] = []
    files: list[Path | Fault] = []
    cells: list[Value] = []
    holds_images = [kind == "image" and _holds_images(table, column) for table in tables]
    for table, is_encoded in zip(tables, holds_images, strict=True):
        table.require(columns)
        if is_encoded:
            cells += [] if label is None else [cell for (cell,) in table.read([label])]
            continue
        for value, *rest in table.read(columns):
            cells += rest
            if kind == "text":
                texts.append("" if value is None else as_text(value))
            else:
                image = as_image(value, table.path.parent)
                files.append(image if isinstance(image, Path | Fault) else Fault("malformed", "The value is no path."))
    images: EncodedImages | None = None
    if any(holds_images):
        count = sum(table.count() for table in tables)
        images = TableImages(cast(tuple[ImageTable, ...], tuple(tables)), column, np.arange(count, dtype=np.int64))
    elif kind == "image":
        images = ImageFiles(tuple(files))
    labels = None if label is None else read_labels(cells, tables[0].class_names.get(label))
    return _Everything(texts, images, labels)


def _holds_images(table: Table, column: str) -> bool:
    """Whether the column can hold encoded images and not only their paths."""
    if isinstance(table, ParquetTable):
        table.require([column])
        return has_bytes(table.schema.field(column).type)
    return hasattr(table, "holds_all_bytes")


def _read_folders(folders: Sequence[Path], source: Source) -> _Everything:
    """The images of folders, with the classes of their metadata file, else of their sub-folders."""
    files: list[Path | Fault] = []
    cells: list[Value] = []
    described = False
    for folder in folders:
        images = ImageFolder.open(folder)
        if not images.names:
            raise DataError(str(folder), "holds no image", "Give a folder with image files")
        files += [images.path(index) for index in range(len(images.names))]
        if source.label is None:
            continue
        if (names := _metadata_labels(images, source.label)) is not None:
            described = True
            cells += names
        else:
            cells += [names[0] if len(names) > 1 else None for names in images.names]
    if source.label is None:
        return _Everything((), ImageFiles(tuple(files)), None)
    if described:
        return _Everything((), ImageFiles(tuple(files)), read_labels(cells, None))
    for name in {cell for cell in cells if cell is not None}:
        if printable(name) != name:
            raise DataError(f"{folders[0]}/{printable(name)}", "has a name that is no printable UTF-8", "Rename it")
    return _Everything((), ImageFiles(tuple(files)), folder_labels(cells))


def _metadata_labels(images: ImageFolder, label: str) -> list[Value] | None:
    """The label of each image by the folder's metadata file; None without a file or without such a column in it.

    Raises:
        DataError: The file is not in the folder itself, or there are images or rows without the other.
    """
    found = metadata_files(images.root)
    if not found:
        return None
    path = found[0]
    has_folders = all(len(names) > 1 for names in images.names)
    table = open_table(path, [_FILE_NAME, label])
    if label not in table.columns and has_folders:
        return None
    if path.parent != images.root or len(found) > 1:
        reason = f"has metadata in {', '.join(str(file.relative_to(images.root)) for file in found)}"
        raise DataError(str(images.root), reason, f"Give one metadata.csv in {images.root}, with file_name and {label}")
    table.require([_FILE_NAME, label])
    labels: dict[str, Value] = {}
    for row, (name, cell) in enumerate(table.read([_FILE_NAME, label])):
        key = os.path.normpath(name.replace("\\", "/")) if isinstance(name, str) else None
        if key is None or key in labels:
            what = "has no file_name" if key is None else f"names {name} again"
            raise DataError(f"{path}, row {row}", what, "Give each image one row")
        labels[key] = cell
    names = ["/".join(parts) for parts in images.names]
    for missing, reason in (
        ([name for name in names if name not in labels], "has no row for"),
        (sorted(set(labels) - set(names)), "names files that are not there:"),
    ):
        if missing:
            shown = ", ".join(printable(name) for name in missing[:_SHOWN])
            more = f" and {len(missing) - _SHOWN:,} more" if len(missing) > _SHOWN else ""
            raise DataError(str(path), f"{reason} {shown}{more}", "Give each image one row")
    return [labels[name] for name in names]


def _selected(y: NDArray[np.int64] | None, labels: tuple[str, ...], source: Source, n: int) -> NDArray[np.int64]:
    """The rows of `n` that the labels, `part` and `limit` of `source` select, in ascending order."""
    rows = np.arange(n, dtype=np.int64)
    if named := source.only_labels or source.exclude_labels:
        key = "only_labels" if source.only_labels else "exclude_labels"
        unknown = sorted(set(named) - set(labels))
        if y is None or unknown:
            reason = f"{key} names {', '.join(unknown) or 'labels, but no label column is given'}"
            raise DataError(source.path, f"{reason}, which the data does not have", f"Correct {key} or label")
        rows = rows[~np.isin(y, [i for i, label in enumerate(labels) if source.leaves_out(label)])]
    if source.part is not None:
        start, stop = (round(share * len(rows)) for share in source.part)
        rows = np.sort(np.random.default_rng(_PART_SEED).permutation(rows)[start:stop])
    if source.limit is None or source.limit >= len(rows):
        return rows
    # Evenly spaced: the first rows of a file sorted by class would miss classes.
    return rows[np.linspace(0, len(rows) - 1, source.limit).astype(np.int64)]


def _compact(
    y: NDArray[np.int64], labels: tuple[str, ...], source: Source
) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """The class indices and names of the selected classes."""
    kept = [i for i, label in enumerate(labels) if not source.leaves_out(label)]
    new_index = np.full(len(labels), -1, dtype=np.int64)
    new_index[kept] = np.arange(len(kept))
    return new_index[y], tuple(labels[i] for i in kept)
