"""Runs several worker processes on one port: starts them, restarts those that die, and drains them together.

On a GPU a further process computes for all workers (`service.server.engine_process`).

Beyond `uvicorn.supervisors.Multiprocess`: the first worker starts alone, the banner is printed once, pauses between
restarts grow, and workers drain when the supervisor itself is killed.
"""

import asyncio
import contextlib
import importlib.metadata
import json
import os
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import structlog

from service.inference.cuda_device import CudaUnusable, check_device
from service.server.banner import print_safely
from service.server.sockets import BindError, bind_sockets
from service.settings import Settings, env_name
from service.worker_group import WorkerGroup

# A worker that died soon after its start is likely to die again: each pause before a restart is twice the last one.
_FIRST_PAUSE_SECONDS = 0.5
_LONGEST_PAUSE_SECONDS = 30.0
_STABLE_AFTER_SECONDS = 60.0
# Workers are killed this long after the grace period, and the engine process this long after the last worker has ended.
_EXIT_SECONDS = 5.0
# Each worker connects once for each model version, all of them at once after a restart.
_ENGINE_BACKLOG = 4096

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
    with contextlib.ExitStack() as stack:
        try:
            # Only the user of this process can enter it.
            temporary_folder = tempfile.TemporaryDirectory(prefix="ood-serve-", ignore_cleanup_errors=True)
            folder = Path(stack.enter_context(temporary_folder))
            worker_group = WorkerGroup(0, settings.workers, folder, wants_engine_process(settings))
            _check_sockets(worker_group)
        except OSError as error:
            needed = "a folder for temporary files and sockets, with a path of at most about 80 characters"
            reason = f"{env_name('workers')} = {settings.workers} needs {needed}: {error}. Set TMPDIR."
            log.error("cannot start", reason=reason)
            return 1
        return asyncio.run(Supervisor(settings, sockets, worker_group).run())


def _check_sockets(worker_group: WorkerGroup) -> None:
    """Check that sockets can be bound in the shared folder.

    Raises:
        OSError: Its path is too long, or its file system has no sockets.
    """
    with socket.socket(socket.AF_UNIX) as probe:
        probe.bind(str(worker_group.engine_socket))
    worker_group.engine_socket.unlink()


def wants_engine_process(settings: Settings) -> bool:
    """Whether one process computes for all workers; by default where workers would share a GPU."""
    if settings.engine_process != "auto":
        return settings.engine_process == "on"
    if settings.workers == 1 or settings.provider == "cpu":
        return False
    if settings.provider == "auto":
        # Without importing ONNX Runtime, which would double the memory of this process.
        try:
            importlib.metadata.version("onnxruntime-gpu")
            check_device(settings.cuda_device)
        except (importlib.metadata.PackageNotFoundError, CudaUnusable):
            return False
    return True


class _Worker:
    """A worker process and its control socket. The worker drains when the socket closes, also if this process dies.

    The engine process is started in the same way.
    """

    def __init__(
        self, process: asyncio.subprocess.Process, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._process = process
        self._reader = reader
        self._control = writer
        self.ready = False

    @classmethod
    async def start(cls, module: str, task: Mapping[str, Any], descriptors: Sequence[int]) -> "_Worker":
        """Start a process.

        Args:
            module: The module that the process runs.
            task: The object that the process reads first.
            descriptors: The file descriptors that the process inherits.
        """
        control, worker_end = socket.socketpair()
        with worker_end:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", module, str(worker_end.fileno())),
                stdin=asyncio.subprocess.DEVNULL,
                pass_fds=[worker_end.fileno(), *descriptors],
                # Ctrl-C signals the whole process group, and a worker that is just starting would print a traceback.
                process_group=0,
            )
        reader, writer = await asyncio.open_connection(sock=control)
        writer.write(json.dumps(task).encode() + b"\n")
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

    def close_control(self) -> None:
        """Close the control socket: the process then ends once it is not needed any more."""
        self._control.close()

    def send(self, sig: signal.Signals) -> None:
        """Send the process a signal, unless it has ended."""
        if self._process.returncode is None:
            os.kill(self._process.pid, sig)


