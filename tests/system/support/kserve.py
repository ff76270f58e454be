"""KServe's client in an environment of its own, and KServe's schemas of its objects.

The client's requirements (older versions of protobuf, psutil and pandas) conflict with those of this project. The
schemas, which are part of it, are read from the package's source, which is not run.
"""

import ast
import os
import re
import subprocess
import sys
import venv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest

_REQUIREMENTS = Path(__file__).with_name("kserve_requirements.txt")
PACKAGE = "kserve==0.21.0"
_PIP_SECONDS = 900
_SIMPLE_TYPES: dict[str, type] = {"str": str, "int": int, "bool": bool, "float": float}


@dataclass(frozen=True)
class Schema:
    """The types of an object's fields by their names in YAML, and the required fields."""

    fields: dict[str, str]
    required: set[str]


Schemas = dict[str, Schema]


def download_schemas(folder: Path) -> Schemas:
    """The schemas of the package by name. Without a network the test is skipped; in CI it fails."""
    _pip("download", "--no-deps", "--dest", str(folder), PACKAGE)
    (wheel,) = folder.glob("kserve-*.whl")
    with ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if re.fullmatch(r"kserve/models/\w+\.py", name)]
        return dict(schema for name in names for schema in _schemas_in(archive.read(name).decode()))


def install_kserve(folder: Path) -> Path:
    """Install the client into `folder`, and return the Python that has it; without a network as `download_schemas`."""
    venv.create(folder)
    python = folder / "bin" / "python"
    # The exact versions of everything: the resolver would take longer than the installation.
    _pip("--python", str(python), "install", "--no-deps", "--requirement", str(_REQUIREMENTS))
    return python


def _pip(*arguments: str) -> None:
    command = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments]
    result = subprocess.run(command, capture_output=True, text=True, timeout=_PIP_SECONDS, check=False)
    if result.returncode != 0:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(f"{PACKAGE} cannot be installed: {result.stderr}")


def _schemas_in(source: str) -> Iterator[tuple[str, Schema]]:
    for node in ast.parse(source).body:
        if isinstance(node, ast.ClassDef):
            attributes = {
                statement.targets[0].id: ast.literal_eval(statement.value)
                for statement in node.body
                if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name)
                if statement.targets[0].id in {"openapi_types", "attribute_map"}
            }
            types, names = attributes["openapi_types"], attributes["attribute_map"]
            required = re.findall("Invalid value for `(\\w+)`, must not be `None`", source)
            yield node.name, Schema({names[key]: types[key] for key in types}, {names[key] for key in required})


def faults(value: Any, kind: str, schemas: Schemas, path: str = "") -> list[str]:
    """The differences between a value and the type `kind`. Types of Kubernetes itself are not checked."""
    if kind in schemas:
        if not isinstance(value, dict):
            return [f"{path}: fields are needed"]
        schema = schemas[kind]
        messages = [f"{path}: there is no {name}" for name in set(value) - set(schema.fields)]
        messages += [f"{path}: {name} is missing" for name in schema.required - set(value)]
        children = [
            (child, schema.fields[name], f"{path}.{name}") for name, child in value.items() if name in schema.fields
        ]
    elif match := re.fullmatch(r"list\[(.*)\]|dict\(str, (.*)\)", kind):
        container = list if match[1] else dict
        messages = [] if isinstance(value, container) else [f"{path}: a {container.__name__} is needed"]
        elements = value if isinstance(value, list) else value.values() if isinstance(value, dict) else ()
        children = [(child, match[1] or match[2], f"{path}[{index}]") for index, child in enumerate(elements)]
    else:
        valid = kind not in _SIMPLE_TYPES or type(value) is _SIMPLE_TYPES[kind]
        return [] if valid else [f"{path}: {value!r} is no {kind}"]
    return messages + [
        message
        for child, child_kind, child_path in children
        for message in faults(child, child_kind, schemas, child_path)
    ]
