"""Bundles on disk: seals a folder as a bundle, and loads a bundle if its files have not changed."""

import hashlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from pydantic_core import to_json

from bundle.calibration import Calibration, load_calibrations
from bundle.errors import (
    CalibrationInvalid,
    FileCorrupt,
    FileMissing,
    ManifestMissing,
    PathEscapes,
    TokenizerInvalid,
)
from bundle.manifest import MANIFEST_NAME, SCHEMA_VERSION, Manifest, TextInput
from bundle.parsing import REMEDY_EXPORT, parse_manifest
from bundle.references import Reference, load_references
from bundle.tokenization import TextEncoder

_PARTIAL_NAME = f".{MANIFEST_NAME}.partial"


@dataclass(frozen=True, slots=True)
class Bundle:
    """A loaded bundle.

    Attributes:
        path: the absolute path of its folder.
        manifest: its manifest.
        calibrations: the calibration of each score of the manifest, by name.
        text_encoder: the tokenizer of a text model, None for other models.
        references: the training examples that inputs are compared with; none without `neighbours` in the manifest.
    """

    path: Path
    manifest: Manifest
    calibrations: Mapping[str, Calibration]
    text_encoder: TextEncoder | None = None
    references: tuple[Reference, ...] = ()

    @property
    def model_path(self) -> Path:
        """The path of the ONNX graph."""
        return self.path / self.manifest.model


def load_bundle(path: Path, *, verify: bool = True) -> Bundle:
    """Load the bundle in the folder `path`.

    Args:
        path: the folder.
        verify: whether to compare the SHA-256 of every file with the manifest; without, the files only have to exist.

    Raises:
        BundleError: one of ManifestMissing, ManifestInvalid, SchemaTooNew, FileMissing, FileCorrupt, PathEscapes,
            CalibrationInvalid, TokenizerInvalid and ReferencesInvalid, naming the faulty file or field.
    """
    # The folder itself may be a link (a `latest` link, a mounted volume). Links in it must stay inside.
    path = path.resolve()
    manifest = parse_manifest(path, _read_manifest(path))
    for name, expected in manifest.files.items():
        file = _inside(path, name)
        if verify:
            _check_digest(path, file, name, expected)
    calibrations, encoder = _read_calibrations(path, manifest), _read_tokenizer(path, manifest)
    return Bundle(path, manifest, calibrations, encoder, _read_references(path, manifest))


def seal_bundle(path: Path, fields: Mapping[str, object]) -> Manifest:
    """Make the folder `path` a bundle: hash its files and write the manifest, atomically and last.

    An interrupted export leaves no manifest, and so no bundle.

    Args:
        path: the folder with all files of the bundle except the manifest.
        fields: the fields of `Manifest` except `files`, as Python values, pydantic models or JSON-like values.

    Returns:
        The manifest.

    Raises:
        BundleError: as `load_bundle` would refuse the bundle.
    """
    path = path.resolve()
    files = {name: sha256_file(path / name) for name in _files(path)}
    manifest = parse_manifest(path, to_json({"schema_version": SCHEMA_VERSION, **fields, "files": files}))
    _read_calibrations(path, manifest)
    _read_tokenizer(path, manifest)
    _read_references(path, manifest)
    _write_atomically(path / MANIFEST_NAME, manifest.model_dump_json(indent=2).encode() + b"\n")
    return manifest


def sha256_file(path: Path) -> str:
    """The SHA-256 of a file's bytes, in lower-case hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read_manifest(path: Path) -> bytes:
    try:
        return _inside(path, MANIFEST_NAME).read_bytes()
    except (FileMissing, OSError) as error:
        reason = f"the folder {path} does not exist" if not path.is_dir() else "there is no manifest that can be read"
        raise ManifestMissing(
            path, MANIFEST_NAME, reason, "Point to a folder that an export completed, models/<name>/<version>"
        ) from error


def _inside(path: Path, name: str) -> Path:
    """The regular file `name` of the bundle, with links resolved; refused if it is outside `path`."""
    try:
        file = (path / name).resolve(strict=True)
    except (OSError, RuntimeError) as error:
        raise FileMissing(path, name, f"the file is missing or cannot be reached: {error}", REMEDY_EXPORT) from error
    if not file.is_relative_to(path):
        raise PathEscapes(
            path,
            name,
            f"the path is a link that leads out of the bundle, to {file}",
            "Put the file itself in its place",
        )
    if not file.is_file():
        raise FileMissing(path, name, "it is not a file", REMEDY_EXPORT)
    return file


def _check_digest(path: Path, file: Path, name: str, expected: str) -> None:
    try:
        actual = sha256_file(file)
    except OSError as error:
        raise FileMissing(path, name, f"the file cannot be read: {error}", "Make it readable") from error
    if actual != expected:
        raise FileCorrupt(path, name, f"its SHA-256 is {actual}, the manifest says {expected}", REMEDY_EXPORT)


def _read_calibrations(path: Path, manifest: Manifest) -> Mapping[str, Calibration]:
    spec = manifest.calibration
    calibrations = load_calibrations(_inside(path, spec.file))
    for score in manifest.scores:
        if score.name not in calibrations:
            raise CalibrationInvalid(path, spec.file, f"there are no scores for {score.name}", REMEDY_EXPORT)
        if calibrations[score.name].n != spec.n:
            reason = f"it holds {calibrations[score.name].n} scores for {score.name}, calibration.n says {spec.n}"
            raise CalibrationInvalid(path, spec.file, reason, REMEDY_EXPORT)
    return MappingProxyType({score.name: calibrations[score.name] for score in manifest.scores})


def _read_tokenizer(path: Path, manifest: Manifest) -> TextEncoder | None:
    spec = manifest.input
    if not isinstance(spec, TextInput):
        return None
    try:
        return TextEncoder.load(_inside(path, spec.tokenizer), spec.max_tokens)
    except TokenizerInvalid as error:
        # Names the bundle and the file in it, also for links and subfolders.
        raise TokenizerInvalid(path, spec.tokenizer, error.reason, error.remedy) from error


def _read_references(path: Path, manifest: Manifest) -> tuple[Reference, ...]:
    spec = manifest.neighbours
    return () if spec is None else load_references(_inside(path, spec.file))


def _files(path: Path) -> Iterator[str]:
    for file in sorted(path.rglob("*")):
        name = file.relative_to(path).as_posix()
        if file.is_symlink():
            raise PathEscapes(path, name, "it is a symbolic link", "Put the file itself in its place")
        if file.is_file() and name not in (MANIFEST_NAME, _PARTIAL_NAME):
            yield name


def _write_atomically(path: Path, data: bytes) -> None:
    temporary = path.with_name(_PARTIAL_NAME)
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
