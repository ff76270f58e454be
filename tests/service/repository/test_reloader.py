"""Reload by polling: what appears is served, what is broken never replaces what is good, what goes is drained."""

import asyncio
import shutil
import socket
import threading
import time
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bundle import Bundle
from service.inference.providers import CPU, Provider
from service.repository.model import Model, model_loader
from service.repository.reloader import Reloader
from service.repository.served import Repository
from service.settings import Settings
from service.telemetry.metrics import Metrics
from tests.service.conftest import Live, Serve
from tests.service.support.answers import problem
from tests.service.support.exposition import samples, value
from tests.service.support.pictures import picture
from tests.support.tiny_bundle import make_tiny_bundle
from tests.support.waiting import until

POLL = {"reload": "poll", "reload_seconds": 0.03}


@pytest.fixture
def models(tmp_path: Path) -> Path:
    make_tiny_bundle(tmp_path / "models")
    return tmp_path / "models"


@pytest.fixture
def polled(models: Path, serve: Serve) -> Iterator[Live]:
    """A service of `models` that polls them."""
    with serve(models, **POLL) as live:
        yield live


def export(models: Path, **bundle: Any) -> Path:
    """A bundle that appears in one step, as a whole."""
    made = make_tiny_bundle(models.parent / "elsewhere", **bundle)
    place = models / made.parent.name / made.name
    place.parent.mkdir(exist_ok=True)
    if place.exists():
        place.rename(models.parent / "old")
    made.rename(place)
    return place


def versions(live: Live, model: str = "tiny") -> list[str]:
    answer = live.client.get(f"/v1/models/{model}")
    return answer.json()["versions"] if answer.status_code == 200 else []


def refused(live: Live) -> dict[str, str]:
    return {each["path"]: each["reason"] for each in live.client.get("/v1/models").json()["refused"]}


