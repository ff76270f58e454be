"""Runs several worker processes on one port: starts them, restarts those that die, and drains them together.

Beyond `uvicorn.supervisors.Multiprocess`: the first worker starts alone, the banner is printed once, pauses between
restarts grow, and workers drain when the supervisor itself is killed.
"""

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import structlog

from service.server.banner import print_safely
from service.server.sockets import BindError, bind_sockets
from service.settings import Settings, env_name

# A worker that died soon after its start is likely to die again: each pause before a restart is twice the last one.
_FIRST_PAUSE_SECONDS = 0.5
_LONGEST_PAUSE_SECONDS = 30.0
_STABLE_AFTER_SECONDS = 60.0
# Workers are killed this long after the grace period.
_EXIT_SECONDS = 5.0

log = structlog.stdlib.get_logger(__name__)


def supervise(settings: Settings) -> int:
    """Run `settings.workers` processes until a signal and return the exit code.

    The supervisor binds the socket, and the workers share it: the worker with the fewest connections accepts the next
    one. Each worker listens once its models are warm, so connections are refused until the first worker is ready. The
    first worker starts alone: it is ready as early as a single process would be, it measures the models' speed
    undisturbed, and wrong settings are reported once.
    """
    try:
        sockets = bind_sockets(settings)
    except BindError as error:
        log.error("cannot start", reason=str(error))
        return 1
    try:
        # Only the user of this process can enter it.
        temporary_folder = tempfile.TemporaryDirectory(prefix="ood-serve-", ignore_cleanup_errors=True)
    except OSError as error:
        reason = f"{env_name('workers')} = {settings.workers} needs a folder for temporary files: {error}. Set TMPDIR."
        log.error("cannot start", reason=reason)
        return 1
    with temporary_folder as folder:
        return asyncio.run(Supervisor(settings, sockets, Path(folder)).run())


class _Worker:
    """A worker process and its control socket. The worker drains when the socket closes, also if this process dies."""

    def __init__(
        self, process: asyncio.subprocess.Process, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._process = process
        self._reader = reader
        self._control = writer
        self.ready = False

    @classmethod
    async def start(cls, settings: Settings, index: int, folder: Path, sockets: Sequence[socket.socket]) -> "_Worker":
        """Start worker `index`, which accepts from `sockets` and shares files with the others in `folder`."""
        control, worker_end = socket.socketpair()
        with worker_end:
            descriptors = [sock.fileno() for sock in sockets]
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "service.server.worker", str(worker_end.fileno())),
                stdin=asyncio.subprocess.DEVNULL,
                pass_fds=[worker_end.fileno(), *descriptors],
                # Ctrl-C signals the whole process group, and a worker that is just starting would print a traceback.
                process_group=0,
            )
        reader, writer = await asyncio.open_connection(sock=control)
        task = {"settings": settings.model_dump(mode="json"), "index": index, "folder": str(folder)}
        writer.write(json.dumps(task | {"sockets": descriptors}).encode() + b"\n")
        return cls(process, reader, writer)

    async def banner(self) -> str:
        """Wait until the worker is ready and return its banner, or an empty string if it ends before."""
        text = b""
        # A worker that dies before it reads its task resets the socket.
        with contextlib.suppress(OSError):
            text = await self._reader.read()
        self.ready = bool(text)
        return text.decode()

    async def wait(self) -> int:
        """Wait until the process ends and return its exit code, which is negative for a signal."""
        code = await self._process.wait()
        self._control.close()
        return code

    def send(self, sig: signal.Signals) -> None:
        """Send the process a signal, unless it has ended."""
        if self._process.returncode is None:
            os.kill(self._process.pid, sig)


