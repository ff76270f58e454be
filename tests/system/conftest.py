"""Real processes: `python -m service` as a person or an orchestrator would start it."""

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {name: text for name, text in os.environ.items() if not name.startswith("OOD_")}
COMMAND = (sys.executable, "-m", "service", "--port", "0", "--threads", "1", "--max-batch", "8")


class Service:
    """A running process, its banner already read."""

    def __init__(self, models: Path, *flags: str) -> None:
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
        # Read all along: a full pipe would stop the process.
        self._reader = threading.Thread(target=self.log.extend, args=(self.process.stderr,))
        self._reader.start()
        self.banner = self._read_banner()
        found = re.search(r"http://127\.0\.0\.1:\d+", self.banner)
        assert found is not None, self.banner
        self.address = found.group()
        self.client = httpx.Client(base_url=self.address, timeout=30)

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
        """The banner's command."""
        return self.banner.strip().splitlines()[-1].split("try", 1)[1].strip()

    @property
    def port(self) -> int:
        return int(self.address.rsplit(":", 1)[1])

    @property
    def grpc_address(self) -> str:
        """The banner's, of a service with a port for gRPC."""
        found = re.search(r"gRPC +(\S+)", self.banner)
        assert found is not None, self.banner
        return found.group(1)

    @property
    def resident_bytes(self) -> int:
        """The memory that the process really has."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    @property
    def open_files(self) -> int:
        """Files and connections that the process has open."""
        return sum(1 for _ in Path(f"/proc/{self.process.pid}/fd").iterdir())

    def end(self, sig: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal and wait for the exit code."""
        self.process.send_signal(sig)
        return self.wait()

    def wait(self) -> int:
        """The exit code."""
        code = self.process.wait(timeout=60)
        self._reader.join()
        return code

    def close(self) -> None:
        """Whatever happened, leave no process behind."""
        self.client.close()
        if self.process.poll() is None:
            self.process.kill()
        self.wait()
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        self.process.stdout.close()
        self.process.stderr.close()


Start = Callable[..., Service]


@pytest.fixture
def start() -> Iterator[Start]:
    """`start(models, "--grace-seconds", "1")`; the processes end with the test."""
    services: list[Service] = []

    def begin(models: Path, *flags: str) -> Service:
        services.append(Service(models, *flags))
        return services[-1]

    yield begin
    for service in services:
        service.close()


def run_to_its_end(*flags: str) -> subprocess.CompletedProcess[str]:
    """A start that is expected to fail."""
    return subprocess.run(
        [*COMMAND, *flags], cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, timeout=60, check=False
    )
