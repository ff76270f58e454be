"""Finds the files of a pretrained model: an ONNX file, a local folder, or a model of the Hugging Face hub."""

import os
import re
from contextlib import suppress
from pathlib import Path

from training.errors import BackboneError, HubUnreachable

CONFIG = "config.json"
"""The file of a folder that `transformers` reads a model from."""

_ONNX = ".onnx"
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")
_WEIGHTS = ("model*.safetensors", "pytorch_model*.bin")
"""The files with a model's weights, the safer format first."""
_DESCRIPTION = ("*.json", "vocab.txt", "merges.txt", "*.model")
"""The files with a model's configuration and tokenizer."""
_SECONDS_TO_ANSWER = 3.0
_OFFLINE_VARIABLES = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
_LOCAL_REMEDY = "Give a local folder with the model's files (config.json, model.safetensors, ...), or an ONNX file"


def find_pretrained(name: str, data_dir: Path) -> Path:
    """The ONNX file or the folder of the pretrained model `name`.

    Args:
        name: A path, relative to `data_dir` or absolute; or the name of a model on the hub, `owner/model`, whose files
            are downloaded to the hub's cache unless they are there. No code of the model is downloaded.
        data_dir: The folder that relative paths start from.

    Raises:
        BackboneError: There is no such file, folder or model.
        HubUnreachable: The model is neither in the hub's cache nor can it be downloaded.
    """
    path = data_dir / name
    if path.exists() or name.endswith(_ONNX):
        return path
    if _HUB_NAME.fullmatch(name) is None:
        reason = f"is no file or folder (seen from {data_dir}), and no name of a model on the hub (owner/model)"
        raise BackboneError(name, reason, "Correct the path, or give the name of a model on the hub")
    return _hub_model(name)


def weight_files(folder: Path) -> list[Path]:
    """The files in `folder` that hold a model's weights, in one format; empty if there are none."""
    found = (sorted(folder.glob(pattern)) for pattern in _WEIGHTS)
    return next((files for files in found if files), [])


def _hub_model(name: str) -> Path:
    """The folder with the hub's model `name` in the hub's cache, downloaded if it is not there."""
    # Imported here, because most runs have no hub model.
    from huggingface_hub import snapshot_download  # noqa: PLC0415
    from huggingface_hub.constants import ENDPOINT  # noqa: PLC0415
    from huggingface_hub.errors import GatedRepoError, LocalEntryNotFoundError, RepositoryNotFoundError  # noqa: PLC0415

    endpoint = os.environ.get("HF_ENDPOINT", ENDPOINT).rstrip("/")

    def snapshot(weights: str, *, local_files_only: bool) -> Path:
        patterns = [*_DESCRIPTION, weights]
        return Path(
            snapshot_download(name, allow_patterns=patterns, endpoint=endpoint, local_files_only=local_files_only)
        )

    for weights in _WEIGHTS:
        # The library raises several types for a missing or incomplete copy.
        with suppress(OSError, ValueError, LocalEntryNotFoundError):
            folder = snapshot(weights, local_files_only=True)
            if (folder / CONFIG).is_file() and weight_files(folder):
                return folder
    _require_reachable(name, endpoint)
    try:
        for weights in _WEIGHTS:
            folder = snapshot(weights, local_files_only=False)
            if weight_files(folder):
                break
    except (GatedRepoError, RepositoryNotFoundError) as error:
        reason = f"is no file or folder, and no public model on the hub {endpoint}"
        raise BackboneError(name, reason, f"Correct the name. {_LOCAL_REMEDY}") from error
    # The library raises its own exceptions and those of its HTTP client and of the file system.
    except Exception as error:
        reason = f"cannot be downloaded from the hub {endpoint}: {error}"
        raise HubUnreachable(name, reason, _LOCAL_REMEDY) from error
    if not (folder / CONFIG).is_file() or not weight_files(folder):
        reason = f"has no {CONFIG} or no weights of transformers ({', '.join(_WEIGHTS)}) on the hub"
        raise BackboneError(name, reason, _LOCAL_REMEDY)
    return folder


def _require_reachable(name: str, endpoint: str) -> None:
    """Raise HubUnreachable if the environment forbids downloads, or if `endpoint` does not answer within seconds."""
    from huggingface_hub import get_session  # noqa: PLC0415

    for variable in _OFFLINE_VARIABLES:
        if os.environ.get(variable, "").upper() in {"1", "ON", "YES", "TRUE"}:
            reason = f"is no file or folder and is not in the hub's cache; {variable} forbids to download it"
            raise HubUnreachable(name, reason, _LOCAL_REMEDY)
    try:
        get_session().head(endpoint, timeout=_SECONDS_TO_ANSWER)
    # The exceptions of the library's HTTP client, which differs between its versions.
    except Exception as error:
        reason = f"is no file or folder, and the hub {endpoint} cannot be reached ({error})"
        raise HubUnreachable(name, reason, _LOCAL_REMEDY) from error
