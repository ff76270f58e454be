"""Reads the files that model hubs store next to a graph: preprocessing, class names, and the length of texts."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from training.errors import DataError
from training.wrapping.image_preprocessing import Preprocessing, Resize, Size

TOKENIZER = "tokenizer.json"

_PREPROCESSOR, _CONFIG, _TOKENIZER_CONFIG = "preprocessor_config.json", "config.json", "tokenizer_config.json"
_SENTENCE_CONFIG = "sentence_bert_config.json"
_FILTERS: Mapping[int, Resize] = {1: "lanczos", 2: "bilinear", 3: "bicubic"}
"""Pillow's numbers of filters, in `preprocessor_config.json`."""
_NO_LIMIT = 1_000_000
"""Transformers writes a huge `model_max_length` where a tokenizer has no limit."""
_OFFSET_POSITIONS = ("roberta", "camembert", "xlm-roberta", "longformer", "mpnet")
"""Models whose position embeddings begin behind the id of padding."""
_SHORTEST_EDGE = ("CLIP", "ConvNext", "Levit", "MobileNet", "MobileViT", "PoolFormer")
"""Image processors for which one number as the size is the shorter side; for others it is height and width."""


@dataclass(frozen=True)
class ModelFiles:
    """The contents of the files next to a graph.

    Attributes:
        preprocessing: of images; None if no file has it.
        labels: the class names in order; empty if no file has them.
        tokenizer: the path of `tokenizer.json`; None if it is missing.
        max_tokens: the longest text, in tokens; None if no file has it.
    """

    preprocessing: Preprocessing | None = None
    labels: Sequence[str] = ()
    tokenizer: Path | None = None
    max_tokens: int | None = None


def read_model_files(model: Path) -> ModelFiles:
    """The files in the folder `model`, or that of the file `model`, or the folder above if that is called `onnx`.

    Raises:
        DataError: if a file is no JSON, or describes a preprocessing that bundles do not have.
    """
    folder = model if model.is_dir() else model.parent
    folders = [folder] + ([folder.parent] if folder.resolve().name == "onnx" else [])
    contents = {name: _read(folders, name) for name in (_PREPROCESSOR, _CONFIG, _TOKENIZER_CONFIG, _SENTENCE_CONFIG)}
    config, limits = contents[_CONFIG], (contents[_TOKENIZER_CONFIG], contents[_SENTENCE_CONFIG])
    preprocessing = None
    try:
        if contents[_PREPROCESSOR]:
            preprocessing = _of_transformers(contents[_PREPROCESSOR])
        elif config:
            preprocessing = _of_timm(config)
        labels, max_tokens = _labels(config), _max_tokens(config, *limits)
    # The files are of any origin: a value of another type must not end in a traceback.
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        name = _PREPROCESSOR if contents[_PREPROCESSOR] else _CONFIG
        remedy = "Correct or remove it, and give --preprocess, --size and --labels"
        raise DataError(name, f"has an unexpected form: {error}", remedy) from error
    tokenizer = next((folder / TOKENIZER for folder in folders if (folder / TOKENIZER).is_file()), None)
    return ModelFiles(preprocessing, labels, tokenizer, max_tokens)


def _read(folders: Sequence[Path], name: str) -> Mapping[str, Any]:
    path = next((folder / name for folder in folders if (folder / name).is_file()), None)
    if path is None:
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(str(path), f"cannot be read: {error}", "Correct it, or move it away") from error
    return content if isinstance(content, dict) else {}


def _of_transformers(config: Mapping[str, Any]) -> Preprocessing | None:
    """The preprocessing of an image processor's configuration; None for a processor of other inputs."""
    kind = str(config.get("image_processor_type") or config.get("feature_extractor_type") or "")
    if not any(key in config for key in ("size", "image_mean", "do_normalize", "do_resize")):
        return None
    crops = bool(config.get("do_center_crop", False))
    size, resize_to, share = _transformers_size(config, kind, crops=crops)
    factor = float(config.get("rescale_factor", 1 / 255)) if config.get("do_rescale", True) else 1.0
    offset = -1.0 if config.get("rescale_offset") else 0.0
    normalises = config.get("do_normalize", True) and config.get("image_mean") is not None
    mean, std = (config["image_mean"], config["image_std"]) if normalises else ([0.0], [1.0])
    mean, std = ([value] if isinstance(value, int | float) else value for value in (mean, std))
    if "EfficientNet" in kind and config.get("include_top", True) and config.get("image_std") is not None:
        # After the normalisation, if any, this processor divides by `image_std` again.
        mean, std = (values.tolist() for values in np.broadcast_arrays(mean, np.multiply(std, config["image_std"])))
    bgr = bool(config.get("do_flip_channel_order", False))
    if bgr:
        # Its means are those of the flipped channels.
        mean, std = mean[::-1], std[::-1]
    return Preprocessing(
        _PREPROCESSOR,
        tuple((float(value) - offset) / (255 * factor) for value in mean),
        tuple(float(value) / (255 * factor) for value in std),
        bgr=bgr,
        resize=_FILTERS.get(int(config.get("resample") or 2), "bilinear"),
        size=size,
        crop_share=share,
        resize_to=resize_to,
    )


