"""The servers that are measured side by side: this service, plain FastAPI and the peers, all sent the same file."""

import base64
import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import psutil

from benchmarks.processes import cpu_seconds, free_port, main_thread_seconds, run_module, running
from bundle import Bundle

ROOT = Path(__file__).parents[1]
SCRIPTS = Path(__file__).parent / "peers"
ENVIRONMENTS = ROOT / ".peers"
TOLERANCE = 1e-4


class WrongAnswer(Exception):
    """The server's score is not the model's; the message has both."""


@dataclass(frozen=True, slots=True)
class Layout:
    """How a peer uses the machine: `workers` processes, each with a session of `threads` threads, on batches of `batch`
    requests at most. This service finds it out by itself."""

    workers: int = 1
    threads: int = 1
    batch: int = 64


@dataclass(frozen=True, slots=True)
class Server:
    """One way to serve a bundle. `packages` are those whose versions a result must name."""

    name: str
    packages: tuple[str, ...]
    path: str = "/score"
    to_json: Callable[[str], Any] | None = None
    """What it takes instead of the file's bytes, of the file in base64."""
    to_msp: Callable[[Any], float] = lambda answer: float(answer["msp"])
    workers: int | None = None
    """In how many processes this service runs; None for a peer, which is started by its `script`."""

    @property
    def python(self) -> Path:
        """The interpreter that runs it: that of its own environment, or this one."""
        return self.environment / "bin" / "python" if self.requirements.exists() else Path(sys.executable)

    @property
    def environment(self) -> Path:
        """Where its own environment is, or would be."""
        return ENVIRONMENTS / self.name

    @property
    def stamp(self) -> Path:
        """What its environment was made of; there once it is complete."""
        return self.environment / "installed.txt"

    @property
    def installed(self) -> bool:
        """Whether it can be run."""
        return self.stamp.exists() or not self.requirements.exists()

    @property
    def requirements(self) -> Path:
        """What its own environment needs; not there for what this environment can run."""
        return SCRIPTS / f"{self.name}.txt"

    @property
    def script(self) -> Path:
        """The program that serves."""
        return SCRIPTS / f"{self.name}_server.py"

    def versions(self) -> dict[str, str]:
        """Of its packages, in the environment that it runs in."""
        names = (*self.packages, "onnxruntime", "onnxruntime-gpu")
        program = (
            "import sys, json; from importlib.metadata import distributions as all;"
            "found = {each.name.lower(): each.version for each in all()};"
            "print(json.dumps({name: found[name] for name in sys.argv[1:] if name in found}))"
        )
        command = [str(self.python), "-c", program, *names]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, timeout=60)
        found: dict[str, str] = json.loads(done.stdout)
        return found


SERVICE = Server(
    "this service",
    ("fastapi", "uvicorn"),
    path="/v1/models/{model}/score",
    to_msp=lambda answer: float(answer["results"][0]["scores"]["msp"]["value"]),
    workers=1,
)


def with_workers(count: int) -> Server:
    """This service in `count` processes."""
    return replace(SERVICE, name=f"{SERVICE.name}, {count} workers", workers=count)


PEERS = (
    Server("fastapi", ("fastapi", "uvicorn")),
    Server("mosec", ("mosec",)),
    Server("litserve", ("litserve",), to_json=lambda file: {"file": file}),
    Server(
        "mlserver",
        ("mlserver",),
        path="/v2/models/scoring/infer",
        to_json=lambda file: {"inputs": [{"name": "file", "datatype": "BYTES", "shape": [1, 1], "data": [file]}]},
        to_msp=lambda answer: float(answer["outputs"][0]["data"][0]),
    ),
    Server("bentoml", ("bentoml",), to_json=lambda file: {"files": [file]}, to_msp=lambda answer: float(answer[0])),
    Server("ray", ("ray",)),
)


