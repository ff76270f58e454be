"""Builds a kustomization like `kubectl kustomize`, as far as the shipped ones need it. Other features are errors."""

from pathlib import Path
from typing import Any

import yaml

from tests.system.support.gateway import env_file

Object = dict[str, Any]

_SUPPORTED = {"apiVersion", "kind", "namespace", "resources", "components", "configMapGenerator", "patches", "images"}
_MERGE_KEYS = ("name", "mountPath", "containerPort", "topologyKey", "port")
"""The keys by which a strategic merge patch matches the entries of a list. It replaces lists without such a key."""


def build(folder: Path) -> list[Object]:
    """The objects of the kustomization in `folder`. Names of generated ConfigMaps have no hash."""
    (spec,) = read(folder / "kustomization.yaml")
    assert set(spec) <= _SUPPORTED, f"{folder}: {set(spec) - _SUPPORTED} is not supported by this test"
    objects: list[Object] = []
    for name in (*spec.get("resources", []), *spec.get("components", [])):
        objects += build(folder / name) if (folder / name).is_dir() else read(folder / name)
    for generator in spec.get("configMapGenerator", []):
        data = {key: text for file in generator["envs"] for key, text in env_file(folder / file).items()}
        objects.append({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": generator["name"]}, "data": data})
    for patch in spec.get("patches", []):
        (change,) = read(folder / patch["path"])
        target = get(objects, change["kind"], change["metadata"]["name"])
        objects[objects.index(target)] = merge(target, change)
    for image in spec.get("images", []):
        for container in get(objects, "Deployment")["spec"]["template"]["spec"]["containers"]:
            if container["image"] == image["name"]:
                container["image"] = f"{image['name']}:{image['newTag']}"
    for item in objects:
        if "namespace" in spec and item["kind"] != "Namespace":
            item["metadata"]["namespace"] = spec["namespace"]
    return objects


def read(file: Path) -> list[Object]:
    return list(yaml.safe_load_all(file.read_text(encoding="utf-8")))


def get(objects: list[Object], kind: str, name: str | None = None) -> Object:
    """The only object of that kind, and of that name if it is given."""
    (match,) = [item for item in objects if item["kind"] == kind and name in (None, item["metadata"]["name"])]
    return match


def merge(base: Any, change: Any) -> Any:
    """`base` with `change` as a strategic merge patch."""
    if isinstance(base, dict) and isinstance(change, dict):
        return base | {key: merge(base[key], value) if key in base else value for key, value in change.items()}
    key = next((key for key in _MERGE_KEYS if _all_have(key, base) and _all_have(key, change)), None)
    if key is None:
        return change
    changes = {entry[key]: entry for entry in change}
    merged = [merge(entry, changes.pop(entry[key], {})) for entry in base]
    return [*merged, *changes.values()]


def _all_have(key: str, entries: Any) -> bool:
    return isinstance(entries, list) and all(isinstance(entry, dict) and key in entry for entry in entries)