class Supervisor:
    """Keeps workers running on `sockets` until a signal, or until the first of them cannot be started.

    At SIGTERM or SIGINT all workers drain; the second signal kills them. SIGUSR1 is passed on to all workers.
    """

    def __init__(self, settings: Settings, sockets: Sequence[socket.socket], worker_group: WorkerGroup) -> None:
        """Prepare the workers' settings. `worker_group` is that of worker 0."""
        # A worker that is not ready must not accept a connection that another worker could serve.
        self._settings = settings.model_copy(update={"listen_when_ready": True})
        self._sockets = list(sockets)
        self._worker_group = worker_group
        self._engine: _Worker | None = None
        self._drained = asyncio.Event()
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
        engine = asyncio.create_task(self._run_engine_process()) if self._worker_group.engine_process else None
        async with asyncio.TaskGroup() as slots:
            slots.create_task(self._run_slot(0))
            await self._first_is_ready.wait()
            for index in range(1, self._settings.workers):
                slots.create_task(self._run_slot(index))
        if engine is not None:
            # Workers need the engine process until they have answered their last request.
            self._drained.set()
            if self._engine is not None:
                self._engine.close_control()
            loop.call_later(0 if self._killed else _EXIT_SECONDS, self._kill)
            await engine
        return self._exit_code

    async def _run_engine_process(self) -> None:
        """Keep the engine process running until all workers have ended.

        This process holds the listening socket, so that workers can connect while the engine process is restarted.
        """
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(self._worker_group.engine_socket))
            listener.listen(_ENGINE_BACKLOG)
            task = self._task() | {"listener": listener.fileno()}
            pause = 0.0
            while not self._drained.is_set():
                began = time.monotonic()
                try:
                    engine = await _Worker.start("service.server.engine_process", task, [listener.fileno()])
                except OSError as error:
                    log.error("engine process start failed", reason=str(error))
                    code, reason = 1, "never started"
                else:
                    self._engine = engine
                    if self._drained.is_set():
                        engine.close_control()
                    code = await engine.wait()
                    self._engine = None
                    reason = _how_it_ended(code)
                if self._drained.is_set():
                    return
                if not self._ever_ready:
                    log.error("cannot start", reason=f"before a worker was ready, the engine process {reason}")
                    self._exit_code = max(code, 1)
                    self._end()
                    return
                pause = _next_pause(pause, time.monotonic() - began)
                log.error("engine process died", reason=reason, restart_seconds=pause)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._drained.wait(), pause)

    def _task(self) -> dict[str, Any]:
        """The fields of the first message that every process gets."""
        return {"settings": self._settings.model_dump(mode="json"), "folder": str(self._worker_group.folder)}

    async def _run_slot(self, index: int) -> None:
        """Keep worker number `index` running: start it, and start it again whenever it dies, until the end."""
        pause = 0.0
        while not self._ending.is_set():
            began = time.monotonic()
            try:
                descriptors = [sock.fileno() for sock in self._sockets]
                task = self._task() | {"index": index, "engine_process": self._worker_group.engine_process}
                worker = await _Worker.start("service.server.worker", task | {"sockets": descriptors}, descriptors)
            except OSError as error:
                log.error("worker start failed", worker=index, reason=str(error))
                code, reason = 1, "never started"
            else:
                code = await self._watch(index, worker)
                reason = _how_it_ended(code)
                if self._ending.is_set():
                    self._on_drained(index, worker, code, reason)
                    return
            if not self._ever_ready:
                self._fail(index, code, reason)
                return
            pause = _next_pause(pause, time.monotonic() - began)
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
            self._kill()
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
        asyncio.get_running_loop().call_later(seconds, self._kill)

    def _reset_drift(self) -> None:
        for worker in self._workers.values():
            # A worker that is not ready has no evidence, and the signal would end it before it installs its handler.
            if worker.ready:
                worker.send(signal.SIGUSR1)

    def _send(self, sig: signal.Signals) -> None:
        for worker in self._workers.values():
            worker.send(sig)

    def _kill(self) -> None:
        """Kill the workers, and the engine process once all workers have ended."""
        self._send(signal.SIGKILL)
        if self._engine is not None and self._drained.is_set():
            self._engine.send(signal.SIGKILL)


def _how_it_ended(code: int) -> str:
    return f"ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"


def _next_pause(pause: float, uptime: float) -> float:
    """The pause before a restart after one of `pause` seconds, of a process that ran for `uptime` seconds."""
    longer = 0.0 if uptime > _STABLE_AFTER_SECONDS else min(2 * pause, _LONGEST_PAUSE_SECONDS)
    return max(longer, _FIRST_PAUSE_SECONDS)
