"""Presets and configuration files change what a wrapped graph computes; a wrong preset is found by its accuracy."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper
from PIL import Image
from typer.testing import CliRunner

from bundle import Bundle, decode_image, load_bundle
from training.commands.app import app
from training.data import StoredArray
from training.errors import TrainingError
from training.export.onnx_graph import run_graph

SIDE = 16
COLOURS = ("blue", "green", "red")
MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])

Values = Callable[[NDArray[np.uint8]], NDArray[np.float64]]

EXPECTED: dict[str, Values] = {
    "none": lambda x: x / 255,
    "raw": lambda x: x * 1.0,
    "keras-tf": lambda x: x / 127.5 - 1,
    "keras-caffe": lambda x: x[..., ::-1] - np.array([103.939, 116.779, 123.68]),
    "keras-torch": lambda x: (x / 255 - MEAN) / STD,
    "torchvision": lambda x: (x / 255 - MEAN) / STD,
    "inception": lambda x: (x / 255 - 0.5) / 0.5,
}


def write_means(path: Path, *, channels_last: bool = False, side: int | None = SIDE) -> Path:
    """Write a classifier whose logits are the mean values of the channels that it gets."""
    shape = ["N", side, side, 3] if channels_last else ["N", 3, side, side]
    axes = [1, 2] if channels_last else [2, 3]
    nodes = [helper.make_node("ReduceMean", ["x"], ["logits"], axes=axes, keepdims=0)]
    graph = helper.make_graph(
        nodes,
        "means",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 3])],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    return path


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photographs of three colours, with another brightness at the left and right."""
    root = tmp_path_factory.mktemp("photos")
    generator = np.random.default_rng(2)
    for i, colour in enumerate(COLOURS):
        (root / colour).mkdir()
        for k in range(22):
            pixels = generator.integers(0, 90, (40, 70, 3), dtype=np.uint8)
            pixels[:, 20:50, 2 - i] += 120
            Image.fromarray(pixels).save(root / colour / f"{k}.png")
    return root


Wrap = Callable[..., tuple[Bundle, str]]


@pytest.fixture
def wrap(tmp_path: Path, photos: Path, monkeypatch: pytest.MonkeyPatch) -> Wrap:
    monkeypatch.setenv("OOD_CACHE", str(tmp_path / "cache"))

    def run(model: Path, *arguments: str) -> tuple[Bundle, str]:
        options = ["--calibration", str(photos), "--models", str(tmp_path / "models"), "--name", "foreign"]
        result = CliRunner().invoke(app, ["wrap", str(model), *options, *arguments])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return load_bundle(tmp_path / "models" / "foreign" / "1"), " ".join(result.output.split())

    return run


