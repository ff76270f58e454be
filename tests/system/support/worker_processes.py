"""The processes of a service with several workers, or with front ends and an engine process."""

import os
import signal

import httpx
import psutil

from tests.service.support.exposition import value
from tests.system.support.accepted_requests import assert_every_accepted_request_was_answered
from tests.system.support.scoring_clients import ScoringClients
from tests.system.support.service_process import TIMEOUT_SECONDS, ServiceProcess, on_new_connection

READY = "ood_workers_ready"


def processes(service: ServiceProcess, module: str) -> list[psutil.Process]:
    """The children that run `service.server.<module>`."""
    children = psutil.Process(service.process.pid).children()
    return [child for child in children if f"service.server.{module}" in child.cmdline()]


def engine_process(service: ServiceProcess) -> psutil.Process:
    (process,) = processes(service, "engine_process")
    return process


def front_ends(service: ServiceProcess) -> list[psutil.Process]:
    return processes(service, "worker")


def ready(client: httpx.Client) -> bool:
    return client.get("/readyz").status_code == 200


def all_ready(service: ServiceProcess) -> bool:
    """Whether both front ends run and have their engine."""
    try:
        return all(
            on_new_connection(service, lambda client: value(client, READY) == 2 and ready(client)) for _ in range(4)
        )
    except httpx.TransportError:
        return False


def assert_service_ends_without_supervisor(service: ServiceProcess) -> None:
    """Kill the supervisor under load: every accepted request is answered, and every process ends."""
    clients = ScoringClients(service.address, 4, reconnect=False)
    children = psutil.Process(service.process.pid).children()
    os.kill(service.process.pid, signal.SIGKILL)
    clients.join()
    service.wait()
    assert_every_accepted_request_was_answered(service, clients)
    _, alive = psutil.wait_procs(children, timeout=TIMEOUT_SECONDS)
    assert alive == []
