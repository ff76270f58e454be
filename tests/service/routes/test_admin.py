"""Admin calls: they need admin keys, exist only with a file of such keys, and load, unload and reset."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from tritonclient.http import InferenceServerClient
from tritonclient.utils import InferenceServerException

from service.auth.api_keys import digest_of
from tests.service.conftest import Live, Serve
from tests.service.support.answers import problem
from tests.service.support.exposition import value
from tests.service.support.pictures import encoded, picture
from tests.support.tiny_bundle import make_tiny_bundle

KEY, ADMIN = "ood_client-key", "ood_admin-key"
CALLS = (
    "/v2/repository/index",
    "/v2/repository/models/tiny/load",
    "/v2/repository/models/tiny/unload",
    "/v1/models/tiny/drift/reset",
)


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    """The settings of both files of keys."""
    (tmp_path / "keys").write_text(f"alice sha256:{digest_of(KEY)}\n")
    (tmp_path / "admin").write_text(f"root sha256:{digest_of(ADMIN)}\n")
    return {"api_keys_file": tmp_path / "keys", "admin_keys_file": tmp_path / "admin"}


@pytest.fixture
def models(tmp_path: Path) -> Path:
    make_tiny_bundle(tmp_path / "models")
    make_tiny_bundle(tmp_path / "models", name="other")
    return tmp_path / "models"


@pytest.fixture
def administered(models: Path, files: dict[str, Path], serve: Serve) -> Iterator[Live]:
    with serve(models, reload="admin", admin_keys_file=files["admin_keys_file"]) as live:
        yield live


def call(live: Live, path: str, key: str = ADMIN, **request: Any) -> httpx.Response:
    return live.client.post(path, headers={"x-api-key": key}, **request)


def error(answer: httpx.Response, status: int, kind: str) -> str:
    """Assert that `answer` is an error of the type `kind` in the format of its route, and return the detail."""
    if not answer.url.path.startswith("/v2"):
        return str(problem(answer, status, kind)["detail"])
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/json")
    error_type, _, detail = answer.json()["error"].partition(": ")
    assert error_type == kind
    return str(detail)


def index(live: Live, **request: Any) -> dict[str, tuple[str, str]]:
    answer = call(live, "/v2/repository/index", **request).json()
    return {f"{entry['name']}/{entry['version']}": (entry["state"], entry["reason"]) for entry in answer}


def damage(folder: Path) -> None:
    (folder / "model.onnx").write_bytes(b"no graph")


@pytest.mark.parametrize("path", CALLS)
def test_without_admin_keys_there_are_no_admin_calls(live: Live, path: str) -> None:
    error(live.client.post(path), 404, "not-found")
    assert path.replace("tiny", "{model}") not in live.client.get("/openapi.json").json()["paths"]


def test_each_kind_of_key_is_valid_for_its_calls_only(models: Path, files: dict[str, Path], serve: Serve) -> None:
    with serve(models, reload="admin", **files) as live:
        for path in CALLS:
            error(live.client.post(path), 401, "missing-key")
            error(call(live, path, KEY), 401, "wrong-key")
            error(call(live, path, "ood_wrong"), 401, "wrong-key")
            # Another spelling of the path needs a key as well.
            assert live.client.post(path + "%0A").status_code == 401
            assert call(live, path + "%0A", KEY).status_code in (401, 404)
        score = "/v1/models/tiny/score"
        problem(call(live, score, ADMIN, content=picture()), 401, "wrong-key")
        assert call(live, score, KEY, content=picture()).status_code == 200
        assert call(live, CALLS[0]).status_code == 200
        document = live.client.get("/openapi.json").json()
        assert document["paths"]["/v2/repository/index"]["post"]["security"]


@pytest.mark.parametrize("path", CALLS)
def test_admin_calls_need_a_key_even_if_clients_need_none(administered: Live, path: str) -> None:
    error(administered.client.post(path), 401, "missing-key")
    error(call(administered, path, KEY), 401, "wrong-key")
    route = path.replace("tiny", "{model}")
    assert value(administered.client, "ood_http_requests_total", route=route, method="POST", status="401") == 2


def test_load_serves_the_current_versions_of_that_model_only(models: Path, administered: Live) -> None:
    for name in ("tiny", "other"):
        make_tiny_bundle(models, name=name, version="2")
    answer = call(administered, "/v2/repository/models/tiny/load")
    assert answer.json() == {"model": "tiny", "versions": ["1", "2"]}
    assert administered.score(picture()).json()["version"] == "2"
    assert administered.score(picture(), model="other").json()["version"] == "1"
    shutil.rmtree(models / "tiny" / "2")
    (models / "traffic.yaml").write_text("other: {serve: 1, canary: {version: 2, percent: 100}}")
    assert call(administered, "/v2/repository/models/tiny/load").json()["versions"] == ["1"]
    assert call(administered, "/v2/repository/models/other/load").json()["versions"] == ["1", "2"]
    assert administered.score(picture(), model="other").json()["version"] == "2"
    (models / "traffic.yaml").unlink()
    call(administered, "/v2/repository/models/tiny/load")
    assert administered.client.get("/v1/models/other").json()["traffic"]["canary"] is None


def test_an_unloaded_model_is_not_served_until_it_is_loaded(models: Path, administered: Live) -> None:
    body = {"parameters": {"unload_dependents": False}}
    assert call(administered, "/v2/repository/models/tiny/unload", json=body).json() == {
        "model": "tiny",
        "versions": [],
    }
    problem(administered.score(picture()), 404, "unknown-model")
    error(call(administered, "/v2/repository/models/tiny/unload"), 404, "unknown-model")
    assert index(administered) == {"other/1": ("READY", ""), "tiny/1": ("UNAVAILABLE", "unloaded")}
    assert index(administered, json={"ready": True}) == {"other/1": ("READY", "")}
    assert call(administered, "/v2/repository/models/other/load").status_code == 200
    problem(administered.score(picture()), 404, "unknown-model")
    assert call(administered, "/v2/repository/models/tiny/load").json()["versions"] == ["1"]
    assert administered.score(picture()).status_code == 200


def test_a_broken_bundle_is_refused_and_the_served_version_remains(models: Path, administered: Live) -> None:
    damage(models / "tiny" / "1")
    detail = error(call(administered, "/v2/repository/models/tiny/load"), 422, "bundle-refused")
    assert "tiny/1: model.onnx: its SHA-256 is" in detail
    assert str(models) not in detail
    assert administered.score(picture()).status_code == 200
    state, reason = index(administered)["tiny/1"]
    assert state == "READY"
    assert "its SHA-256 is" in reason
    damage(make_tiny_bundle(models, version="2"))
    assert call(administered, "/v2/repository/models/tiny/load").status_code == 422
    assert index(administered)["tiny/2"][0] == "UNAVAILABLE"


def test_a_model_that_does_not_exist_cannot_be_loaded(administered: Live) -> None:
    error(call(administered, "/v2/repository/models/none/load"), 404, "unknown-model")


@pytest.mark.parametrize(
    ("body", "status", "kind"),
    [
        (b"{", 400, "malformed-body"),
        (b'{"parameters": {"config": "{}"}}', 422, "invalid-parameter"),
        (b"[]", 422, "invalid-parameter"),
        (b"x" * 100_000, 413, "body-too-large"),
    ],
)
def test_a_wrong_body_is_refused(administered: Live, body: bytes, status: int, kind: str) -> None:
    error(call(administered, "/v2/repository/models/tiny/load", content=body), status, kind)


def test_with_reload_off_models_stay_as_they_are(models: Path, files: dict[str, Path], serve: Serve) -> None:
    with serve(models, admin_keys_file=files["admin_keys_file"]) as live:
        for path in CALLS[1:3]:
            assert "OOD_RELOAD=admin" in error(call(live, path), 409, "reload-off")
        assert set(index(live)) == {"tiny/1", "other/1"}
        assert call(live, CALLS[3]).status_code == 200


def test_drift_is_reset_for_one_model(administered: Live) -> None:
    grey = [{"image": encoded(picture("gray"))}] * 20
    for name in ("tiny", "other"):
        administered.score(json={"inputs": grey}, model=name)
    evidence = value(administered.client, "ood_drift_evidence", model="tiny", version="1", score="msp")
    assert evidence > 1
    answer = call(administered, "/v1/models/tiny/drift/reset")
    assert answer.json() == {"model": "tiny", "evidence": {"1": pytest.approx(evidence)}}
    assert value(administered.client, "ood_drift_evidence", model="tiny", version="1", score="msp") == 0
    assert value(administered.client, "ood_drift_evidence", model="other", version="1", score="msp") > 1
    problem(call(administered, "/v1/models/none/drift/reset"), 404, "unknown-model")


def test_tritons_client_loads_and_unloads_models(models: Path, administered: Live) -> None:
    headers = {"X-API-Key": ADMIN}
    with InferenceServerClient(f"127.0.0.1:{administered.port}") as client:
        assert "model_repository" in client.get_server_metadata()["extensions"]
        client.unload_model("tiny", headers=headers)
        assert not client.is_model_ready("tiny")
        index = client.get_model_repository_index(headers=headers)
        assert {entry["name"]: entry["state"] for entry in index} == {"tiny": "UNAVAILABLE", "other": "READY"}
        client.load_model("tiny", headers=headers)
        assert client.is_model_ready("tiny")
        with pytest.raises(InferenceServerException, match="unknown-model"):
            client.load_model("none", headers=headers)
