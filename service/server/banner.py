"""What the server says once it is ready: where it listens, what it serves, and one command that works as shown."""

from service.protocols.native.curl import curl_line
from service.repository.model import Model
from service.repository.served import Repository


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


def _describe(model: Model) -> str:
    manifest = model.bundle.manifest
    return (
        f"{model.name} version {model.version}: {manifest.task} of {model.modality.description}, "
        f"score {model.option_limits.default_score} (of {', '.join(model.option_limits.scores)}), "
        f"alpha {model.scorer.alpha:g}"
    )
