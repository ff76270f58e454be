"""Public ONNX files of the package rapidocr-onnxruntime: a classifier is wrapped, a detector is refused by name."""

import importlib.util
from pathlib import Path

import pytest
from matplotlib import font_manager
from PIL import Image, ImageDraw, ImageFont
from typer.testing import CliRunner

from bundle import load_bundle
from training.commands.app import app
from training.errors import GraphError

SPEC = importlib.util.find_spec("rapidocr_onnxruntime")
pytestmark = pytest.mark.skipif(SPEC is None, reason="the package rapidocr-onnxruntime is not installed")
WORDS = ("invoice", "number", "total", "street", "Monday", "fragile", "Ahoy", "please", "page", "12:45")


def model_file(name: str) -> Path:
    assert SPEC is not None
    assert SPEC.origin is not None
    return Path(SPEC.origin).parent / "models" / name


@pytest.fixture(scope="module")
def lines(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Lines of text, upright and upside down."""
    root = tmp_path_factory.mktemp("lines")
    font = ImageFont.truetype(font_manager.findfont("DejaVu Sans"), 32)
    for name in ("0", "180"):
        (root / name).mkdir()
    for i, first in enumerate(WORDS):
        for second in WORDS[:4]:
            image = Image.new("RGB", (192, 48), "white")
            ImageDraw.Draw(image).text((4, 4), f"{first} {second}", fill="black", font=font)
            image.save(root / "0" / f"{i}-{second}.png")
            image.rotate(180).save(root / "180" / f"{i}-{second}.png")
    return root


def run(model: Path, lines: Path, folder: Path, *options: str) -> str:
    arguments = ["wrap", str(model), "--calibration", str(lines), "--models", str(folder), "--name", "real", *options]
    result = CliRunner().invoke(app, arguments)
    if result.exception is not None:
        raise result.exception
    return " ".join(result.output.split())


def test_an_orientation_classifier_of_paddle_is_wrapped(
    tmp_path: Path, lines: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OOD_CACHE", str(tmp_path / "cache"))
    output = run(model_file("ch_ppocr_mobile_v2.0_cls_infer.onnx"), lines, tmp_path, "--size", "48x192")
    assert "accuracy: 100.0% on 64 calibration inputs" in output
    assert "softmax of the output 'save_infer_model/scale_0.tmp_1'" in output
    bundle = load_bundle(tmp_path / "real" / "1")
    assert [tensor.name for tensor in bundle.manifest.model_outputs] == ["save_infer_model/scale_0.tmp_1"]


def test_a_detector_of_paddle_is_refused_by_the_name_of_its_tensor(tmp_path: Path, lines: Path) -> None:
    with pytest.raises(GraphError, match=r"'p2o\.Add\.281': has values of shape \[1, 224, 224\] for one input"):
        run(model_file("ch_PP-OCRv4_det_infer.onnx"), lines, tmp_path)
