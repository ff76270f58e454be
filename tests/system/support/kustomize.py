"""What `kubectl kustomize` makes of a folder, as far as the shipped ones go: what they use besides is an error here."""

from pathlib import Path
from typing import Any

import yaml

from tests.system.support.gateway import env_file

Object = dict[str, Any]

_KNOWN = {"apiVersion", "kind", "namespace", "resources", "components", "configMapGenerator", "patches", "images"}
_MERGED_BY = ("name", "mountPath", "containerPort", "topologyKey", "port")
"""The keys by which a strategic merge patch matches the entries of a list; other lists it replaces."""


def build(folder: Path) -> list[Object]:
    """The objects of the kustomization in `folder`; names of generated ConfigMaps stay without their hash."""
    (spec,) = read(folder / "kustomization.yaml")
    assert set(spec) <= _KNOWN, f"{folder}: {set(spec) - _KNOWN} is not read by this test"
    objects: list[Object] = []
    for name in (*spec.get("resources", []), *spec.get("components", [])):
        objects += build(folder / name) if (folder / name).is_dir() else read(folder / name)
    for made in spec.get("configMapGenerator", []):
        data = {key: text for file in made["envs"] for key, text in env_file(folder / file).items()}
        objects.append({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": made["name"]}, "data": data})
    for patch in spec.get("patches", []):
        (change,) = read(folder / patch["path"])
        target = one(objects, change["kind"], change["metadata"]["name"])
        objects[objects.index(target)] = merged(target, change)
    for image in spec.get("images", []):
        for container in one(objects, "Deployment")["spec"]["template"]["spec"]["containers"]:
            if container["image"] == image["name"]:
                container["image"] = f"{image['name']}:{image['newTag']}"
    for each in objects:
        if "namespace" in spec and each["kind"] != "Namespace":
            each["metadata"]["namespace"] = spec["namespace"]
    return objects


def read(file: Path) -> list[Object]:
    return list(yaml.safe_load_all(file.read_text(encoding="utf-8")))


def one(objects: list[Object], kind: str, name: str | None = None) -> Object:
    """The only object of that kind, and name."""
    (found,) = [each for each in objects if each["kind"] == kind and name in (None, each["metadata"]["name"])]
    return found


def merged(base: Any, change: Any) -> Any:
    """`base` with `change` as a strategic merge patch."""
    if isinstance(base, dict) and isinstance(change, dict):
        return base | {key: merged(base[key], value) if key in base else value for key, value in change.items()}
    key = next((key for key in _MERGED_BY if _all_have(key, base) and _all_have(key, change)), None)
    if key is None:
        return change
    changes = {each[key]: each for each in change}
    kept = [merged(each, changes.pop(each[key], {})) for each in base]
    return [*kept, *changes.values()]


def _all_have(key: str, entries: Any) -> bool:
    return isinstance(entries, list) and all(isinstance(each, dict) and key in each for each in entries)
