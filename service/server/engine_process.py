"""The engine process: computes for all workers. `service.server.supervisor` starts it."""

import asyncio
import json
import logging
import os
import resource
import signal
import socket
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import prometheus_client
import structlog
import uvloop
from prometheus_client import CollectorRegistry, ProcessCollector

from service.inference.engine_health import EngineHealth
from service.inference.local_engines import LocalEngines
from service.inference.remote.server import EngineServer
from service.server.server import GIL_SWITCH_SECONDS, STALLED_EXIT_CODE
from service.settings import Settings
from service.telemetry.logs import configure_logs
from service.telemetry.worker_metrics import WorkerMetrics
from service.worker_group import WorkerGroup

# The process ends this long after the grace period at the latest, like the workers.
_EXIT_SECONDS = 5.0
_IDLE_CHECK_SECONDS = 0.05

log = structlog.stdlib.get_logger(__name__)


def main(argv: Sequence[str]) -> int:
    """Compute for workers until the supervisor has ended and no worker is left.

    The supervisor sends one line of JSON over the control socket: `settings`, `folder` (of the worker group) and
    `listener`, the file descriptor of the socket that workers connect to.

    Args:
        argv: The file descriptor of the control socket.
    """
    # The supervisor decides when this process ends: workers need it until they are drained, also if a program such as
    # systemd signals every process.
    for sig in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
        signal.signal(sig, signal.SIG_IGN)
    prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]  # the library's gap
    control = socket.socket(fileno=int(argv[0]))
    task = json.loads(control.makefile().readline())
    settings = Settings(**task["settings"])
    configure_logs(settings, engine_process=0)
    sys.setswitchinterval(GIL_SWITCH_SECONDS)
    _, hard_limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard_limit, hard_limit))
    worker_group = WorkerGroup(0, settings.workers, Path(task["folder"]), engine_process=True)
    listener = socket.socket(fileno=task["listener"])
    uvloop.run(_serve(settings, worker_group, listener, control))
    # The interpreter's end would free a session that may still be computing.
    logging.shutdown()
    os._exit(0)


async def _serve(
    settings: Settings, worker_group: WorkerGroup, listener: socket.socket, control: socket.socket
) -> None:
    loop = asyncio.get_running_loop()
    health = EngineHealth(settings.stall_seconds, settings.stall_exit_seconds)
    # At once: workers answer the requests that this process holds, and its successor computes the next ones.
    health.on_dead = lambda: os._exit(STALLED_EXIT_CODE)
    health.start()
    # The workers report this process's memory and processor time with their own.
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    metrics = WorkerMetrics(replace(worker_group, index=worker_group.engine_index), registry)
    await metrics.open()
    server = EngineServer(listener, settings, lambda: LocalEngines.of(settings, loop, health, worker_group), loop)
    serving = asyncio.create_task(server.serve())
    control.setblocking(False)
    # Ends with the supervisor, which sends nothing more.
    await loop.sock_recv(control, 1)
    try:
        async with asyncio.timeout(settings.grace_seconds + _EXIT_SECONDS):
            while server.in_use:
                await asyncio.sleep(_IDLE_CHECK_SECONDS)
    except TimeoutError:
        log.warning("engine process ends while workers use it")
    serving.cancel()
    metrics.close()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
