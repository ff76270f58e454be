"""A running `python -m service`."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import httpx

ROOT = Path(__file__).parents[3]
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("OOD_")}
COMMAND = (
    *(sys.executable, "-m", "service", "--port", "0", "--threads", "1", "--max-batch", "8"),
    # The default deadline could pass on a busy machine.
    *("--timeout-ms", "120000"),
)
T = TypeVar("T")

TIMEOUT_SECONDS = 120
"""How long clients wait for a response, and tests for the end of a process. No test depends on it."""


class ServiceProcess:
    """A service that has printed its banner.

    Attributes:
        process: The process, or the supervisor of workers.
        banner: The lines of standard output up to the curl command.
        log: The lines of standard error so far.
        address: The URL of the service.
        client: A client of the service.
    """

    def __init__(self, models: Path, *flags: str) -> None:
        """Start the service with the repository `models`, and wait for the banner."""
        self.process = subprocess.Popen(
            [*COMMAND, "--models", str(models), *flags],
            cwd=ROOT,
            env=ENVIRONMENT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.log: list[str] = []
        assert self.process.stderr is not None
        # A thread reads the log, because a full pipe would block the process.
        self._reader = threading.Thread(target=self.log.extend, args=(self.process.stderr,))
        self._reader.start()
        self.banner = self._read_banner()
        url = re.search(r"http://127\.0\.0\.1:\d+", self.banner)
        assert url is not None, self.banner + "".join(self.log)
        self.address = url.group()
        self.client = httpx.Client(base_url=self.address, timeout=TIMEOUT_SECONDS)

    def _read_banner(self) -> str:
        assert self.process.stdout is not None
        lines: list[str] = []
        for line in self.process.stdout:
            lines.append(line)
            if line.lstrip().startswith("try "):
                break
        return "".join(lines)

    @property
    def curl(self) -> str:
        """The curl command in the banner."""
        return self.banner.strip().splitlines()[-1].split("try", 1)[1].strip()

    @property
    def port(self) -> int:
        return int(self.address.rsplit(":", 1)[1])

    @property
    def grpc_address(self) -> str:
        """The gRPC address in the banner."""
        address = re.search(r"gRPC +(\S+)", self.banner)
        assert address is not None, self.banner
        return address.group(1)

    @property
    def resident_bytes(self) -> int:
        """The resident memory of the process."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    @property
    def peak_bytes(self) -> int:
        """The largest resident memory that the process has had."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))

    @property
    def open_files(self) -> int:
        """The number of open files and connections of the process."""
        return sum(1 for _ in Path(f"/proc/{self.process.pid}/fd").iterdir())

    def log_entries(self, event: str) -> list[dict[str, Any]]:
        """The entries of a JSON log so far with that event."""
        entries = [json.loads(line) for line in list(self.log)]
        return [entry for entry in entries if entry["event"] == event]

    def signal_while_stopped(self, sig: signal.Signals, prepare: Callable[[], object]) -> None:
        """Stop the process, call `prepare`, send `sig`, and let the process continue.

        The process handles the signal before anything that `prepare` sent to it, independent of the machine's speed.
        """
        self.process.send_signal(signal.SIGSTOP)
        prepare()
        self.process.send_signal(sig)
        self.process.send_signal(signal.SIGCONT)

    def end(self, sig: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal, and wait for the exit code."""
        self.process.send_signal(sig)
        return self.wait()

    def wait(self) -> int:
        """Wait for the exit code, and for the end of the log."""
        code = self.process.wait(TIMEOUT_SECONDS)
        self._reader.join()
        return code

    def close(self) -> None:
        """Kill the process if it still runs."""
        self.client.close()
        if self.process.poll() is None:
            self.process.kill()
        self.wait()
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        self.process.stdout.close()
        self.process.stderr.close()


Start = Callable[..., ServiceProcess]


@contextmanager
def starting(*flags: str) -> Iterator[Start]:
    """A function that starts a service with a repository and further flags; the services end with the block."""
    services: list[ServiceProcess] = []

    def start_service(models: Path, *further: str) -> ServiceProcess:
        services.append(ServiceProcess(models, *flags, *further))
        return services[-1]

    try:
        yield start_service
    finally:
        for service in services:
            service.close()


def run_to_exit(*flags: str, variables: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run a service that is expected to fail at its start, with further environment `variables`."""
    return run_python(*COMMAND[1:], *flags, variables=variables)


def run_python(*arguments: str, variables: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run this Python in the repository's root, without settings in the environment except for `variables`."""
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env={**ENVIRONMENT, **(variables or {})},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_SECONDS,
        check=False,
    )


def on_new_connection(service: ServiceProcess, use: Callable[[httpx.Client], T]) -> T:
    """Call `use` with a client that opens a new connection, which any worker may accept."""
    with httpx.Client(base_url=service.address, timeout=TIMEOUT_SECONDS) as client:
        return use(client)