class Supervisor:
    """Keeps workers running on `sockets` until a signal, or until the first of them cannot be started.

    At SIGTERM or SIGINT all workers drain; the second signal kills them. SIGUSR1 is passed on to all workers.
    """

    def __init__(self, settings: Settings, sockets: Sequence[socket.socket], folder: Path) -> None:
        """Prepare the workers' settings. `folder` is where the workers share files."""
        # A worker that is not ready must not accept a connection that another worker could serve.
        self._settings = settings.model_copy(update={"listen_when_ready": True})
        self._sockets = list(sockets)
        self._folder = folder
        self._workers: dict[int, _Worker] = {}
        self._ever_ready: set[int] = set()
        self._first_is_ready = asyncio.Event()
        self._ending = asyncio.Event()
        self._killed = False
        self._exit_code = 0

    async def run(self) -> int:
        """Run the workers and return the exit code: 0 after a signal, else that of the worker that could not start."""
        loop = asyncio.get_running_loop()
        for sig in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(sig, self._on_signal, sig)
        loop.add_signal_handler(signal.SIGUSR1, self._reset_drift)
        async with asyncio.TaskGroup() as slots:
            slots.create_task(self._run_slot(0))
            await self._first_is_ready.wait()
            for index in range(1, self._settings.workers):
                slots.create_task(self._run_slot(index))
        return self._exit_code

    async def _run_slot(self, index: int) -> None:
        """Keep worker number `index` running: start it, and start it again whenever it dies, until the end."""
        pause = 0.0
        while not self._ending.is_set():
            began = time.monotonic()
            try:
                worker = await _Worker.start(self._settings, index, self._folder, self._sockets)
            except OSError as error:
                log.error("worker start failed", worker=index, reason=str(error))
                code, reason = 1, "never started"
            else:
                code = await self._watch(index, worker)
                reason = f"ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
                if self._ending.is_set():
                    self._on_drained(index, worker, code, reason)
                    return
            if not self._ever_ready:
                self._fail(index, code, reason)
                return
            uptime = time.monotonic() - began
            pause = 0.0 if uptime > _STABLE_AFTER_SECONDS else min(2 * pause, _LONGEST_PAUSE_SECONDS)
            pause = max(pause, _FIRST_PAUSE_SECONDS)
            log.error("worker died", worker=index, reason=reason, restart_seconds=pause)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._ending.wait(), pause)

    async def _watch(self, index: int, worker: _Worker) -> int:
        """Wait until `worker` ends and return its exit code; announce the service when it becomes ready."""
        self._workers[index] = worker
        if self._ending.is_set():
            worker.send(signal.SIGTERM)
        if banner := await worker.banner():
            self._ever_ready.add(index)
            self._on_ready(banner)
        code = await worker.wait()
        del self._workers[index]
        return code

    def _on_ready(self, banner: str) -> None:
        if not self._first_is_ready.is_set():
            self._first_is_ready.set()
            print_safely(banner)

    def _fail(self, index: int, code: int, reason: str) -> None:
        if code < 0:
            # A worker that ended by a signal could not log the reason itself.
            log.error("cannot start", reason=f"before worker {index} was ready, it {reason}")
        self._exit_code = max(code, 1)
        self._end()

    def _on_drained(self, index: int, worker: _Worker, code: int, reason: str) -> None:
        if worker.ready and code and not self._killed:
            log.error("worker drain failed", worker=index, reason=reason)
            self._exit_code = self._exit_code or 1

    def _on_signal(self, sig: signal.Signals) -> None:
        if self._ending.is_set():
            self._killed = True
            self._send(signal.SIGKILL)
        else:
            log.info("draining", signal=sig.name, workers=len(self._workers))
            self._end()

    def _end(self) -> None:
        self._ending.set()
        self._first_is_ready.set()
        # Connections are refused once every process, this one included, has closed the sockets.
        for sock in self._sockets:
            sock.close()
        self._send(signal.SIGTERM)
        seconds = self._settings.grace_seconds + _EXIT_SECONDS
        asyncio.get_running_loop().call_later(seconds, self._send, signal.SIGKILL)

    def _reset_drift(self) -> None:
        for worker in self._workers.values():
            # A worker that is not ready has no evidence, and the signal would end it before it installs its handler.
            if worker.ready:
                worker.send(signal.SIGUSR1)

    def _send(self, sig: signal.Signals) -> None:
        for worker in self._workers.values():
            worker.send(sig)
