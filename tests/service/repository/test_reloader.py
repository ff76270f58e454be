"""Reloading: new bundles are served, broken ones never replace good ones, removed versions finish their requests."""

import asyncio
import gc
import os
import shutil
import socket
import threading
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from bundle import Bundle
from service.errors import UnknownModel
from service.inference.engine import EngineError
from service.inference.engine_health import EngineHealth
from service.inference.local_engines import LocalEngines
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
    """Create a bundle that appears in the repository in one step."""
    made = make_tiny_bundle(models.parent / "elsewhere", **bundle)
    folder = models / made.parent.name / made.name
    folder.parent.mkdir(exist_ok=True)
    if folder.exists():
        folder.rename(models.parent / "old")
    made.rename(folder)
    return folder


def versions(live: Live, model: str = "tiny") -> list[str]:
    answer = live.client.get(f"/v1/models/{model}")
    return answer.json()["versions"] if answer.status_code == 200 else []


def refused(live: Live) -> dict[str, str]:
    return {entry["path"]: entry["reason"] for entry in live.client.get("/v1/models").json()["refused"]}


def damage(folder: Path) -> None:
    data = bytearray((folder / "model.onnx").read_bytes())
    data[len(data) // 2] ^= 1
    (folder / "model.onnx").write_bytes(data)


class Reloading:
    """A started reloader without a service around it, which polls when the test says so."""

    def __init__(self, models: Path) -> None:
        self.repository, metrics = Repository(models), Metrics()
        self.reloader = Reloader(self.repository, metrics)
        provider = Provider(CPU, required=False)
        self.health = EngineHealth(stall_seconds=30, exit_seconds=0)
        loop = asyncio.get_running_loop()
        settings = Settings(threads=1)
        self.load_model = model_loader(settings, LocalEngines(settings, provider, loop, self.health), metrics)

    def versions(self) -> list[str]:
        return self.repository.versions("tiny")

    def reasons(self) -> list[str]:
        return [refused.reason for refused in self.repository.refused]


@asynccontextmanager
async def started(models: Path, before_load: Callable[[Bundle], None] = lambda _: None) -> AsyncIterator[Reloading]:
    """Start a reloader that calls `before_load` before it loads a bundle."""
    async with asyncio.timeout(60):
        reloading = Reloading(models)

        def load_model(bundle: Bundle) -> Model:
            before_load(bundle)
            return reloading.load_model(bundle)

        await reloading.reloader.start(load_model)
        try:
            yield reloading
        finally:
            await reloading.reloader.close()


def test_a_new_version_and_a_new_model_are_served_without_a_restart(models: Path, polled: Live) -> None:
    assert polled.score(picture()).json()["version"] == "1"
    export(models, version="2")
    export(models, name="other")
    until(lambda: versions(polled) == ["1", "2"] and versions(polled, "other") == ["1"])
    assert polled.score(picture()).json()["version"] == "2"
    assert polled.client.post("/v1/models/tiny/versions/1/score", content=picture()).json()["version"] == "1"
    assert value(polled.client, "ood_model_info", model="tiny", version="2", provider="CPUExecutionProvider") == 1
    assert value(polled.client, "ood_queue_capacity", model="tiny") == 1024


def test_new_content_replaces_the_same_version_and_its_counters_continue(models: Path, polled: Live) -> None:
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
    folder = models / "tiny" / "1"
    before = polled.score(picture()).json()
    shutil.copytree(folder, models.parent / "good")
    damage(folder)
    until(lambda: "tiny/1" in refused(polled))
    assert "its SHA-256 is" in refused(polled)["tiny/1"]
    assert polled.score(picture()).json() == before
    count = value(polled.client, "ood_reloads_total", model="tiny", result="refused")
    damage(export(models, version="2"))
    until(lambda: "tiny/2" in refused(polled))
    assert versions(polled) == ["1"]
    assert value(polled.client, "ood_refused_bundles") == 2
    # Once for each state of its files, not once for each scan.
    assert value(polled.client, "ood_reloads_total", model="tiny", result="refused") - count <= 2
    shutil.copytree(models.parent / "good", folder, dirs_exist_ok=True)
    damage(models / "tiny" / "2")
    until(lambda: versions(polled) == ["1", "2"] and not refused(polled))


def test_a_folder_whose_name_is_not_utf8_is_refused_and_named_in_the_metrics(models: Path, serve: Serve) -> None:
    for name in (b"\xff/1/manifest.json", b"caf\xe9/manifest.json"):
        path = Path(os.fsdecode(os.fsencode(models) + b"/" + name))
        path.parent.mkdir(parents=True)
        path.write_text("{}")
    with serve(models, **POLL) as live:
        assert set(refused(live)) == {"\\xff/1", "caf\\xe9"}
        text = live.client.get("/metrics").text
        assert 'ood_reloads_total{model="\\\\xff",result="refused"} 1.0' in text
        assert versions(live) == ["1"]


def test_a_bundle_that_was_only_touched_or_copied_is_not_loaded_again(models: Path, polled: Live) -> None:
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


def test_a_bundle_that_is_still_written_is_left_alone(models: Path) -> None:
    async def scenario() -> None:
        async with started(models) as reloading:
            part = export(models, version="2") / "part"
            for size in range(4):
                part.write_text("x" * size)
                await reloading.reloader.poll_once()
                assert reloading.versions() == ["1"]
            await reloading.reloader.poll_once()
            assert reloading.versions() == ["1", "2"]

    asyncio.run(scenario())


def test_a_bundle_that_changes_while_it_is_loaded_is_refused_and_loaded_again(models: Path) -> None:
    def write_once(bundle: Bundle) -> None:
        if bundle.manifest.version == "2" and not (bundle.path / "later").exists():
            (bundle.path / "later").touch()

    async def scenario() -> None:
        export(models, version="2")
        async with started(models, write_once) as reloading:
            assert reloading.versions() == ["1"]
            assert reloading.reasons()[0].startswith("its files changed while it was loaded")
            await reloading.reloader.poll_once()
            await reloading.reloader.poll_once()
            assert (reloading.versions(), reloading.reasons()) == (["1", "2"], [])

    asyncio.run(scenario())


def test_a_refused_bundle_is_tried_again_on_request_though_its_files_are_unchanged(models: Path) -> None:
    attempts: list[str] = []

    def fail_once(bundle: Bundle) -> None:
        attempts.append(bundle.manifest.version)
        if attempts == ["1", "2"]:
            raise EngineError(bundle, "out of memory", "Add some")

    async def scenario() -> None:
        export(models, version="2")
        async with started(models, fail_once) as reloading:
            assert (reloading.versions(), reloading.reasons()) == (["1"], ["model.onnx: out of memory. Add some."])
            for _ in range(3):
                await reloading.reloader.poll_once()
            assert attempts == ["1", "2"], "polling waits until the files change"
            assert await reloading.reloader.load("tiny") == []
            assert (reloading.versions(), reloading.reasons()) == (["1", "2"], [])

    asyncio.run(scenario())


def test_an_unloaded_model_stays_away_until_it_is_loaded_again(models: Path) -> None:
    async def scenario() -> None:
        export(models, name="other")
        async with started(models) as reloading:
            await reloading.reloader.unload("tiny")
            export(models, version="2")
            for _ in range(2):
                await reloading.reloader.poll_once()
            assert reloading.repository.names == ["other"]
            assert reloading.reloader.unloaded() == ["tiny/1", "tiny/2"]
            assert await reloading.reloader.load("tiny") == []
            assert reloading.versions() == ["1", "2"]
            assert reloading.reloader.unloaded() == []
            with pytest.raises(UnknownModel):
                await reloading.reloader.load("none")

    asyncio.run(scenario())


def test_a_folder_without_a_manifest_waits_until_the_manifest_is_there(models: Path, polled: Live) -> None:
    made = make_tiny_bundle(models.parent / "elsewhere", version="2")
    shutil.copytree(made, models / "tiny" / "2", ignore=shutil.ignore_patterns("manifest.json"))
    export(models, version="3")
    until(lambda: versions(polled) == ["1", "3"])
    assert refused(polled) == {}
    shutil.copy(made / "manifest.json", models / "tiny" / "2")
    until(lambda: versions(polled) == ["1", "2", "3"])


def test_a_removed_version_frees_its_series_threads_and_memory(models: Path, polled: Live) -> None:
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
    # By reference counts alone, not by the garbage collector: a session is large. The check of engines keeps its record
    # of an engine until its next round.
    gc.disable()
    try:
        until(lambda: [part() for part in parts] == [None] * 3)
    finally:
        gc.enable()
    assert "engine-tiny-7-0" not in {thread.name for thread in threading.enumerate()}
    assert polled.score(picture()).json()["version"] == "1"


def test_a_removed_model_frees_all_its_series(models: Path, polled: Live) -> None:
    folder = export(models, name="other")
    until(lambda: versions(polled, "other") == ["1"])
    polled.score(picture(), model="other")
    shutil.rmtree(folder.parent)
    until(lambda: not versions(polled, "other"))
    problem(polled.score(picture(), model="other"), 404, "unknown-model")
    kept = {"ood_reloads_total", "ood_reloads_created"}
    until(lambda: {name for name, labels in samples(polled.client) if ("model", "other") in labels} <= kept)


def test_the_last_good_version_stays_while_its_replacement_is_broken(models: Path, polled: Live) -> None:
    damage(export(models, version="2"))
    until(lambda: "tiny/2" in refused(polled))
    shutil.rmtree(models / "tiny" / "1")
    export(models, name="later")
    until(lambda: versions(polled, "later") == ["1"])
    assert polled.score(picture()).json()["version"] == "1"
    damage(models / "tiny" / "2")
    until(lambda: versions(polled) == ["2"])


@pytest.mark.parametrize("rule", ["latest", "3"])
def test_the_answering_version_stays_if_all_served_ones_vanish_beside_a_broken_one(models: Path, rule: str) -> None:
    async def scenario() -> None:
        (models / "traffic.yaml").write_text(f"tiny: {{serve: '{rule}'}}")
        for version in ("3", "5"):
            export(models, version=version)
        damage(export(models, version="7"))
        answering = {"latest": "5", "3": "3"}[rule]
        async with started(models) as reloading:
            assert reloading.versions() == ["1", "3", "5"]
            for version in ("1", "3", "5"):
                shutil.rmtree(models / "tiny" / version)
            for _ in range(4):
                await reloading.reloader.poll_once()
            assert reloading.versions() == [answering]
            assert reloading.repository.get("tiny").version == answering
            # The damage is repaired, and the repaired version replaces the last good one.
            damage(models / "tiny" / "7")
            for _ in range(2):
                await reloading.reloader.poll_once()
            assert (reloading.versions(), reloading.repository.get("tiny").version) == (["7"], "7")

    asyncio.run(scenario())


def test_files_replaced_in_place_with_their_size_and_time_of_modification_are_noticed(models: Path) -> None:
    def write(data: bytes) -> None:
        file = models / "tiny" / "1" / "manifest.json"
        before = file.stat()
        file.write_bytes(data)
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))

    async def scenario() -> None:
        async with started(models) as reloading:
            good = (models / "tiny" / "1" / "manifest.json").read_bytes()
            for data, refused in ((good[:-2] + b"]\n", 1), (good, 0)):
                write(data)
                for _ in range(2):
                    await reloading.reloader.poll_once()
                assert (reloading.versions(), len(reloading.reasons())) == (["1"], refused)

    asyncio.run(scenario())


