"""A hundred reloads of a real process under load: no request fails, nothing is left over."""

import shutil
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from service.auth.api_keys import digest_of
from tests.service.support.exposition import value
from tests.service.support.pictures import picture
from tests.support.tiny_bundle import make_tiny_bundle
from tests.support.waiting import until
from tests.system.conftest import Service, Start

PNG = {"content-type": "image/png"}
ADMIN = {"x-api-key": "ood_admin-key"}
RELOADS = 100
CLIENTS = 3


def replace_by(link: Path, target: Path) -> None:
    """Point the version `link` at another folder, in one step."""
    fresh = link.parent / ".next"
    fresh.symlink_to(target)
    fresh.replace(link)


@contextmanager
def load(address: str, tell: Callable[[Any], str]) -> Iterator[Counter[int | str]]:
    """Clients that score one picture after the other; yields how often what, by `tell`, or which failure came back."""
    outcomes: Counter[int | str] = Counter()
    ended = threading.Event()

    def client() -> None:
        with httpx.Client(base_url=address, timeout=30) as connection:
            while not ended.is_set():
                try:
                    answer = connection.post("/v1/models/tiny/score", content=picture(), headers=PNG)
                except httpx.TransportError as error:
                    outcomes[type(error).__name__] += 1
                    continue
                outcomes[tell(answer.json()) if answer.status_code == 200 else answer.status_code] += 1

    threads = [threading.Thread(target=client) for _ in range(CLIENTS)]
    for thread in threads:
        thread.start()
    try:
        yield outcomes
    finally:
        ended.set()
        for thread in threads:
            thread.join()


def footprint(service: Service, retired: int) -> tuple[int, int]:
    """The process's threads, and the kilobytes that it has in memory, once so many models are closed."""
    until(lambda: value(service.client, "ood_reloads_total", model="tiny", result="retired") >= retired)
    status = Path(f"/proc/{service.process.pid}/status").read_text()
    fields = dict(line.split(":", 1) for line in status.splitlines())
    return int(fields["Threads"]), int(fields["VmRSS"].split()[0])


def test_a_hundred_reloads_under_load_fail_no_request_and_leave_nothing_behind(tmp_path: Path, start: Start) -> None:
    stored = [
        # Calibrations of a size that would show if they stayed.
        make_tiny_bundle(tmp_path / "first", n_calibration=10_000),
        make_tiny_bundle(tmp_path / "second", n_calibration=10_000, labels=("rouge", "vert", "bleu")),
    ]
    link = tmp_path / "models" / "tiny" / "1"
    link.parent.mkdir(parents=True)
    link.symlink_to(stored[0])
    (tmp_path / "keys").write_text(f"root sha256:{digest_of(ADMIN['x-api-key'])}\n")
    service = start(
        tmp_path / "models", "--reload", "admin", "--admin-keys-file", str(tmp_path / "keys"), "--no-access-log"
    )

    def reload(number: int) -> None:
        replace_by(link, stored[number % 2])
        answer = service.client.post("/v2/repository/models/tiny/load", headers=ADMIN)
        assert (answer.status_code, answer.json()["versions"]) == (200, ["1"])

    with load(service.address, lambda answer: answer["results"][0]["prediction"]["label"]) as outcomes:
        for number in range(1, 11):
            reload(number)
        threads, memory = footprint(service, 10)
        for number in range(11, RELOADS + 1):
            reload(number)
        before = outcomes["red"]
        until(lambda: outcomes["red"] > before + 20)
    assert outcomes.keys() == {"red", "rouge"}
    assert min(outcomes.values()) > RELOADS / 2
    threads_after, memory_after = footprint(service, RELOADS)
    assert threads_after == threads
    # A model takes more than half a megabyte.
    assert memory_after - memory < 25_000
    assert value(service.client, "ood_reloads_total", model="tiny", result="loaded") == RELOADS + 1
    assert value(service.client, "ood_queue_depth", model="tiny") == 0
    assert value(service.client, "ood_queue_capacity", model="tiny") == 1024
    assert service.end() == 0


def test_versions_that_come_and_go_under_load_fail_no_request(tmp_path: Path, start: Start) -> None:
    models = tmp_path / "models"
    make_tiny_bundle(models)
    service = start(models, "--reload", "poll", "--reload-seconds", "0.05", "--no-access-log")
    versions = [str(number) for number in range(2, 13)]
    with load(service.address, lambda answer: str(answer["version"])) as outcomes:
        until(lambda: outcomes["1"] > 5)
        for version in versions:
            make_tiny_bundle(tmp_path / "made", version=version).rename(models / "tiny" / version)
            # Both go at once: the old one when the new one is not served yet.
            shutil.rmtree(models / "tiny" / str(int(version) - 1))
            until(lambda version=version: outcomes[version] > 5)
    assert outcomes.keys() == {"1", *versions}
    until(lambda: service.client.get("/v1/models/tiny").json()["versions"] == [versions[-1]])
    assert "Traceback" not in "".join(service.log)
