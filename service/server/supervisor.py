"""Several workers on one port: started, watched, started again where one dies, and ended together."""

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

from service.server.terminal import print_safely
from service.settings import Settings, env_name

# A worker that dies soon after its start would soon die again: each pause is twice the one before.
_FIRST_PAUSE_SECONDS = 0.5
_LONGEST_PAUSE_SECONDS = 30.0
_SOON_SECONDS = 60.0
# What a worker may take to end beyond the grace period.
_ENDING_SECONDS = 5.0

log = structlog.stdlib.get_logger(__name__)


def supervise(settings: Settings) -> int:
    """Have `settings.workers` processes serve until a signal; the exit code.

    The socket is opened here and shared: of the workers, the one with the fewest connections accepts a new one. Each
    listens once its models are warm, so that until the first one is ready connections are refused. That one starts
    alone: it is ready as soon as a single process would be, measures the models' pace undisturbed, and says what is
    wrong with the settings once.
    """
    try:
        sockets = _bind(settings.host, settings.port)
    except OSError as error:
        log.error("cannot start", reason=f"{settings.host}:{settings.port}: {error.strerror or error}")
        return 1
    try:
        # Only its owner can enter a folder made so.
        place = tempfile.TemporaryDirectory(prefix="ood-serve-", ignore_cleanup_errors=True)
    except OSError as error:
        reason = f"{env_name('workers')} = {settings.workers} needs a folder for temporary files: {error}. Set TMPDIR."
        log.error("cannot start", reason=reason)
        return 1
    with place as folder:
        return asyncio.run(Supervisor(settings, sockets, Path(folder)).run())


def _bind(host: str, port: int) -> list[socket.socket]:
    """A socket for each address of `host`, bound, not listening yet: who comes too early is refused at once."""
    sockets: list[socket.socket] = []
    for family, kind, protocol, _, address in socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    ):
        each = socket.socket(family, kind, protocol)
        sockets.append(each)
        each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            each.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        each.bind(address)
    return sockets


class _Worker:
    """A worker's process, and the line to it. It ends when the line does: closed here, or with this process."""

    def __init__(
        self, process: asyncio.subprocess.Process, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._process = process
        self._reader = reader
        self._line = writer
        self.ready = False

    @classmethod
    async def start(cls, settings: Settings, index: int, folder: Path, sockets: Sequence[socket.socket]) -> "_Worker":
        """Start worker `index`."""
        ours, its = socket.socketpair()
        with its:
            descriptors = [each.fileno() for each in sockets]
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "service.server.worker", str(its.fileno())),
                stdin=asyncio.subprocess.DEVNULL,
                pass_fds=[its.fileno(), *descriptors],
                # Ctrl-C goes to a whole group, and a worker that is just starting would answer with a traceback.
                process_group=0,
            )
        reader, writer = await asyncio.open_connection(sock=ours)
        task = {"settings": settings.model_dump(mode="json"), "index": index, "folder": str(folder)}
        writer.write(json.dumps(task | {"sockets": descriptors}).encode() + b"\n")
        return cls(process, reader, writer)

    async def banner(self) -> str:
        """What it says once it is ready; nothing where it ends before."""
        text = b""
        # What it never read of its task, the system counts as a broken line.
        with contextlib.suppress(OSError):
            text = await self._reader.read()
        self.ready = bool(text)
        return text.decode()

    async def ended(self) -> int:
        """Its exit code, negative for the signal that ended it."""
        code = await self._process.wait()
        self._line.close()
        return code

    def send(self, sig: signal.Signals) -> None:
        """Send it a signal, if it lives."""
        if self._process.returncode is None:
            os.kill(self._process.pid, sig)


