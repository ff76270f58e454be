"""A process that serves: the only one, or one of several that `server.supervisor` starts by this module's name."""

import json
import os
import shutil
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import prometheus_client

from service.app import create_app
from service.auth.api_keys import KeysError
from service.server.server import serve
from service.server.terminal import print_safely
from service.settings import Settings, SettingsError
from service.telemetry.logs import LogHandler, configure_logs
from service.worker_group import WorkerGroup

# Beyond the grace period, what a process may take to end once nobody waits for its answers.
_ENDING_SECONDS = 5


def work(
    settings: Settings,
    handler: LogHandler,
    worker_group: WorkerGroup | None = None,
    sockets: list[socket.socket] | None = None,
    on_ready: Callable[[str], object] = print_safely,
) -> int:
    """Serve in this process, which logs with `handler`; the exit code."""
    # A second series per counter, with its creation time, doubles the page and says nothing here.
    prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]  # the library's gap
    try:
        app = create_app(settings, worker_group)
    except (KeysError, SettingsError) as error:
        print(f"ood-serve: {error}", file=sys.stderr)
        return 2
    handler.on_loss = app.state.metrics.lost_log_lines.inc
    return serve(app, settings, worker_group, sockets, on_ready)


def main(argv: Sequence[str]) -> int:
    """One of several. `argv` is the file descriptor of the line to the supervisor, which has all the rest.

    The supervisor sends a line of JSON: `settings`, `index`, `folder` (of the crew) and `sockets`, the descriptors of
    those to accept from. It gets the banner, and then the end of what is sent, once this worker is ready.
    """
    line = socket.socket(fileno=int(argv[0]))
    task = json.loads(line.makefile().readline())
    settings = Settings(**task["settings"])
    worker_group = WorkerGroup(task["index"], settings.workers, Path(task["folder"]))
    handler = configure_logs(settings, worker=worker_group.index)
    threading.Thread(
        target=_end_with_supervisor, args=(line, worker_group, settings), name="supervisor", daemon=True
    ).start()

    def on_ready(banner: str) -> None:
        line.sendall(banner.encode())
        line.shutdown(socket.SHUT_WR)

    return work(settings, handler, worker_group, [socket.socket(fileno=each) for each in task["sockets"]], on_ready)


def _end_with_supervisor(line: socket.socket, worker_group: WorkerGroup, settings: Settings) -> None:
    """Wait until the supervisor is gone, however it went; then drain, for nobody would start this worker again."""
    line.recv(1)
    shutil.rmtree(worker_group.folder, ignore_errors=True)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(settings.grace_seconds + _ENDING_SECONDS)
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
