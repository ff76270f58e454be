"""What the compose files say, and where on this machine lies what they mount."""

from pathlib import Path
from typing import Any

import yaml

from tests.system.conftest import ROOT

COMPOSE_FILES = sorted(ROOT.glob("docker-compose*.yml"))
Composed = dict[str, Any]


def composed(name: str = "docker-compose.yml") -> Composed:
    return dict(yaml.safe_load((ROOT / name).read_text(encoding="utf-8")))


def mounts(file: Composed, service: str) -> dict[str, Path]:
    """Where a container sees which file or folder of this repository, by its own path; not its secrets."""
    pairs = [volume.split(":")[:2] for volume in file["services"][service].get("volumes", [])]
    return {inside: ROOT / outside for outside, inside in pairs if outside.startswith("./")}


def of_this_machine(file: Composed, service: str, inside: str) -> Path:
    """What a container sees at `inside`."""
    ((place, outside),) = [each for each in mounts(file, service).items() if Path(inside).is_relative_to(each[0])]
    return outside / Path(inside).relative_to(place)
