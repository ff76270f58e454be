"""What the server says once it is ready: where it listens, what it serves, and one command that works as shown."""

import json
import shlex
from pathlib import Path

from service.model import Model
from service.repository import Repository

# The client's own shell fills it in: the service has only hashes.
_KEY_HEADER = '-H "Authorization: Bearer $OOD_KEY" '


def banner(
    repository: Repository,
    address: str,
    version: str,
    *,
    keys_needed: bool = False,
    workers: int = 1,
    grpc_address: str | None = None,
) -> str:
    """Lines for a person at a terminal. `address` is one that a client on this machine can use."""
    models = list(repository)
    lines = [
        f"OOD Scoring Service {version}",
        f"  address   {address}   docs {address}/docs   metrics {address}/metrics",
        f"  provider  {', '.join(sorted({model.provider for model in models}))}",
    ]
    if grpc_address is not None:
        lines.append(f"  gRPC      {grpc_address}")
    if workers > 1:
        lines.append(f"  workers   {workers}, of which this is the first that is ready")
    lines += [f"  model     {_describe(model)}" for model in models]
    lines += [f"  refused   {refused.path}: {refused.reason}" for refused in repository.refused]
    return "\n".join([*lines, "  try       " + curl_line(models[0], address, keys_needed=keys_needed)])


def curl_line(model: Model, address: str, *, keys_needed: bool = False) -> str:
    """A command that scores the bundle's own sample file, or a generated example where it brings none."""
    url = shlex.quote(f"{address}/v1/models/{model.name}/score")
    for name in sorted(model.bundle.manifest.files):
        content_type = model.modality.sample_types.get(Path(name).suffix.lower())
        if content_type and Path(name).stem == "sample":
            file = shlex.quote(f"@{_short(model.bundle.path / name)}")
            key = _KEY_HEADER if keys_needed else ""
            return f"curl {key}-H 'Content-Type: {content_type}' --data-binary {file} {url}"
    return curl_json(model, address, keys_needed=keys_needed)


def curl_json(model: Model, address: str, *, keys_needed: bool = False) -> str:
    """A command that scores the model's example; it needs no file."""
    url = shlex.quote(f"{address}/v1/models/{model.name}/score")
    body = json.dumps({"inputs": [model.modality.example()]})
    return f"curl {_KEY_HEADER if keys_needed else ''}-H 'Content-Type: application/json' -d {shlex.quote(body)} {url}"


def _describe(model: Model) -> str:
    manifest = model.bundle.manifest
    return (
        f"{model.name} version {model.version}: {manifest.task} of {model.modality.takes}, "
        f"score {model.choices.default_score} (of {', '.join(model.choices.scores)}), "
        f"alpha {model.scorer.alpha:g}"
    )


def _short(path: Path) -> Path:
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path
