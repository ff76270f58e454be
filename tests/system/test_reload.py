"""Reloads of a real process under load: no request fails, and no resources leak."""

import shutil
from pathlib import Path

import httpx

from service.auth.api_keys import digest_of
from tests.service.support.exposition import value
from tests.support.tiny_bundle import make_tiny_bundle
from tests.support.waiting import until
from tests.system.support.scoring_clients import ScoringClients, score
from tests.system.support.service_process import ServiceProcess, Start

ADMIN = {"x-api-key": "ood_admin-key"}
WARM_UP_RELOADS = 10
RELOADS = 100
CLIENTS = 3


def replace_link(link: Path, target: Path) -> None:
    """Make the version `link` point to another folder in one step."""
    new_link = link.parent / ".next"
    new_link.symlink_to(target)
    new_link.replace(link)


def threads_and_kilobytes(service: ServiceProcess, retired: int) -> tuple[int, int]:
    """The number of threads and the resident memory of the process, once `retired` models are closed."""
    until(lambda: value(service.client, "ood_reloads_total", model="tiny", result="retired") >= retired)
    lines = Path(f"/proc/{service.process.pid}/status").read_text().splitlines()
    status = dict(line.split(":", 1) for line in lines)
    return int(status["Threads"]), int(status["VmRSS"].split()[0])


def predicted_label(response: httpx.Response) -> object:
    return response.json()["results"][0]["prediction"]["label"] if response.status_code == 200 else response.status_code


def served_version(response: httpx.Response) -> object:
    return response.json()["version"] if response.status_code == 200 else response.status_code


def test_a_hundred_reloads_under_load_fail_no_request_and_leak_no_resources(tmp_path: Path, start: Start) -> None:
    bundles = [
        # Large calibration sets, so that models that are not freed show in the memory.
        make_tiny_bundle(tmp_path / "first", n_calibration=10_000),
        make_tiny_bundle(tmp_path / "second", n_calibration=10_000, labels=("rouge", "vert", "bleu")),
    ]
    link = tmp_path / "models" / "tiny" / "1"
    link.parent.mkdir(parents=True)
    link.symlink_to(bundles[0])
    (tmp_path / "keys").write_text(f"root sha256:{digest_of(ADMIN['x-api-key'])}\n")
    service = start(
        tmp_path / "models", "--reload", "admin", "--admin-keys-file", str(tmp_path / "keys"), "--no-access-log"
    )

    with ScoringClients(service.address, CLIENTS, outcome=predicted_label) as clients:

        def reload(number: int) -> None:
            label = ("red", "rouge")[number % 2]
            before = clients.outcomes[label]
            replace_link(link, bundles[number % 2])
            response = service.client.post("/v2/repository/models/tiny/load", headers=ADMIN)
            assert (response.status_code, response.json()["versions"]) == (200, ["1"])
            until(lambda: clients.outcomes[label] > before)

        for number in range(1, WARM_UP_RELOADS + 1):
            reload(number)
        threads, kilobytes = threads_and_kilobytes(service, WARM_UP_RELOADS)
        for number in range(WARM_UP_RELOADS + 1, RELOADS + 1):
            reload(number)
    assert clients.outcomes.keys() == {"red", "rouge"}
    threads_after, kilobytes_after = threads_and_kilobytes(service, RELOADS)
    assert threads_after == threads
    # A model takes more than half a megabyte.
    assert kilobytes_after - kilobytes < 25_000
    assert value(service.client, "ood_reloads_total", model="tiny", result="loaded") == RELOADS + 1
    assert value(service.client, "ood_queue_depth", model="tiny") == 0
    assert value(service.client, "ood_queue_capacity", model="tiny") == 1024
    assert service.end() == 0


def test_versions_added_and_removed_under_load_fail_no_request(tmp_path: Path, start: Start) -> None:
    models = tmp_path / "models"
    make_tiny_bundle(models)
    service = start(models, "--reload", "poll", "--reload-seconds", "0.05", "--no-access-log")
    versions = [str(number) for number in range(2, 13)]
    new_bundles = {version: make_tiny_bundle(tmp_path / "new", version=version) for version in versions}
    with ScoringClients(service.address, CLIENTS, outcome=served_version) as clients:
        for version in versions:
            new_bundles[version].rename(models / "tiny" / version)
            # The old version is removed before the new one is served.
            shutil.rmtree(models / "tiny" / str(int(version) - 1))
            until(lambda version=version: clients.outcomes[version] > 5)
    assert clients.outcomes.keys() == {"1", *versions}
    until(lambda: service.client.get("/v1/models/tiny").json()["versions"] == [versions[-1]])
    assert "Traceback" not in "".join(service.log)


def refusal(service: ServiceProcess) -> str:
    """The reason why the only version is refused; empty if it is not."""
    refused = service.client.get("/v1/models").json()["refused"]
    return refused[0]["reason"] if refused else ""


def test_a_version_that_is_broken_and_repaired_in_place_under_load_fails_no_request(
    tmp_path: Path, start: Start
) -> None:
    models = tmp_path / "models"
    folder = make_tiny_bundle(models)
    good = shutil.copytree(folder, tmp_path / "good")
    other = make_tiny_bundle(tmp_path / "other", labels=("rouge", "vert", "bleu"), n_calibration=300)
    manifest, model = folder / "manifest.json", folder / "model.onnx"
    service = start(models, "--reload", "poll", "--reload-seconds", "0.05", "--no-access-log")

    def served(clients: ScoringClients, label: str) -> None:
        """Wait for twenty answers, all by the version with this label."""
        until(lambda: not refusal(service))
        until(lambda: predicted_label(score(service.client)) == label)
        before = clients.outcomes.copy()
        clients.until_more(20)
        # Each client may have had an earlier answer on its way.
        assert clients.outcomes[label] - before[label] >= 20 - CLIENTS

    with ScoringClients(service.address, CLIENTS, outcome=predicted_label) as clients:
        for file, content, reason in (
            (model, model.read_bytes()[:100], "its SHA-256 is"),
            (model, b"", "its SHA-256 is"),
            (manifest, b'{"schema_version": 1, "na', "manifest.json"),
            (manifest, (other / "manifest.json").read_bytes(), "its SHA-256 is"),
        ):
            file.write_bytes(content)
            until(lambda reason=reason: reason in refusal(service))
            clients.until_more(20)
            assert clients.outcomes.keys() == {"red"}
            shutil.copyfile(good / file.name, file)
            served(clients, "red")
        for source, label in ((other, "rouge"), (good, "red")):
            # File by file, the manifest first: a state in between is refused, or not seen by any scan.
            for name in ("manifest.json", *(path.name for path in source.iterdir() if path.is_file())):
                shutil.copyfile(source / name, folder / name)
            served(clients, label)
    assert not clients.failures
    assert clients.outcomes.keys() == {"red", "rouge"}
    assert value(service.client, "ood_reloads_total", model="tiny", result="loaded") == 3
    assert "Traceback" not in "".join(service.log)
    assert service.end() == 0
