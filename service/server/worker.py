"""A process that serves: the only one, or one of several that `service.server.supervisor` starts."""

import json
import os
import shutil
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import prometheus_client

from service.app import create_app
from service.auth.api_keys import KeysError
from service.server.banner import print_safely
from service.server.server import serve
from service.settings import Settings, SettingsError
from service.telemetry.logs import LogHandler, configure_logs
from service.worker_group import SINGLE_WORKER, WorkerGroup

# A worker without a supervisor is killed this long after the grace period, in case its drain hangs.
_EXIT_SECONDS = 5


def work(
    settings: Settings,
    handler: LogHandler,
    worker_group: WorkerGroup = SINGLE_WORKER,
    sockets: list[socket.socket] | None = None,
    on_ready: Callable[[str], object] = print_safely,
) -> int:
    """Serve in this process and return the exit code.

    Args:
        settings: The settings of the service.
        handler: The log handler of this process; its lost lines are counted in the metrics.
        worker_group: The workers of the service.
        sockets: Bound sockets to accept from. None: the server opens its own.
        on_ready: Called with the banner once the service is ready.
    """
    # The creation time of each counter would be a second series that no dashboard shows.
    prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]  # the library's gap
    try:
        app = create_app(settings, worker_group)
    except (KeysError, SettingsError) as error:
        print(f"ood-serve: {error}", file=sys.stderr)
        return 2
    handler.on_loss = app.state.metrics.lost_log_lines.inc
    return serve(app, settings, worker_group, sockets, on_ready)


def main(argv: Sequence[str]) -> int:
    """Serve as one of several workers.

    The supervisor sends one line of JSON over the control socket: `settings`, `index`, `folder` and `engine_process`
    (of the worker group) and `sockets`, the file descriptors to accept from. Once it is ready, the worker sends the
    banner and shuts down its side of the socket.

    Args:
        argv: The file descriptor of the control socket.
    """
    control = socket.socket(fileno=int(argv[0]))
    task = json.loads(control.makefile().readline())
    settings = Settings(**task["settings"])
    folder = Path(task["folder"])
    worker_group = WorkerGroup(task["index"], settings.workers, folder, task["engine_process"])
    handler = configure_logs(settings, worker=worker_group.index)
    threading.Thread(
        target=_drain_without_supervisor, args=(control, folder, settings.grace_seconds), name="supervisor", daemon=True
    ).start()

    def on_ready(banner: str) -> None:
        control.sendall(banner.encode())
        control.shutdown(socket.SHUT_WR)

    sockets = [socket.socket(fileno=descriptor) for descriptor in task["sockets"]]
    return work(settings, handler, worker_group, sockets, on_ready)


def _drain_without_supervisor(control: socket.socket, folder: Path, grace_seconds: float) -> None:
    """Block until the supervisor has ended for any reason, then drain: nothing would restart this worker."""
    # The connection is reset if the supervisor ended before it read the banner.
    with suppress(OSError):
        control.recv(1)
    shutil.rmtree(folder, ignore_errors=True)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(grace_seconds + _EXIT_SECONDS)
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