def test_a_missing_or_empty_repository_removes_no_model_and_is_logged_once(models: Path) -> None:
    unmounted = models.parent / "unmounted"

    async def scenario() -> None:
        async with started(models) as reloading:
            models.rename(unmounted)
            for reason in ("is not a folder", "is empty"):
                with capture_logs() as lines:
                    for _ in range(3):
                        await reloading.reloader.poll_once()
                        assert reloading.versions() == ["1"]
                assert [line["event"] for line in lines] == ["repository unavailable"]
                assert reason in lines[0]["reason"]
                models.mkdir(exist_ok=True)
            models.rmdir()
            unmounted.rename(models)
            export(models, version="2")
            for _ in range(2):
                await reloading.reloader.poll_once()
            assert reloading.versions() == ["1", "2"]

    asyncio.run(scenario())


def test_a_request_is_answered_by_its_version_after_that_is_removed(models: Path, polled: Live) -> None:
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
    # The threads end on their own; on a busy machine this takes a moment.
    until(lambda: set(threading.enumerate()) <= before)


@pytest.mark.parametrize(("reload", "intervals"), [("off", []), ("poll", [0.03])])
def test_the_repository_is_polled_only_if_the_setting_says_so(
    models: Path, serve: Serve, monkeypatch: pytest.MonkeyPatch, reload: str, intervals: list[float]
) -> None:
    polled: list[float] = []
    monkeypatch.setattr(Reloader, "poll", lambda _, seconds: polled.append(seconds))
    with serve(models, reload=reload, reload_seconds=0.03) as live:
        assert versions(live) == ["1"]
    assert polled == intervals
