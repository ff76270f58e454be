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
from service.server.terminal import say
from service.settings import Settings, SettingsError
from service.telemetry.logs import LogHandler, configure_logs
from service.worker_group import Crew

# Beyond the grace period, what a process may take to end once nobody waits for its answers.
_ENDING_SECONDS = 5


def work(
    settings: Settings,
    handler: LogHandler,
    crew: Crew | None = None,
    sockets: list[socket.socket] | None = None,
    announce: Callable[[str], object] = say,
) -> int:
    """Serve in this process, which logs with `handler`; the exit code."""
    # A second series per counter, with its creation time, doubles the page and says nothing here.
    prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]  # the library's gap
    try:
        app = create_app(settings, crew)
    except (KeysError, SettingsError) as error:
        print(f"ood-serve: {error}", file=sys.stderr)
        return 2
    handler.on_loss = app.state.metrics.lost_log_lines.inc
    return serve(app, settings, crew, sockets, announce)


def main(argv: Sequence[str]) -> int:
    """One of several. `argv` is the file descriptor of the line to the supervisor, which has all the rest.

    The supervisor sends a line of JSON: `settings`, `index`, `folder` (of the crew) and `sockets`, the descriptors of
    those to accept from. It gets the banner, and then the end of what is sent, once this worker is ready.
    """
    line = socket.socket(fileno=int(argv[0]))
    task = json.loads(line.makefile().readline())
    settings = Settings(**task["settings"])
    crew = Crew(task["index"], settings.workers, Path(task["folder"]))
    handler = configure_logs(settings, worker=crew.index)
    threading.Thread(target=_end_with_supervisor, args=(line, crew, settings), name="supervisor", daemon=True).start()

    def announce(banner: str) -> None:
        line.sendall(banner.encode())
        line.shutdown(socket.SHUT_WR)

    return work(settings, handler, crew, [socket.socket(fileno=each) for each in task["sockets"]], announce)


def _end_with_supervisor(line: socket.socket, crew: Crew, settings: Settings) -> None:
    """Wait until the supervisor is gone, however it went; then drain, for nobody would start this worker again."""
    line.recv(1)
    shutil.rmtree(crew.folder, ignore_errors=True)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(settings.grace_seconds + _ENDING_SECONDS)
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
