"""The text that the server prints once it is ready: its address, its models, and a command to try."""

import contextlib
from typing import TYPE_CHECKING

from service.protocols.native.curl import curl_line

if TYPE_CHECKING:
    # The supervisor prints the banner, too: at run time these imports would double its memory.
    from service.repository.model import Model
    from service.repository.served import Repository


def print_safely(text: str) -> None:
    """Print `text` to the terminal. A closed pipe or a terminal that cannot show the text is no error."""
    with contextlib.suppress(OSError, UnicodeError):
        print(text, flush=True)


def banner(
    repository: "Repository",
    address: str,
    version: str,
    *,
    keys_needed: bool = False,
    workers: int = 1,
    grpc_address: str | None = None,
) -> str:
    """The banner of a ready service.

    Args:
        repository: The models that are served, and the bundles that were refused.
        address: The URL by which a client on this machine reaches the service.
        version: The version of the service.
        keys_needed: Whether requests need an API key.
        workers: The number of processes that serve.
        grpc_address: The address of the gRPC port, if there is one.
    """
    models = list(repository)
    lines = [
        f"OOD Scoring Service {version}",
        f"  address   {address}   docs {address}/docs   metrics {address}/metrics",
        f"  provider  {', '.join(sorted({model.provider for model in models}))}",
    ]
    if grpc_address is not None:
        lines.append(f"  gRPC      {grpc_address}")
    if workers > 1:
        lines.append(f"  workers   {workers}, of which the first is ready")
    lines += [f"  model     {_describe(model)}" for model in models]
    lines += [f"  refused   {refused.path}: {refused.reason}" for refused in repository.refused]
    return "\n".join([*lines, "  try       " + curl_line(models[0], address, keys_needed=keys_needed)])


def _describe(model: "Model") -> str:
    manifest = model.bundle.manifest
    rate = model.scorer.false_flag_rates[model.option_limits.default_score]
    false_flags = "flags nothing" if rate.flags_nothing else f"false flags {rate.interval} for 95% of calibration sets"
    return (
        f"{model.name} version {model.version}: {manifest.task} of {model.modality.description}, "
        f"score {model.option_limits.default_score} (of {', '.join(model.option_limits.scores)}), "
        f"alpha {rate.alpha:g} ({false_flags})"
    )