class Supervisor:
    """Keeps workers running on `sockets` until a signal, or until one cannot be started the first time.

    At SIGTERM or SIGINT all workers drain; the second one ends them at once. SIGUSR1 goes on to all of them.
    """

    def __init__(self, settings: Settings, sockets: Sequence[socket.socket], folder: Path) -> None:
        """`folder` is where workers meet, for their eyes only."""
        # A worker that is not ready must not take what another could answer.
        self._settings = settings.model_copy(update={"listen_when_ready": True})
        self._sockets = list(sockets)
        self._folder = folder
        self._workers: dict[int, _Worker] = {}
        self._have_served: set[int] = set()
        self._first_is_ready = asyncio.Event()
        self._ending = asyncio.Event()
        self._hurried = False
        self._code = 0

    async def run(self) -> int:
        """The exit code: 0 after a signal, else that of a worker that could not be started."""
        loop = asyncio.get_running_loop()
        for sig in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(sig, self._signalled, sig)
        loop.add_signal_handler(signal.SIGUSR1, self._forget_drift)
        async with asyncio.TaskGroup() as slots:
            slots.create_task(self._keep(0))
            await self._first_is_ready.wait()
            for index in range(1, self._settings.workers):
                slots.create_task(self._keep(index))
        return self._code

    async def _keep(self, index: int) -> None:
        """Have a worker number `index`, and another one where it dies, until the end."""
        pause = 0.0
        while not self._ending.is_set():
            began = time.monotonic()
            try:
                worker = await _Worker.start(self._settings, index, self._folder, self._sockets)
            except OSError as error:
                log.error("no process can be started", worker=index, reason=str(error))
                code, reason = 1, "never started"
            else:
                code = await self._see_to(index, worker)
                reason = f"ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
                if self._ending.is_set():
                    self._drained(index, worker, code, reason)
                    return
            if index not in self._have_served:
                self._cannot_start(index, code, reason)
                return
            lived = time.monotonic() - began
            pause = 0.0 if lived > _SOON_SECONDS else min(2 * pause, _LONGEST_PAUSE_SECONDS)
            pause = max(pause, _FIRST_PAUSE_SECONDS)
            log.error("a worker died", worker=index, reason=reason, starts_again_in_seconds=pause)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._ending.wait(), pause)

    async def _see_to(self, index: int, worker: _Worker) -> int:
        """Its exit code, once it has ended."""
        self._workers[index] = worker
        if self._ending.is_set():
            worker.send(signal.SIGTERM)
        if banner := await worker.banner():
            self._have_served.add(index)
            self._on_ready(banner)
        code = await worker.ended()
        del self._workers[index]
        return code

    def _on_ready(self, banner: str) -> None:
        if not self._first_is_ready.is_set():
            self._first_is_ready.set()
            print_safely(banner)

    def _cannot_start(self, index: int, code: int, reason: str) -> None:
        if code < 0:
            # It could not say it itself.
            log.error("cannot start", reason=f"before worker {index} was ready, it {reason}")
        self._code = max(code, 1)
        self._end()

    def _drained(self, index: int, worker: _Worker, code: int, reason: str) -> None:
        if worker.ready and code and not self._hurried:
            log.error("a worker did not drain", worker=index, reason=reason)
            self._code = self._code or 1

    def _signalled(self, sig: signal.Signals) -> None:
        if self._ending.is_set():
            self._hurried = True
            self._send(signal.SIGKILL)
        else:
            log.info("draining", signal=sig.name, workers=len(self._workers))
            self._end()

    def _end(self) -> None:
        self._ending.set()
        self._first_is_ready.set()
        # Connections are refused once the last process has closed the socket, this one included.
        for each in self._sockets:
            each.close()
        self._send(signal.SIGTERM)
        patience = self._settings.grace_seconds + _ENDING_SECONDS
        asyncio.get_running_loop().call_later(patience, self._send, signal.SIGKILL)

    def _forget_drift(self) -> None:
        for worker in self._workers.values():
            # Another one has no evidence yet, and may not even know the signal, which would end it.
            if worker.ready:
                worker.send(signal.SIGUSR1)

    def _send(self, sig: signal.Signals) -> None:
        for worker in self._workers.values():
            worker.send(sig)