def _transformers_size(
    config: Mapping[str, Any], kind: str, *, crops: bool
) -> tuple[Size | None, int | Size | None, float | None]:
    """The size of the classifier's images, the size before a crop, and the share that the crop keeps."""
    value, crop = config.get("size"), config.get("crop_size")
    crop_size = None if crop is None else _size(crop)
    if isinstance(value, dict) and "shortest_edge" in value:
        shorter: int | None = int(value["shortest_edge"])
    elif isinstance(value, int) and any(name in kind for name in _SHORTEST_EDGE):
        shorter = value
    else:
        shorter = None
    if shorter is None:
        resized = None if value is None or not config.get("do_resize", True) else _size(value)
        return (crop_size, resized, None) if crops and crop_size else (resized, None, None)
    if (share := config.get("crop_pct")) is not None:
        # ConvNeXt crops images below 384 pixels, and squashes larger ones.
        return (shorter, shorter), None, float(share) if shorter < 384 else None
    if "Levit" in kind:
        return (shorter, shorter) if crop_size is None else crop_size, int(256 / 224 * shorter), None
    if crops and crop_size is not None:
        return crop_size, shorter, None
    # Without a crop, images would have different sizes; a square is the closest.
    return (shorter, shorter), shorter, None


def _size(value: Any) -> Size:
    if isinstance(value, dict):
        return int(value["height"]), int(value["width"])
    if isinstance(value, list):
        height, width = value
        return int(height), int(width)
    return int(value), int(value)


def _of_timm(config: Mapping[str, Any]) -> Preprocessing | None:
    """The preprocessing of a `config.json` of timm, of any version; None for another library's."""
    settings = config.get("pretrained_cfg", config)
    if "mean" not in settings or "std" not in settings or "input_size" not in settings:
        return None
    _, height, width = settings["input_size"]
    share = float(settings.get("crop_pct") or 0.875)
    name = str(settings.get("interpolation", "bicubic"))
    size = (int(height), int(width))
    squashes = settings.get("crop_mode") == "squash"
    return Preprocessing(
        f"{_CONFIG} of timm",
        tuple(map(float, settings["mean"])),
        tuple(map(float, settings["std"])),
        resize="bicubic" if name == "bicubic" else "lanczos" if name == "lanczos" else "bilinear",
        size=size,
        crop_share=None if squashes else share,
        resize_to=(int(size[0] / share), int(size[1] / share)) if squashes else None,
    )


def _labels(config: Mapping[str, Any]) -> Sequence[str]:
    """The class names of a configuration; empty if there are none but placeholders."""
    if names := config.get("label_names"):
        descriptions = config.get("label_descriptions") or {}
        return tuple(str(descriptions.get(name, name)) for name in names)
    named: Mapping[str, Any] = config.get("id2label") or {}
    numbered = {int(number): str(label) for number, label in named.items() if label is not None}
    labels = tuple(numbered[number] for number in sorted(numbered))
    is_complete = sorted(numbered) == list(range(len(named)))
    return labels if is_complete and not all(label.startswith("LABEL_") for label in labels) else ()


def _max_tokens(
    config: Mapping[str, Any], tokenizer_config: Mapping[str, Any], sentence_config: Mapping[str, Any]
) -> int | None:
    named = (tokenizer_config.get("model_max_length"), sentence_config.get("max_seq_length"))
    limits = [int(limit) for limit in named if limit and limit < _NO_LIMIT]
    if positions := config.get("max_position_embeddings"):
        offset = int(config.get("pad_token_id") or 1) + 1 if config.get("model_type") in _OFFSET_POSITIONS else 0
        limits.append(int(positions) - offset)
    return min(limits, default=None)
