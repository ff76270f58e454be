"""Parses a manifest's bytes, with errors that name the field."""

from pathlib import Path

from pydantic import ValidationError
from pydantic_core import from_json

from bundle.errors import BundleError, ManifestInvalid, PathEscapes, SchemaTooNew
from bundle.manifest import MANIFEST_NAME, SCHEMA_VERSION, Manifest

REMEDY_EXPORT = "Export the bundle again, or copy it again from where it was exported"
"""The remedy for a bundle that differs from its export."""


def parse_manifest(path: Path, data: bytes) -> Manifest:
    """The manifest in `data`, the JSON of the bundle in the folder `path`.

    Raises:
        SchemaTooNew: if the manifest has a later schema.
        PathEscapes: if a path leads out of the bundle.
        ManifestInvalid: for other faults.
    """
    try:
        content = from_json(data)
    except ValueError as error:
        raise ManifestInvalid(path, MANIFEST_NAME, f"it is not JSON: {error}", REMEDY_EXPORT) from error
    # Before the fields: a newer schema may have other fields, and the remedy is to upgrade.
    if isinstance(content, dict):
        _check_schema(path, content.get("schema_version"))
    try:
        return Manifest.model_validate_json(data)
    except ValidationError as error:
        # A path that leads out of the bundle is the most important problem.
        problems = sorted(error.errors(include_url=False), key=lambda problem: problem["type"] != "path_escapes")
        first, others = problems[0], len(problems) - 1
        kind: type[BundleError] = PathEscapes if first["type"] == "path_escapes" else ManifestInvalid
        where = _field(first["loc"])
        more = f" ({others} more problems in the manifest)" if others else ""
        raise kind(path, where, first["msg"] + more, "Correct this field of the manifest and export again") from error


def _check_schema(path: Path, version: object) -> None:
    if type(version) is not int:
        raise ManifestInvalid(path, "schema_version", f"it must be a whole number, not {version!r}", REMEDY_EXPORT)
    if version > SCHEMA_VERSION:
        raise SchemaTooNew(
            path,
            "schema_version",
            f"the manifest has schema {version}, this version reads up to {SCHEMA_VERSION}",
            "Upgrade the software, or export the bundle with this version",
        )


def _field(loc: tuple[int | str, ...]) -> str:
    """The path of a manifest field, without the parts that pydantic adds for unions and keys."""
    parts = [str(part) for i, part in enumerate(loc) if part != "[key]" and not (i == 1 and loc[0] == "input")]
    return ".".join(parts) or MANIFEST_NAME
