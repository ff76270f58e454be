"""Text bundles: loaded with their tokenizer, refused with a broken one."""

import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from bundle import MANIFEST_NAME, FileMissing, TokenizerInvalid, load_bundle, pad_tokens, seal_bundle
from tests.support.tiny_text_bundle import make_tiny_text_bundle, tiny_texts


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_tiny_text_bundle(tmp_path)


def test_a_text_bundle_loads_with_its_encoder(folder: Path) -> None:
    bundle = load_bundle(folder)
    assert bundle.text_encoder is not None
    assert len(bundle.text_encoder.encode("ball " * 100)) == 32


def test_an_image_bundle_has_no_text_encoder(tiny_bundle: Path) -> None:
    assert load_bundle(tiny_bundle).text_encoder is None


def test_the_calibration_of_the_tiny_text_bundle_comes_from_its_graph_and_its_encoder(folder: Path) -> None:
    bundle = load_bundle(folder)
    assert bundle.text_encoder is not None
    tokens, lengths = pad_tokens(bundle.text_encoder.encode_batch(tiny_texts(200)))
    session = onnxruntime.InferenceSession(bundle.model_path, providers=["CPUExecutionProvider"])
    (msp,) = session.run(["msp"], {"tokens": tokens, "lengths": lengths})
    np.testing.assert_allclose(np.sort(1 - msp.astype(float)), bundle.calibrations["msp"].anomaly, atol=1e-6)


@pytest.mark.parametrize("verify", [True, False])
def test_a_missing_tokenizer_is_named(folder: Path, verify: bool) -> None:
    (folder / "tokenizer.json").unlink()
    with pytest.raises(FileMissing, match=r"tokenizer\.json"):
        load_bundle(folder, verify=verify)


def test_a_broken_tokenizer_is_refused_when_loading_and_when_sealing(folder: Path) -> None:
    (folder / "text").mkdir()
    (folder / "text" / "tokenizer.json").write_text("{}")
    fields = json.loads((folder / MANIFEST_NAME).read_text())
    fields["input"]["tokenizer"] = "text/tokenizer.json"
    (folder / MANIFEST_NAME).write_text(
        json.dumps(fields | {"files": fields["files"] | {"text/tokenizer.json": "0" * 64}})
    )
    with pytest.raises(TokenizerInvalid) as caught:
        load_bundle(folder, verify=False)
    assert (caught.value.path, caught.value.where) == (folder.resolve(), "text/tokenizer.json")
    (folder / MANIFEST_NAME).unlink()
    del fields["files"]
    with pytest.raises(TokenizerInvalid, match=r"text/tokenizer\.json: cannot be used as a tokenizer"):
        seal_bundle(folder, fields)
    assert not (folder / MANIFEST_NAME).exists()