def assert_values(bundle: Bundle, photos: Path, expected: Values) -> NDArray[np.uint8]:
    """The graph's energy is that of the mean values which the preprocessing gives; returns the decoded images."""
    files = sorted(photos.glob("*/1*.png"))
    images = np.stack([decode_image(file.read_bytes(), bundle.manifest.input) for file in files])
    logits = expected(images).mean(axis=(1, 2))
    outputs = run_graph(bundle.model_path, StoredArray(images), outputs=["max_logit", "prediction"])
    np.testing.assert_allclose(outputs["max_logit"], logits.max(axis=1), rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(outputs["prediction"], logits.argmax(axis=1))
    return images


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("preset", EXPECTED)
def test_a_preset_normalises_resizes_and_crops(
    preset: str, channels_last: bool, tmp_path: Path, photos: Path, wrap: Wrap
) -> None:
    model = write_means(tmp_path / "model.onnx", channels_last=channels_last)
    bundle, output = wrap(model, "--preprocess", preset)
    images = assert_values(bundle, photos, EXPECTED[preset])
    assert f"preprocessing: {preset};" in output
    image = Image.open(sorted(photos.glob("*/1*.png"))[0])
    if preset in ("torchvision", "inception"):
        assert bundle.manifest.input.resize_to == 18
        resized = image.resize(
            (31, 18), Image.Resampling.BICUBIC if preset == "inception" else Image.Resampling.BILINEAR
        )
        expected = resized.crop((8, 1, 24, 17))
    else:
        expected = image.resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(images[0], np.asarray(expected))


def test_options_override_parts_of_a_preset(tmp_path: Path, photos: Path, wrap: Wrap) -> None:
    model = write_means(tmp_path / "model.onnx")
    options = [
        "--preprocess",
        "torchvision",
        "--bgr",
        "--scale",
        "255",
        "--mean",
        "104,117,123",
        "--resize-to",
        "20x24",
    ]
    bundle, _ = wrap(model, *options)
    assert bundle.manifest.input.resize_to == (20, 24)
    assert_values(bundle, photos, lambda x: x[..., ::-1] - np.array([104.0, 117, 123]))


def test_a_file_next_to_the_graph_is_used_and_an_option_overrides_it(tmp_path: Path, photos: Path, wrap: Wrap) -> None:
    model = write_means(tmp_path / "model.onnx", side=None)
    (tmp_path / "preprocessor_config.json").write_text(
        json.dumps(
            {
                "size": {"shortest_edge": 20},
                "do_center_crop": True,
                "crop_size": {"height": 12, "width": 12},
                "image_mean": [0.5, 0.4, 0.3],
                "image_std": [0.1, 0.2, 0.3],
                "resample": 3,
            }
        )
    )
    (tmp_path / "config.json").write_text(json.dumps({"id2label": {"0": "Red, ruby", "1": "Green", "2": "blue"}}))
    bundle, output = wrap(model)
    spec = bundle.manifest.input
    assert (spec.height, spec.width, spec.resize_to, spec.resize) == (12, 12, 20, "bicubic")
    assert_values(bundle, photos, lambda x: (x / 255 - [0.5, 0.4, 0.3]) / [0.1, 0.2, 0.3])
    assert "preprocessing: preprocessor_config.json;" in output
    assert bundle.manifest.labels == ["Red, ruby", "Green", "blue"]
    assert "accuracy: " in output
    bundle, _ = wrap(model, "--preprocess", "none", "--size", "14x18", "--overwrite")
    assert (bundle.manifest.input.height, bundle.manifest.input.width) == (14, 18)
    assert_values(bundle, photos, EXPECTED["none"])


def test_a_wrong_preprocessing_is_noticed_and_the_best_preset_suggested(tmp_path: Path, wrap: Wrap) -> None:
    # The classes blue, green, red are those of BGR channels in order.
    _, output = wrap(write_means(tmp_path / "model.onnx"))
    # A third of the inputs, those of the middle class.
    assert re.search(r"accuracy: 3\d\.\d% on 64 calibration inputs", output)
    assert "warning: the preprocessing seems wrong; --preprocess keras-caffe gives 100.0%" in output
    _, output = wrap(tmp_path / "model.onnx", "--preprocess", "keras-caffe", "--overwrite")
    assert "accuracy: 100.0% on 64 calibration inputs" in output
    assert "warning" not in output


def test_labels_that_the_model_does_not_have_cannot_be_checked(tmp_path: Path, wrap: Wrap) -> None:
    bundle, output = wrap(write_means(tmp_path / "model.onnx"), "--labels", "blue,green,yellow")
    assert "accuracy: could not be checked, because" in output
    assert bundle.manifest.labels == ["blue", "green", "yellow"]


def test_data_of_fewer_classes_than_the_model_give_no_names(tmp_path: Path, wrap: Wrap) -> None:
    model = onnx.load(write_means(tmp_path / "model.onnx"))
    model.graph.node.append(helper.make_node("Concat", ["logits", "logits"], ["six"], axis=1))
    model.graph.output[0].name = "six"
    model.graph.output[0].type.tensor_type.ClearField("shape")
    onnx.save(model, tmp_path / "model.onnx")
    bundle, output = wrap(tmp_path / "model.onnx")
    assert "has 3 class names, the model 6 classes; --labels names them" in output
    assert bundle.manifest.labels[5] == "class 5"


def test_an_unknown_preset_is_refused_before_anything_is_read(tmp_path: Path, wrap: Wrap) -> None:
    with pytest.raises(TrainingError, match=r"--preprocess: 'caffe' is unknown\. Known: torchvision, inception"):
        wrap(write_means(tmp_path / "model.onnx"), "--preprocess", "caffe")
    assert not (tmp_path / "cache").exists()
