"""A curl command that scores one input with a served model."""

import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from service.repository.model import Model


# The client's own shell fills it in: the service has only hashes.
_KEY_HEADER = '-H "Authorization: Bearer $OOD_KEY" '


def curl_line(model: "Model", address: str, *, keys_needed: bool = False) -> str:
    """A command that scores the bundle's own sample file, or a generated example where it brings none."""
    url = shlex.quote(f"{address}/v1/models/{model.name}/score")
    for name in sorted(model.bundle.manifest.files):
        content_type = model.modality.sample_types.get(Path(name).suffix.lower())
        if content_type and Path(name).stem == "sample":
            file = shlex.quote(f"@{_short(model.bundle.path / name)}")
            key = _KEY_HEADER if keys_needed else ""
            return f"curl {key}-H 'Content-Type: {content_type}' --data-binary {file} {url}"
    return curl_json(model, address, keys_needed=keys_needed)


def curl_json(model: "Model", address: str, *, keys_needed: bool = False) -> str:
    """A command that scores the model's example; it needs no file."""
    url = shlex.quote(f"{address}/v1/models/{model.name}/score")
    body = json.dumps({"inputs": [model.modality.example()]})
    return f"curl {_KEY_HEADER if keys_needed else ''}-H 'Content-Type: application/json' -d {shlex.quote(body)} {url}"


def _short(path: Path) -> Path:
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path
