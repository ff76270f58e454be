"""The files next to a graph: preprocessing of transformers and timm, class names, tokenizer, length of texts."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from training.errors import DataError
from training.wrapping.model_files import read_model_files


def write(folder: Path, **files: Any) -> Path:
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    return folder / "model.onnx"


MEAN, STD = [0.5, 0.4, 0.3], [0.2, 0.25, 0.3]
NORMALISED = {"do_normalize": True, "image_mean": MEAN, "image_std": STD}


CROPPED = {"do_center_crop": True, "crop_size": {"height": 224, "width": 224}}
EFFICIENTNET = {"image_processor_type": "EfficientNetImageProcessor"}
CONVNEXT = {"crop_pct": 0.875, "image_processor_type": "ConvNextImageProcessor"}


@pytest.mark.parametrize(
    ("config", "size", "resized"),
    [
        ({"size": {"height": 224, "width": 200}}, (224, 200), None),
        ({"size": 224}, (224, 224), None),
        (CROPPED | {"size": {"shortest_edge": 256}}, (224, 224), 256),
        (CROPPED | {"size": 256, "image_processor_type": "DeiTImageProcessor"}, (224, 224), (256, 256)),
        (CROPPED | {"size": 224, "feature_extractor_type": "CLIPFeatureExtractor"}, (224, 224), 224),
        (CONVNEXT | {"size": {"shortest_edge": 224}}, (224, 224), 256),
        (CONVNEXT | {"size": {"shortest_edge": 384}}, (384, 384), None),
        ({"size": {"shortest_edge": 224}, "image_processor_type": "LevitImageProcessor"}, (224, 224), 256),
    ],
)
def test_the_size_and_crop_of_image_processors(config: dict, size: tuple, resized: Any, tmp_path: Path) -> None:
    steps = read_model_files(write(tmp_path, preprocessor_config=NORMALISED | {"resample": 3} | config)).preprocessing
    assert steps is not None
    assert steps.size == size
    found = steps.resized(size)
    # A shorter side equal to a square crop cuts the centre out as well.
    assert found == resized
    assert steps.resize == "bicubic"
    assert (list(steps.mean), list(steps.std)) == (MEAN, STD)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"do_rescale": False, "do_normalize": False}, lambda pixels: pixels),
        ({"do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": False}, lambda pixels: pixels / 255),
        (
            {"rescale_factor": 1 / 127.5, "rescale_offset": True, "do_normalize": False},
            lambda pixels: pixels / 127.5 - 1,
        ),
        (NORMALISED | {"do_rescale": False}, lambda pixels: (pixels - MEAN) / STD),
        (NORMALISED, lambda pixels: (pixels / 255 - MEAN) / STD),
        (NORMALISED | EFFICIENTNET, lambda pixels: (pixels / 255 - MEAN) / STD / STD),
        (NORMALISED | EFFICIENTNET | {"include_top": False}, lambda pixels: (pixels / 255 - MEAN) / STD),
        (NORMALISED | EFFICIENTNET | {"do_normalize": False}, lambda pixels: pixels / 255 / STD),
        (
            NORMALISED | EFFICIENTNET | {"rescale_factor": 1 / 127.5, "rescale_offset": True},
            lambda pixels: (pixels / 127.5 - 1 - MEAN) / STD / STD,
        ),
    ],
)
def test_the_values_of_image_processors(config: dict, expected: Any, tmp_path: Path) -> None:
    steps = read_model_files(write(tmp_path, preprocessor_config={"size": 8} | config)).preprocessing
    assert steps is not None
    pixels = np.arange(0, 255, 5, dtype=np.float64).reshape(17, 3)
    np.testing.assert_allclose((pixels / 255 - np.array(steps.mean)) / np.array(steps.std), expected(pixels), atol=1e-9)


@pytest.mark.parametrize("nested", [True, False])
def test_the_preprocessing_of_timm(nested: bool, tmp_path: Path) -> None:
    settings = {"input_size": [3, 240, 240], "mean": MEAN, "std": STD, "crop_pct": 0.9, "interpolation": "bicubic"}
    config = {"architecture": "a", "pretrained_cfg": settings} if nested else settings
    files = read_model_files(write(tmp_path, config=config | {"label_names": ["cat", "dog"]}))
    assert files.preprocessing is not None
    assert files.preprocessing.resized((240, 240)) == 266
    assert files.preprocessing.size == (240, 240)
    assert list(files.labels) == ["cat", "dog"]
    squash = {"pretrained_cfg": settings | {"crop_mode": "squash", "crop_pct": 0.8}}
    steps = read_model_files(write(tmp_path, config=squash)).preprocessing
    assert steps is not None
    assert steps.resized((240, 240)) == (300, 300)


def test_class_names_are_in_the_order_of_their_numbers_and_placeholders_are_none(tmp_path: Path) -> None:
    labels = {"10": "k", **{str(i): chr(97 + i) for i in range(10)}}
    assert "".join(read_model_files(write(tmp_path, config={"id2label": labels})).labels) == "abcdefghijk"
    assert not read_model_files(write(tmp_path, config={"id2label": {"0": "LABEL_0", "1": "LABEL_1"}})).labels
    assert list(read_model_files(write(tmp_path, config={"id2label": {"0": "None", "1": "NA"}})).labels) == [
        "None",
        "NA",
    ]
    assert not read_model_files(write(tmp_path, config={"id2label": {"0": "a", "1": None}})).labels


@pytest.mark.parametrize(
    ("config", "tokenizer_config", "limit"),
    [
        ({"max_position_embeddings": 512}, {"model_max_length": 128}, 128),
        (
            {"max_position_embeddings": 514, "model_type": "roberta", "pad_token_id": 1},
            {"model_max_length": int(1e30)},
            512,
        ),
        ({}, {}, None),
    ],
)
def test_the_length_of_texts(config: dict, tokenizer_config: dict, limit: int | None, tmp_path: Path) -> None:
    files = read_model_files(write(tmp_path, config=config, tokenizer_config=tokenizer_config))
    assert files.max_tokens == limit


def test_files_above_a_folder_called_onnx_are_read(tmp_path: Path) -> None:
    write(tmp_path, config={"id2label": {"0": "a", "1": "b"}}, tokenizer={})
    (tmp_path / "onnx").mkdir()
    files = read_model_files(tmp_path / "onnx" / "model.onnx")
    assert list(files.labels) == ["a", "b"]
    assert files.tokenizer == tmp_path / "tokenizer.json"


@pytest.mark.parametrize("content", ["{", '{"size": {"width": 3}}', '{"size": "large", "image_mean": 3}'])
def test_a_damaged_file_is_named(content: str, tmp_path: Path) -> None:
    (tmp_path / "preprocessor_config.json").write_text(content)
    with pytest.raises(DataError, match=r"preprocessor_config\.json"):
        read_model_files(tmp_path / "model.onnx")
