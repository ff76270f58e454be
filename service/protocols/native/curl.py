"""Curl commands that score one input with a served model, for the banner and the console."""

import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from service.repository.model import Model


# The user's shell inserts the key: the service knows only its hash.
_KEY_HEADER = '-H "Authorization: Bearer $OOD_KEY" '


def curl_line(model: "Model", address: str, *, keys_needed: bool = False) -> str:
    """A command that scores the sample file of the bundle, or a generated example if the bundle has none.

    Args:
        model: The model to score with.
        address: The address of the service, without a path.
        keys_needed: Whether the command must send an API key.
    """
    url = shlex.quote(f"{address}/v1/models/{model.name}/score")
    for name in sorted(model.bundle.manifest.files):
        content_type = model.modality.sample_types.get(Path(name).suffix.lower())
        if content_type and Path(name).stem == "sample":
            file = shlex.quote(f"@{_short(model.bundle.path / name)}")
            key = _KEY_HEADER if keys_needed else ""
            return f"curl {key}-H 'Content-Type: {content_type}' --data-binary {file} {url}"
    return curl_json(model, address, keys_needed=keys_needed)


def curl_json(model: "Model", address: str, *, keys_needed: bool = False) -> str:
    """A command that scores a generated example and needs no file; its arguments are those of `curl_line`."""
    url = shlex.quote(f"{address}/v1/models/{model.name}/score")
    body = json.dumps({"inputs": [model.modality.example()]})
    return f"curl {_KEY_HEADER if keys_needed else ''}-H 'Content-Type: application/json' -d {shlex.quote(body)} {url}"


def _short(path: Path) -> Path:
    folder = Path.cwd()
    return path.relative_to(folder) if path.is_relative_to(folder) else path
