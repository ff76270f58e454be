"""The repository at the start: which bundles are served, which are refused, and why."""

import asyncio
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from bundle import MANIFEST_NAME, Bundle, false_flag_rate
from service.app import create_app
from service.lifecycle import Phase
from service.repository.model import Model
from service.repository.reloader import Reloader
from service.repository.served import Repository
from service.repository.snapshot import RepositoryError
from service.settings import Settings
from service.telemetry.metrics import Metrics
from tests.service.conftest import Live, Serve
from tests.support.tiny_bundle import make_tiny_bundle


def flip_a_byte(folder: Path) -> None:
    data = bytearray((folder / "model.onnx").read_bytes())
    data[len(data) // 2] ^= 1
    (folder / "model.onnx").write_bytes(data)


def edit_manifest(folder: Path, **fields: object) -> None:
    file = folder / MANIFEST_NAME
    file.write_text(json.dumps(json.loads(file.read_text()) | fields))


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "flipped": (flip_a_byte, "model.onnx: its SHA-256 is"),
    "missing": (lambda folder: (folder / "calibration.npz").unlink(), "calibration.npz: the file is missing"),
    "newer": (lambda folder: edit_manifest(folder, schema_version=2), "schema_version: the manifest has schema 2"),
    "unknown": (lambda folder: edit_manifest(folder, surprise=1), "surprise"),
    "empty": (lambda folder: shutil.rmtree(folder) or folder.mkdir(), "manifest.json: there is no manifest"),
    "renamed": (lambda folder: edit_manifest(folder, name="other"), "the manifest says other/1"),
}


def test_a_version_may_be_a_symbolic_link_but_is_not_served_under_two_names(tmp_path: Path, serve: Serve) -> None:
    stored = make_tiny_bundle(tmp_path / "volume").rename(tmp_path / "volume" / "abc")
    models = tmp_path / "models" / "tiny"
    models.mkdir(parents=True)
    (models / "1").symlink_to(stored)
    (models / "latest").symlink_to("1")
    with serve(tmp_path / "models") as live:
        listed = live.client.get("/v1/models").json()
    assert [model["versions"] for model in listed["models"]] == [["1"]]
    assert [refused["path"] for refused in listed["refused"]] == ["tiny/latest"]


def test_an_invalid_bundle_is_refused_with_its_reason_and_the_others_are_served(tmp_path: Path, serve: Serve) -> None:
    make_tiny_bundle(tmp_path)
    for name, (damage, _) in DAMAGES.items():
        damage(make_tiny_bundle(tmp_path, name=name))
    shutil.copytree(tmp_path / "tiny" / "1", tmp_path / "shallow")
    (tmp_path / ".git" / "1").mkdir(parents=True)
    (tmp_path / "README.md").touch()
    with serve(tmp_path) as live:
        listed = live.client.get("/v1/models").json()
        assert [model["name"] for model in listed["models"]] == ["tiny"]
        reasons = {refused["path"]: refused["reason"] for refused in listed["refused"]}
        assert set(reasons) == {*(f"{name}/1" for name in DAMAGES), "shallow"}
        for name, (_, reason) in DAMAGES.items():
            assert reason in reasons[f"{name}/1"]
        assert "one level deeper" in reasons["shallow"]
        assert str(tmp_path) not in json.dumps(listed)
        assert live.client.get("/readyz").status_code == 200
        assert "Refused bundles" in live.client.get("/").text


def test_versions_are_ordered_as_numbers_and_the_latest_is_the_default(tmp_path: Path, serve: Serve) -> None:
    for version in ("9", "10", "2"):
        make_tiny_bundle(tmp_path, version=version)
    with serve(tmp_path) as live:
        model = live.client.get("/v1/models/tiny").json()
        assert (model["version"], model["versions"]) == ("10", ["2", "9", "10"])
        assert live.client.get("/v1/models/tiny/versions/9").json()["version"] == "9"


def test_a_model_is_listed_with_its_labels_scores_and_calibration(live: Live) -> None:
    models = live.client.get("/v1/models").json()["models"]
    assert [model["name"] for model in models] == ["grey", "tiny"]
    tiny = models[1]
    assert tiny["labels"] == ["red", "green", "blue"]
    assert tiny["scores"][0] == tiny["default_score"] == "msp"
    assert (tiny["modality"], tiny["task"], tiny["alpha"]) == ("image", "classification", 0.05)
    assert tiny["provider"] == "CPUExecutionProvider"
    assert set(tiny["thresholds"]) == set(tiny["scores"])
    detail = live.client.get("/v1/models/tiny").json()
    rate = false_flag_rate(500, 0.05)
    assert detail["calibration"] == tiny["calibration"]
    assert tiny["calibration"] == {
        "n": 500,
        "source": "random colours",
        "smallest_alpha": 1 / 501,
        "false_flag_rate": {"lower": rate.lower, "upper": rate.upper, "exceeds_alpha": rate.exceeds_alpha},
    }
    assert {"training", "evaluation"} <= detail.keys()
    assert detail["default_score_reason"] is None


def test_the_alpha_of_the_settings_replaces_that_of_the_bundle(repository: Path, serve: Serve) -> None:
    with serve(repository, alpha=0.25) as live:
        tiny = live.client.get("/v1/models/tiny").json()
        calibration = live.app.state.repository.get("tiny").bundle.calibrations["msp"]
        assert (tiny["alpha"], tiny["thresholds"]["msp"]) == (0.25, calibration.threshold(0.25))


def load_nothing(bundle: Bundle) -> Model:
    raise AssertionError(bundle)


def test_a_folder_without_a_bundle_is_refused_as_a_repository(tmp_path: Path) -> None:
    for root, message in ((tmp_path, "holds no bundle"), (tmp_path / "none", "is not a folder")):
        with pytest.raises(RepositoryError, match=message):
            asyncio.run(Reloader(Repository(root), Metrics()).start(load_nothing))


def test_a_service_without_a_valid_bundle_fails_to_start(tmp_path: Path) -> None:
    flip_a_byte(make_tiny_bundle(tmp_path))

    async def start() -> Exception | None:
        app = create_app(Settings(models=str(tmp_path)))
        async with app.router.lifespan_context(app), asyncio.timeout(30):
            while app.state.lifecycle.phase is Phase.STARTING:
                await asyncio.sleep(0.01)
        failure: Exception | None = app.state.lifecycle.failure
        return failure

    failure = asyncio.run(start())
    assert isinstance(failure, RepositoryError)
    assert "tiny/1: model.onnx: its SHA-256" in str(failure)
