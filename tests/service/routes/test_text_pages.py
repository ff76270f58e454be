"""Text models in the console, in the OpenAPI document and among refused bundles."""

import json
from pathlib import Path

from bundle import MANIFEST_NAME, sha256_file
from tests.service.conftest import Live, Serve
from tests.support.tiny_bundle import make_tiny_bundle
from tests.support.tiny_text_bundle import SAMPLE, make_tiny_text_bundle


def test_the_page_shows_a_command_with_a_text(text_live: Live) -> None:
    page = text_live.client.get("/").text
    assert "texts of up to 32 tokens" in page
    assert SAMPLE.split(":")[0] in page
    assert "8x8 images" in page


def test_the_openapi_document_names_the_content_types_of_texts_and_images(text_live: Live) -> None:
    document = text_live.client.get("/openapi.json").json()
    operation = document["paths"]["/v1/models/{model}/score"]["post"]
    model = next(parameter["example"] for parameter in operation["parameters"] if parameter["in"] == "path")
    assert model == "tiny"
    assert {"text/plain", "image/png"} <= set(operation["requestBody"]["content"])


def test_every_openapi_example_of_a_text_service_works(tmp_path: Path, serve: Serve) -> None:
    make_tiny_text_bundle(tmp_path)
    with serve(tmp_path) as live:
        document = live.client.get("/openapi.json").json()
        examples = document["paths"]["/v1/models/{model}/score"]["post"]["requestBody"]["content"]["application/json"]
        assert len(examples["examples"]) == 3
        for example in examples["examples"].values():
            answer = live.score(model="topics", json=example["value"])
            assert answer.json()["errors"] == 0
            assert json.dumps(example).count("The team won the match") >= 1


def test_a_text_bundle_with_a_broken_tokenizer_is_refused_and_the_others_are_served(
    tmp_path: Path, serve: Serve
) -> None:
    make_tiny_bundle(tmp_path)
    broken = make_tiny_text_bundle(tmp_path)
    (broken / "tokenizer.json").write_text("{}")
    manifest = json.loads((broken / MANIFEST_NAME).read_text())
    manifest["files"]["tokenizer.json"] = sha256_file(broken / "tokenizer.json")
    (broken / MANIFEST_NAME).write_text(json.dumps(manifest))
    with serve(tmp_path) as live:
        (refused,) = live.client.get("/v1/models").json()["refused"]
        assert refused["path"] == "topics/1"
        assert refused["reason"].startswith("tokenizer.json: cannot be used as a tokenizer")
        assert live.client.get("/readyz").status_code == 200