def damage(folder: Path) -> None:
    data = bytearray((folder / "model.onnx").read_bytes())
    data[len(data) // 2] ^= 1
    (folder / "model.onnx").write_bytes(data)


def test_a_new_version_and_a_new_model_are_served_without_a_restart(models: Path, polled: Live) -> None:
    assert polled.score(picture()).json()["version"] == "1"
    export(models, version="2")
    export(models, name="other")
    until(lambda: versions(polled) == ["1", "2"] and versions(polled, "other") == ["1"])
    assert polled.score(picture()).json()["version"] == "2"
    assert polled.client.post("/v1/models/tiny/versions/1/score", content=picture()).json()["version"] == "1"
    assert value(polled.client, "ood_model_info", model="tiny", version="2", provider="CPUExecutionProvider") == 1
    assert value(polled.client, "ood_queue_capacity", model="tiny") == 1024


def test_new_content_replaces_the_same_version_and_its_counters_go_on(models: Path, polled: Live) -> None:
    polled.score(picture())
    export(models, labels=("rouge", "vert", "bleu"), n_calibration=300, default_score="energy")
    until(lambda: polled.client.get("/v1/models/tiny").json()["labels"][0] == "rouge")
    until(lambda: value(polled.client, "ood_reloads_total", model="tiny", result="retired") == 1)
    assert value(polled.client, "ood_queue_capacity", model="tiny") == 1024
    polled.score(picture(), params={"scores": "msp"})
    labels = {"model": "tiny", "version": "1"}
    assert value(polled.client, "ood_inputs_total", **labels) == 2
    assert value(polled.client, "ood_calibration_inputs", **labels, score="msp") == 300
    drift = [dict(key)["score"] for name, key in samples(polled.client) if name == "ood_drift_evidence"]
    assert drift == ["energy"]


def test_a_broken_bundle_never_replaces_a_good_one_and_is_tried_again_when_it_changes(
    models: Path, polled: Live
) -> None:
    place = models / "tiny" / "1"
    before = polled.score(picture()).json()
    shutil.copytree(place, models.parent / "good")
    damage(place)
    until(lambda: "tiny/1" in refused(polled))
    assert "its SHA-256 is" in refused(polled)["tiny/1"]
    assert polled.score(picture()).json() == before
    count = value(polled.client, "ood_reloads_total", model="tiny", result="refused")
    damage(export(models, version="2"))
    until(lambda: "tiny/2" in refused(polled))
    assert versions(polled) == ["1"]
    assert value(polled.client, "ood_refused_bundles") == 2
    # Once for each state of its files: not once for each look.
    assert value(polled.client, "ood_reloads_total", model="tiny", result="refused") - count <= 2
    shutil.copytree(models.parent / "good", place, dirs_exist_ok=True)
    damage(models / "tiny" / "2")
    until(lambda: versions(polled) == ["1", "2"] and not refused(polled))


def test_what_was_only_touched_or_copied_is_not_loaded_again(models: Path, polled: Live) -> None:
    model = polled.app.state.repository.get("tiny")
    loaded = value(polled.client, "ood_reloads_total", model="tiny", result="loaded")
    shutil.copytree(models / "tiny" / "1", models / ".copy")
    (models / "tiny" / "1").rename(models / ".old")
    (models / ".copy").rename(models / "tiny" / "1")
    (models / "tiny" / "1" / "model.onnx").touch()
    (models / "tiny" / "1" / "notes.txt").write_text("good")
    export(models, version="2")
    until(lambda: versions(polled) == ["1", "2"])
    assert polled.app.state.repository.get("tiny", "1") is model
    assert value(polled.client, "ood_reloads_total", model="tiny", result="loaded") == loaded + 1


def test_what_is_still_written_to_is_left_alone(models: Path, polled: Live) -> None:
    place = export(models, version="2")
    for number in range(40):
        (place / "part").write_text("x" * number)
        assert versions(polled) == ["1"]
        time.sleep(POLL["reload_seconds"] / 3)
    (place / "part").unlink()
    until(lambda: versions(polled) == ["1", "2"])


def test_what_changed_while_it_was_loaded_is_not_served(models: Path) -> None:
    async def scenario() -> tuple[list[str], list[str], list[str]]:
        repository, metrics = Repository(models), Metrics()
        reloader = Reloader(repository, metrics)
        load = model_loader(Settings(threads=1), Provider(CPU, required=False), metrics, asyncio.get_running_loop())

        def load_meanwhile(bundle: Bundle) -> Model:
            if bundle.manifest.version == "2" and not (bundle.path / "later").exists():
                (bundle.path / "later").touch()
            return load(bundle)

        export(models, version="2")
        await reloader.start(load_meanwhile)
        first = repository.versions("tiny")
        reasons = [each.reason for each in repository.refused]
        await reloader.load("tiny")
        second = repository.versions("tiny")
        await reloader.close()
        return first, reasons, second

    first, reasons, second = asyncio.run(scenario())
    assert (first, second) == (["1"], ["1", "2"])
    assert reasons[0].startswith("its files changed while it was loaded")


def test_a_folder_without_a_manifest_is_no_bundle_yet(models: Path, polled: Live) -> None:
    made = make_tiny_bundle(models.parent / "elsewhere", version="2")
    shutil.copytree(made, models / "tiny" / "2", ignore=shutil.ignore_patterns("manifest.json"))
    export(models, version="3")
    until(lambda: versions(polled) == ["1", "3"])
    assert refused(polled) == {}
    shutil.copy(made / "manifest.json", models / "tiny" / "2")
    until(lambda: versions(polled) == ["1", "2", "3"])


def test_a_version_that_goes_takes_its_series_and_its_memory_with_it(models: Path, polled: Live) -> None:
    export(models, version="7")
    until(lambda: versions(polled) == ["1", "7"])
    polled.score(picture())
    model = polled.app.state.repository.get("tiny", "7")
    parts = [weakref.ref(part) for part in (model.batcher, model.scorer, model.metrics)]
    del model
    shutil.rmtree(models / "tiny" / "7")
    until(lambda: versions(polled) == ["1"])
    until(lambda: not any(("version", "7") in labels for _, labels in samples(polled.client)))
    assert value(polled.client, "ood_queue_capacity", model="tiny") == 1024
    # At once, not when the collector of cycles comes by: a session is large.
    assert [part() for part in parts] == [None] * 3
    assert "engine-tiny-7-0" not in {thread.name for thread in threading.enumerate()}
    assert polled.score(picture()).json()["version"] == "1"


def test_a_model_that_goes_takes_all_its_series_with_it(models: Path, polled: Live) -> None:
    place = export(models, name="other")
    until(lambda: versions(polled, "other") == ["1"])
    polled.score(picture(), model="other")
    shutil.rmtree(place.parent)
    until(lambda: not versions(polled, "other"))
    problem(polled.score(picture(), model="other"), 404, "unknown-model")
    # What became of the model stays told.
    told = {"ood_reloads_total", "ood_reloads_created"}
    until(lambda: {name for name, labels in samples(polled.client) if ("model", "other") in labels} <= told)


def test_the_last_good_version_stays_while_what_is_to_replace_it_is_broken(models: Path, polled: Live) -> None:
    damage(export(models, version="2"))
    until(lambda: "tiny/2" in refused(polled))
    shutil.rmtree(models / "tiny" / "1")
    export(models, name="later")
    until(lambda: versions(polled, "later") == ["1"])
    assert polled.score(picture()).json()["version"] == "1"
    damage(models / "tiny" / "2")
    until(lambda: versions(polled) == ["2"])


def test_a_repository_that_is_gone_or_empty_takes_nothing_away(models: Path, polled: Live) -> None:
    models.rename(models.parent / "unmounted")
    for _ in range(2):
        # Longer than two looks.
        with pytest.raises(AssertionError, match="did not become true"):
            until(lambda: polled.score(picture()).status_code != 200, seconds=0.3)
        models.mkdir(exist_ok=True)
    models.rmdir()
    (models.parent / "unmounted").rename(models)
    export(models, version="2")
    until(lambda: versions(polled) == ["1", "2"])


def test_a_request_that_has_a_model_is_answered_by_it_after_it_went(models: Path, polled: Live) -> None:
    export(models, version="7")
    until(lambda: versions(polled) == ["1", "7"])
    body = picture()
    with socket.create_connection(("127.0.0.1", polled.port), timeout=20) as slow:
        head = f"POST /v1/models/tiny/score HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\nConnection: close\r\n"
        slow.sendall(head.encode() + b"Content-Type: image/png\r\n\r\n" + body[:10])
        shutil.rmtree(models / "tiny" / "7")
        until(lambda: versions(polled) == ["1"])
        assert "engine-tiny-7-0" in {thread.name for thread in threading.enumerate()}
        slow.sendall(body[10:])
        answer = b"".join(iter(lambda: slow.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b'"version":"7"' in answer
    until(lambda: "engine-tiny-7-0" not in {thread.name for thread in threading.enumerate()})


def test_the_service_ends_while_a_replaced_model_is_still_in_use(models: Path, serve: Serve) -> None:
    before = set(threading.enumerate())
    with serve(models, **POLL, grace_seconds=0) as live:
        live.app.state.repository.get("tiny").references.__enter__()
        export(models, labels=("rouge", "vert", "bleu"))
        until(lambda: live.score(picture()).json()["results"][0]["prediction"]["label"] == "rouge")
    assert set(threading.enumerate()) <= before


def test_without_reload_the_repository_is_read_once(models: Path, serve: Serve) -> None:
    with serve(models) as live:
        export(models, version="2")
        with pytest.raises(AssertionError, match="did not become true"):
            until(lambda: versions(live) != ["1"], seconds=0.3)
