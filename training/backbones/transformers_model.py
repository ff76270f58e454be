"""Backbones of the `transformers` library: torch modules from images or texts to features, loaded from a folder."""

import hashlib
import inspect
import json
import logging
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import torch
from onnx import ModelProto
from torch import Tensor, nn
from torch.export import Dim

from bundle import ImageInput
from training.data.token_ids import TEXT_INPUTS, text_shapes
from training.errors import BackboneError
from training.onnx_graphs import read_file, strip_source_locations
from training.pretrained_files import CONFIG, weight_files
from training.recipe import TextConfig

Pooling = Literal["mean", "cls", "max"]
"""The operation from one vector per token to one vector per text."""

_POOLING_CONFIG = "1_Pooling/config.json"
_POOLING_MODES: dict[str, Pooling] = {
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
}
_MODES_REMEDY = "Supported are mean, cls and max; export the model to ONNX for any other"
_FEATURES, _OPSET = "features", 18
_INSTALL = "pip install -c constraints.txt '.[training,transformers]'"
_REMEDY = "Give the folder of a model that transformers can read without code of its own, or an ONNX file"


class ImageFeatures(nn.Module):
    """The part of an image classifier of `transformers` before its last linear layer.

    Args:
        folder: The folder of the model.

    Raises:
        BackboneError: The folder holds no image model, or its weights are incomplete.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        from transformers import AutoModelForImageClassification  # noqa: PLC0415

        self.model, missing = _load(AutoModelForImageClassification, folder)
        linear = [name for name, module in self.model.named_modules() if isinstance(module, nn.Linear)]
        if not linear or (head := self.model.get_submodule(linear[-1])).out_features != self.model.config.num_labels:
            raise BackboneError(str(folder), "does not end with a linear layer of classes", _REMEDY)
        _require_weights(folder, missing, except_below=linear[-1])
        self.size = int(head.in_features)
        self.model.set_submodule(linear[-1], nn.Identity())

    def forward(self, pixels: Tensor) -> Tensor:
        """Features `[N, D]` of normalised images `[N, C, H, W]`."""
        features: Tensor = self.model(pixel_values=pixels).logits
        return features


class TextFeatures(nn.Module):
    """A text model of `transformers` and the pooling of its last hidden state.

    The pooling is that of the folder's `1_Pooling/config.json` (sentence-transformers), and without it the mean over
    tokens.

    Args:
        folder: The folder of the model.

    Raises:
        BackboneError: The folder holds no text model, its weights are incomplete, or its pooling is unknown.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        from transformers import AutoModel  # noqa: PLC0415

        self.pooling = _pooling(folder)
        self.model, missing = _load(AutoModel, folder)
        if "input_ids" not in inspect.signature(self.model.forward).parameters:
            raise BackboneError(str(folder), f"is no model of texts ({self.model.config.model_type})", _REMEDY)
        # Some classes add a pooler to the hidden states, which is not used here.
        _require_weights(folder, missing, except_below="pooler")
        self.size = int(self.model.config.hidden_size)
        self._padding = self.model.config.pad_token_id or 0

    def forward(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """Features `[N, D]` of token ids int64 `[N, L]`; text i is the first `lengths[i]` ids of row i."""
        mask = torch.arange(tokens.shape[1], device=tokens.device)[None, :] < lengths[:, None]
        # Some models derive positions from the padding id.
        tokens = tokens.where(mask, self._padding)
        vectors: Tensor = self.model(input_ids=tokens, attention_mask=mask.long()).last_hidden_state
        if self.pooling == "cls":
            return vectors[:, 0]
        column = mask[:, :, None]
        if self.pooling == "max":
            return vectors.masked_fill(~column, torch.finfo(vectors.dtype).min).amax(dim=1)
        return (vectors * column).sum(dim=1) / column.sum(dim=1)


def load_transformers(folder: Path, spec: ImageInput | TextConfig) -> ImageFeatures | TextFeatures:
    """The pretrained module in `folder` that computes features of the inputs that `spec` describes.

    Raises:
        BackboneError: `transformers` is not installed, or the folder holds no such model.
    """
    try:
        import transformers  # noqa: F401, PLC0415
    except ImportError as error:
        raise BackboneError(str(folder), "needs the library transformers, which is not installed", _INSTALL) from error
    if not (folder / CONFIG).is_file() or not weight_files(folder):
        reason = f"has no {CONFIG} or no weights (model.safetensors)"
        raise BackboneError(str(folder), reason, "Give the folder of a transformers model, or an ONNX file")
    if isinstance(spec, ImageInput):
        return ImageFeatures(folder)
    features = TextFeatures(folder)
    limit = getattr(features.model.config, "max_position_embeddings", None)
    if limit is not None and spec.max_tokens > limit:
        raise BackboneError(str(folder), f"reads {limit} tokens, input.max_tokens is {spec.max_tokens}", "Lower it")
    return features


def transformers_graph(folder: Path, spec: ImageInput | TextConfig) -> ModelProto:
    """The ONNX graph of the model in `folder`, from normalised images or token ids to its features `[N, D]`.

    Raises:
        BackboneError: The folder holds no such model, or it cannot be exported.
    """
    module, batch = load_transformers(folder, spec).eval(), Dim("N")
    arguments: tuple[Tensor, ...]
    shapes: tuple[dict[int, Any], ...]
    if isinstance(spec, ImageInput):
        names: tuple[str, ...] = ("pixels",)
        arguments = (torch.zeros(2, spec.channels, spec.height, spec.width),)
        shapes = ({0: batch},)
    else:
        names = TEXT_INPUTS
        # The exporter takes axes of equal length for one.
        length = min(spec.max_tokens, 7)
        arguments = (torch.zeros(2, length, dtype=torch.int64), torch.tensor([length, 1]))
        shapes = text_shapes(batch)
    with TemporaryDirectory() as temporary, _quiet():
        path = Path(temporary) / "backbone.onnx"
        try:
            torch.onnx.export(
                module,
                arguments,
                str(path),
                input_names=list(names),
                output_names=[_FEATURES],
                dynamic_shapes=shapes,
                opset_version=_OPSET,
                dynamo=True,
                external_data=False,
                verbose=False,
            )
        # The exporter and the model raise many types: a wrong size of images, operators without an ONNX form.
        except Exception as error:
            reason = f"cannot be exported to ONNX for this input: {_first_line(error)}"
            raise BackboneError(str(folder), reason, _REMEDY) from error
        graph = read_file(path)
    strip_source_locations(graph)
    return graph


def copy_transformers(folder: Path, target: Path) -> None:
    """Copy the files that determine the features of the model in `folder` to the new folder `target`."""
    for path in (folder / CONFIG, folder / _POOLING_CONFIG, *folder.glob("*.index.json"), *weight_files(folder)):
        if path.is_file():
            copy = target / path.relative_to(folder)
            copy.parent.mkdir(parents=True, exist_ok=True)
            # Of a link in the hub's cache, the file that it leads to.
            shutil.copyfile(path, copy)


def transformers_digest(folder: Path) -> bytes:
    """A hash of the files that determine the features of the model in `folder`."""
    digest = hashlib.sha256()
    for path in (folder / CONFIG, folder / _POOLING_CONFIG, *weight_files(folder)):
        if path.is_file():
            digest.update(path.name.encode())
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.digest()


def _load(auto_class: Any, folder: Path) -> tuple[Any, list[str]]:
    """The model that `auto_class` makes of `folder` in float32, and the names of weights that the folder lacks."""
    try:
        with _quiet():
            model, info = auto_class.from_pretrained(
                folder,
                # The only implementation of attention that every model has and the ONNX exporter can trace.
                attn_implementation="eager",
                local_files_only=True,
                trust_remote_code=False,
                output_loading_info=True,
            )
    # Of any origin: the library raises many types for a damaged or unknown model.
    except Exception as error:
        raise BackboneError(
            str(folder), f"cannot be loaded with transformers: {_first_line(error)}", _REMEDY
        ) from error
    return model.float(), sorted(info["missing_keys"])


def _require_weights(folder: Path, missing: list[str], *, except_below: str) -> None:
    """Raise BackboneError if weights are missing: the library would replace them by random ones."""
    lacking = [name for name in missing if not f".{name}".startswith(f".{except_below}.")]
    if lacking:
        more = f" and {len(lacking) - 1} more" if len(lacking) > 1 else ""
        raise BackboneError(str(folder), f"lacks the weights {lacking[0]}{more}", "Save or download the model again")


def _pooling(folder: Path) -> Pooling:
    path = folder / _POOLING_CONFIG
    if not path.is_file():
        return "mean"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        modes = {key for key, value in config.items() if key.startswith("pooling_mode_") and value is True}
        if isinstance(mode := config.get("pooling_mode"), str):
            modes.add(f"pooling_mode_{mode}_token" if mode == "cls" else f"pooling_mode_{mode}_tokens")
    except (OSError, ValueError, AttributeError) as error:
        raise BackboneError(str(path), f"cannot be read: {error}", "Correct it") from error
    if len(modes) != 1 or not modes <= _POOLING_MODES.keys():
        raise BackboneError(str(path), f"names the pooling {', '.join(sorted(modes)) or 'none'}", _MODES_REMEDY)
    return _POOLING_MODES[modes.pop()]


def _first_line(error: Exception) -> str:
    """The first line of a message, which says what is wrong; the others are of the library's developers."""
    cause = error.__cause__ if isinstance(error.__cause__, Exception) else error
    return next((line for line in str(cause).splitlines() if line.strip()), type(cause).__name__)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the messages and progress bars of `transformers` and of the exporter."""
    from transformers import utils  # noqa: PLC0415

    transformers_logging: Any = utils.logging
    verbosity, bars = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        with warnings.catch_warnings(action="ignore", category=Warning):
            yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if bars:
            transformers_logging.enable_progress_bar()
