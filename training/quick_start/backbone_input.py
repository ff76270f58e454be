"""The input of a pretrained backbone: from its file or folder, and from the files that model hubs store with it."""

from collections.abc import MutableMapping
from pathlib import Path
from typing import Any

from bundle import ImageInput
from training.errors import DataError, GraphError
from training.pretrained_files import find_pretrained
from training.recipe import PRETRAINED, TextConfig
from training.wrapping.image_adapter import ImageOptions, image_adapter, image_input, preprocessing_of
from training.wrapping.image_preprocessing import DEFAULT_SIDE, PRESETS
from training.wrapping.model_files import TOKENIZER, read_model_files
from training.wrapping.onnx_classifier import graph_inputs, read_model
from training.wrapping.text_adapter import takes_texts

_OPTION = "--backbone"
_LONGEST_TEXT = 256
"""Tokens of a text that a quick start reads: the time for the features of a text grows with them."""


def image_backbone_input(
    backbone: Path, *, preprocess: str | None = None, size: tuple[int, int] | None = None
) -> tuple[ImageInput, str]:
    """The size and the normalisation of a backbone's images, and a message that states them.

    Args:
        backbone: An ONNX file or the folder of a `transformers` model.
        preprocess: The name of a preset; None for the file next to the backbone.
        size: (height, width) of images, for a backbone that takes any.

    Raises:
        DataError: Nothing states the normalisation.
        GraphError: The file is no ONNX graph, or takes other inputs than normalised images.
    """
    stored = read_model_files(backbone).preprocessing
    if stored is None and preprocess is None:
        place = "in" if backbone.is_dir() else "next to"
        reason = f"no preprocessor_config.json or config.json {place} {backbone.name} states its preprocessing"
        raise DataError(_OPTION, reason, f"Add one, or give --preprocess: {', '.join(PRESETS)}")
    options = ImageOptions(preprocess, size=size)
    if backbone.is_dir():
        steps = preprocessing_of(options, stored)
        if steps.bgr:
            raise DataError(_OPTION, f"{backbone.name} takes BGR images", "Give a model of RGB images")
        spec = image_input(options, steps, size or steps.size or (DEFAULT_SIDE, DEFAULT_SIDE), channels=3)
        return spec, f"preprocessing: {steps.origin}; {spec.height}x{spec.width} ({spec.resize})"
    model, notes = read_model(backbone), list[str]()
    adapter = image_adapter(model, graph_inputs(model), options, stored, notes.append)
    if adapter.bgr or adapter.layout == "flat" or not adapter.normalises:
        reason = "takes BGR images, rows of pixels or bytes"
        raise GraphError(backbone.name, reason, "Give a model of normalised RGB images [N, C, H, W] or [N, H, W, C]")
    return adapter.spec, notes[-1]


def text_backbone_input(backbone: Path) -> tuple[TextConfig, str]:
    """The longest text that a backbone reads, at most `_LONGEST_TEXT` tokens, and a message that states it.

    Raises:
        DataError: There is no tokenizer next to the ONNX file or in the folder `backbone`.
    """
    files = read_model_files(backbone)
    if files.tokenizer is None:
        place = "in" if backbone.is_dir() else "next to"
        raise DataError(_OPTION, f"no {TOKENIZER} {place} {backbone.name}", f"Add the model's {TOKENIZER}")
    limit = min(files.max_tokens or _LONGEST_TEXT, _LONGEST_TEXT)
    return TextConfig(max_tokens=limit), f"reads at most {limit} tokens of a text"


def complete_input(raw: MutableMapping[str, Any], data_dir: Path) -> None:
    """Add the section `input` to the plain data of a recipe with a pretrained backbone, if the recipe leaves it out.

    Args:
        raw: The recipe's plain data.
        data_dir: The folder that the recipe's paths start from.

    Raises:
        BackboneError: There is no such backbone.
        DataError, GraphError: Its files do not state its input.
    """
    architecture = raw.get("architecture")
    if "input" in raw or not isinstance(architecture, dict) or architecture.get("name") != PRETRAINED:
        return
    if not isinstance(backbone := architecture.get("backbone"), str):
        return
    path = find_pretrained(backbone, data_dir)
    files = read_model_files(path)
    if path.is_dir():
        is_text = files.tokenizer is not None and files.preprocessing is None
    else:
        is_text = takes_texts(graph_inputs(read_model(path)))
    spec = text_backbone_input(path)[0] if is_text else image_backbone_input(path)[0]
    raw["input"] = {"kind": spec.kind, **spec.model_dump(mode="json", exclude_defaults=True)}