@dataclass(frozen=True, slots=True)
class Target:
    """A server that runs, and the file to send to it."""

    process: psutil.Process
    port: int
    path: str
    body: Path

    def load(self, concurrency: int, seconds: float) -> dict[str, Any]:
        """Throughput, latencies and errors of a closed loop, made by a process of its own.

        Also the seconds of a core that an answer cost: the load generator, `cpu_seconds`, the server,
        `server_cpu_seconds`, and its main thread, `main_thread_cpu_seconds`.
        """
        where = ("127.0.0.1", str(self.port), self.path, str(self.body))
        all_before, main_before = cpu_seconds(self.process), main_thread_seconds(self.process)
        figures = run_module("benchmarks.load", *where, str(concurrency), str(seconds))
        answers = max(1.0, figures["requests_per_second"] * seconds)
        return figures | {
            "server_cpu_seconds": (cpu_seconds(self.process) - all_before) / answers,
            "main_thread_cpu_seconds": (main_thread_seconds(self.process) - main_before) / answers,
        }


@contextmanager
def serving(
    server: Server, bundle: Bundle, sample: Path, *, msp: float | None = None, layout: Layout = Layout()
) -> Iterator[Target]:
    """`server` answering for `bundle`, proven to give `sample` the score `msp` where one is named.

    Raises `NotReady`, or `WrongAnswer`.
    """
    port = free_port()
    path = server.path.format(model=bundle.manifest.name)
    body = sample
    if server.to_json is not None:
        body = bundle.path.parent / f"{server.name}.json"
        body.write_text(json.dumps(server.to_json(base64.b64encode(sample.read_bytes()).decode())), encoding="utf-8")
    ask = partial(_ask, f"http://127.0.0.1:{port}{path}", body)
    command, environment = _start(server, bundle, port, layout)
    with running(command, environment, ready=lambda: ask() is not None and _all_there(server, port)) as process:
        if msp is not None:
            _check(server, ask(), msp)
        yield Target(process, port, path, body)


def _start(server: Server, bundle: Bundle, port: int, layout: Layout) -> tuple[list[str], Mapping[str, str]]:
    """The command and what it needs in its environment."""
    if server.workers is not None:
        models = str(bundle.path.parents[1])
        command = [str(server.python), "-m", "service", "--models", models, "--port", str(port)]
        # The working folder is another: this checkout must come first, wherever the package is installed from.
        return [*command, "--workers", str(server.workers), "--log-level", "warning"], {"PYTHONPATH": str(ROOT)}
    return [str(server.python), str(server.script)], {
        "BENCHMARK_BUNDLE": str(bundle.path),
        "BENCHMARK_PORT": str(port),
        "BENCHMARK_WORKERS": str(layout.workers),
        "BENCHMARK_THREADS": str(layout.threads),
        "BENCHMARK_BATCH": str(layout.batch),
        "PYTHONPATH": str(SCRIPTS),
    }


def _all_there(server: Server, port: int) -> bool:
    """Whether every worker of this service is ready: the first one answers before the others are."""
    if server.workers in (None, 1):
        return True
    return f"ood_workers_ready {server.workers:.1f}" in httpx.get(f"http://127.0.0.1:{port}/metrics", timeout=30).text


def _ask(address: str, body: Path) -> Any:
    """The answer to one request, parsed; None where it is no success, as while a server starts."""
    kind = {".png": "image/png", ".txt": "text/plain", ".json": "application/json"}[body.suffix]
    try:
        answer = httpx.post(address, content=body.read_bytes(), headers={"Content-Type": kind}, timeout=30)
        return answer.json() if answer.is_success else None
    except (httpx.HTTPError, ValueError):
        return None


def _check(server: Server, answer: Any, msp: float) -> None:
    try:
        given = server.to_msp(answer)
    except (KeyError, IndexError, TypeError, ValueError):
        raise WrongAnswer(f"{server.name} answered {str(answer)[:200]}, which holds no score") from None
    if abs(given - msp) > TOLERANCE:
        raise WrongAnswer(f"{server.name} answered {given:g} where ONNX Runtime computes {msp:g}")
