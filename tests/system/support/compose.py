"""The compose files, and the files of this repository that they mount."""

from pathlib import Path
from typing import Any

import yaml

from tests.system.support.service_process import ROOT

COMPOSE_FILES = sorted(ROOT.glob("docker-compose*.yml"))
ComposeFile = dict[str, Any]


def read_compose_file(name: str = "docker-compose.yml") -> ComposeFile:
    return dict(yaml.safe_load((ROOT / name).read_text(encoding="utf-8")))


def mounts(file: ComposeFile, service: str) -> dict[str, Path]:
    """Files and folders of this repository by their paths in a container. Secrets are not included."""
    pairs = [volume.split(":")[:2] for volume in file["services"][service].get("volumes", [])]
    return {target: ROOT / source for source, target in pairs if source.startswith("./")}


def mounted_file(file: ComposeFile, service: str, path: str) -> Path:
    """The file of this repository that a container sees at `path`."""
    ((target, source),) = [pair for pair in mounts(file, service).items() if Path(path).is_relative_to(pair[0])]
    return source / Path(path).relative_to(target)
