import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from bundle import ImageInput, Manifest, load_bundle

DIGEST = "0" * 64


@pytest.fixture
def fields(tiny_bundle: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((tiny_bundle / "manifest.json").read_text())
    return deepcopy(loaded)


def parse(fields: dict[str, Any]) -> Manifest:
    return Manifest.model_validate_json(json.dumps(fields))


def test_a_manifest_is_equal_after_a_round_trip_through_json(tiny_bundle: Path) -> None:
    manifest = load_bundle(tiny_bundle).manifest
    assert Manifest.model_validate_json(manifest.model_dump_json()) == manifest


def test_training_and_evaluation_are_kept(fields: dict[str, Any]) -> None:
    fields["training"] = {
        "recipe": "cifar10.yaml",
        "recipe_sha256": DIGEST,
        "data": [{"role": "in-distribution train", "name": "a", "source": "b", "rows": 3, "sha256": DIGEST}],
        "seed": 1,
        "objective": "outlier-exposure",
        "stage": "finetune",
        "commit": None,
        "packages": {"torch": "2.9"},
        "hardware": "4 cores",
        "seconds": 12,
        "started": "2026-01-01T00:00:00Z",
    }
    result = {"name": "mean", "stage": "finetune", "score": "msp", "fpr95": 5, "auroc": 98.5, "aupr": 93.0}
    fields["evaluation"] = {"error_percent": None, "sets": [result]}
    fields["parity"] = {"tolerance": 1e-4, "max_difference": {"msp": 1e-6}, "inputs": 256}
    manifest = parse(fields)
    assert manifest.training is not None
    assert manifest.training.seconds == 12
    assert manifest.evaluation is not None
    assert manifest.evaluation.sets[0].auroc == 98.5


def test_a_manifest_without_precision_has_full_precision(fields: dict[str, Any]) -> None:
    del fields["precision"]
    assert parse(fields).precision == "fp32"


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("name", "Upper", "name"),
        ("name", "../up", "name"),
        ("name", "", "name"),
        ("version", "0", "version"),
        ("version", "v1", "version"),
        ("version", 1, "version"),
        ("modality", "text", "input.kind"),
        ("modality", "audio", "modality"),
        ("task", "density", "no labels"),
        ("task", "language-model", "modality text"),
        ("likelihood", {"per": "pixel", "parts": "bits"}, "likelihood is not for task classification"),
        ("labels", ["only one"], "two labels"),
        ("labels", [], "two labels"),
        ("scores", [], "scores"),
        ("scores", [{"name": "msp", "output": "a"}, {"name": "msp", "output": "b"}], "twice"),
        ("scores", [{"name": "mps", "output": "a"}], "'mps' is no score"),
        ("default_score", "bpp", "not among scores"),
        ("default_score", "nonsense", "no score"),
        ("model", "other.onnx", "model names 'other.onnx'"),
        ("model", "../model.onnx", "inside the bundle"),
        ("model", "/etc/passwd", "inside the bundle"),
        ("model", "a\\b.onnx", "inside the bundle"),
        ("model", "c:model.onnx", "inside the bundle"),
        ("model", "./model.onnx", "plain relative path"),
        ("model", "", "plain relative path"),
        ("files", {"model.onnx": "abc", "calibration.npz": DIGEST}, "files.*model.onnx"),
        ("files", {"model.onnx": DIGEST}, "calibration.file"),
        ("files", {"model.onnx": DIGEST, "calibration.npz": DIGEST, "manifest.json": DIGEST}, "its own digest"),
        ("created", "2026-01-01T00:00:00", "timezone"),
        ("precision", "int4", "precision"),
        ("surprise", 1, "surprise"),
    ],
)
def test_a_wrong_field_is_refused_by_name(fields: dict[str, Any], field: str, value: object, message: str) -> None:
    fields[field] = value
    with pytest.raises(ValidationError, match=message):
        parse(fields)


@pytest.mark.parametrize("alpha", ["0", "1", "-1", "NaN", "Infinity", '"0.05"'])
def test_a_default_alpha_outside_zero_to_one_is_refused(fields: dict[str, Any], alpha: str) -> None:
    text = json.dumps(fields).replace('"alpha": 0.05', f'"alpha": {alpha}')
    with pytest.raises(ValidationError, match=r"calibration\.alpha"):
        Manifest.model_validate_json(text)


def test_a_tokenizer_must_be_one_of_the_files(fields: dict[str, Any]) -> None:
    fields |= {
        "modality": "text",
        "input": {"kind": "text", "tokenizer": "tokenizer.json", "max_tokens": 128},
    }
    with pytest.raises(ValidationError, match=r"input\.tokenizer names 'tokenizer\.json'"):
        parse(fields)
    fields["files"]["tokenizer.json"] = DIGEST
    assert parse(fields).input.kind == "text"


@pytest.mark.parametrize(
    "change", [{"mean": (0.5,)}, {"std": (1.0, 1.0, 0.0)}, {"height": 0}, {"channels": 4}, {"resize": "nearest"}]
)
def test_an_impossible_image_input_is_refused(change: dict[str, Any]) -> None:
    fields: dict[str, Any] = {"height": 8, "width": 8, "channels": 3, "mean": (0.5,) * 3, "std": (0.2,) * 3}
    with pytest.raises(ValidationError):
        ImageInput(**fields | change)


def test_a_manifest_cannot_be_changed(tiny_bundle: Path) -> None:
    manifest = load_bundle(tiny_bundle).manifest
    with pytest.raises(ValidationError, match="frozen"):
        manifest.name = "other"
