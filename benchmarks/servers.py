"""The measured servers: this service, plain FastAPI and the peers. All receive the same file."""

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


class WrongScore(Exception):
    """The server's score is not the model's. The message holds both."""


@dataclass(frozen=True, slots=True)
class PeerLayout:
    """The use of the machine by a peer. This service chooses its own.

    Attributes:
        workers: The number of processes, each with an ONNX Runtime session.
        threads: The number of threads of each session.
        batch: The largest batch.
    """

    workers: int = 1
    threads: int = 1
    batch: int = 64


@dataclass(frozen=True, slots=True)
class Server:
    """A server of one bundle.

    Attributes:
        name: The name in tables and results.
        packages: The packages whose versions a result states.
        path: The path of the scoring route.
        encode: Makes the JSON body from the file in base64; None if the server takes the file's bytes.
        decode: Reads the score msp from the JSON response.
        workers: The number of processes of this service; None for a peer, which `script` starts.
        engine_process: Whether this service computes in an engine process.
    """

    name: str
    packages: tuple[str, ...]
    path: str = "/score"
    encode: Callable[[str], Any] | None = None
    decode: Callable[[Any], float] = lambda response: float(response["msp"])
    workers: int | None = None
    engine_process: bool = False

    @property
    def python(self) -> Path:
        """The interpreter of the server's own environment; this one if it needs none."""
        return self.environment / "bin" / "python" if self.requirements.exists() else Path(sys.executable)

    @property
    def environment(self) -> Path:
        """The folder of the server's own environment."""
        return ENVIRONMENTS / self.name

    @property
    def stamp(self) -> Path:
        """The requirements that the environment was installed from; exists once it is complete."""
        return self.environment / "installed.txt"

    @property
    def installed(self) -> bool:
        """Whether the server can be started."""
        return self.stamp.exists() or not self.requirements.exists()

    @property
    def requirements(self) -> Path:
        """The requirements file of the server's own environment; absent if this environment suffices."""
        return SCRIPTS / f"{self.name}.txt"

    @property
    def script(self) -> Path:
        """The program that serves."""
        return SCRIPTS / f"{self.name}_server.py"

    def versions(self) -> dict[str, str]:
        """The versions of the packages in the server's environment."""
        names = (*self.packages, "onnxruntime", "onnxruntime-gpu")
        program = (
            "import sys, json; from importlib.metadata import distributions;"
            "versions = {package.name.lower(): package.version for package in distributions()};"
            "print(json.dumps({name: versions[name] for name in sys.argv[1:] if name in versions}))"
        )
        command = [str(self.python), "-c", program, *names]
        completed = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, timeout=60)
        versions: dict[str, str] = json.loads(completed.stdout)
        return versions


SERVICE = Server(
    "this service",
    ("fastapi", "uvicorn"),
    path="/v1/models/{model}/score",
    decode=lambda response: float(response["results"][0]["scores"]["msp"]["value"]),
    workers=1,
)


def with_workers(count: int, *, engine_process: bool = False) -> Server:
    """This service with `count` worker processes, which compute themselves or hand inputs to an engine process."""
    name = f"{SERVICE.name}, {count} workers" + (" and an engine process" if engine_process else "")
    return replace(SERVICE, name=name, workers=count, engine_process=engine_process)


PEERS = (
    Server("fastapi", ("fastapi", "uvicorn")),
    Server("mosec", ("mosec",)),
    Server("litserve", ("litserve",), encode=lambda file: {"file": file}),
    Server(
        "mlserver",
        ("mlserver",),
        path="/v2/models/scoring/infer",
        encode=lambda file: {"inputs": [{"name": "file", "datatype": "BYTES", "shape": [1, 1], "data": [file]}]},
        decode=lambda response: float(response["outputs"][0]["data"][0]),
    ),
    Server("bentoml", ("bentoml",), encode=lambda file: {"files": [file]}, decode=lambda response: float(response[0])),
    Server("ray", ("ray",)),
)


@dataclass(frozen=True, slots=True)
class RunningServer:
    """A server that is ready, and the body to send to it."""

    process: psutil.Process
    port: int
    path: str
    body: Path

    def closed_loop(self, concurrency: int, seconds: float) -> dict[str, Any]:
        """Measure a closed loop of `concurrency` connections, generated by another process.

        Returns:
            The figures of `benchmarks.load`, and the processor time per response of the server and of its main thread.
        """
        target = ("127.0.0.1", str(self.port), self.path, str(self.body))
        server_before, main_thread_before = cpu_seconds(self.process), main_thread_seconds(self.process)
        figures = run_module("benchmarks.load", *target, str(concurrency), str(seconds))
        responses = max(1.0, figures["requests_per_second"] * seconds)
        return figures | {
            "server_cpu_seconds_per_request": (cpu_seconds(self.process) - server_before) / responses,
            "main_thread_cpu_seconds_per_request": (main_thread_seconds(self.process) - main_thread_before) / responses,
        }


@contextmanager
def run_server(
    server: Server, bundle: Bundle, sample: Path, *, msp: float | None = None, layout: PeerLayout = PeerLayout()
) -> Iterator[RunningServer]:
    """Run `server` with `bundle`.

    Args:
        server: The server to start.
        bundle: The bundle to serve.
        sample: The file to score.
        msp: The expected score of `sample`; None to check nothing.
        layout: The use of the machine by a peer.

    Raises:
        NotReady: The server does not start.
        WrongScore: The server returns another score than `msp`.
    """
    port = free_port()
    path = server.path.format(model=bundle.manifest.name)
    body = sample
    if server.encode is not None:
        body = bundle.path.parent / f"{server.name}.json"
        body.write_text(json.dumps(server.encode(base64.b64encode(sample.read_bytes()).decode())), encoding="utf-8")
    post = partial(_post, f"http://127.0.0.1:{port}{path}", body)
    command, environment = _command(server, bundle, port, layout)
    with running(
        command, environment, ready=lambda: post() is not None and _all_workers_ready(server, port)
    ) as process:
        if msp is not None:
            _check_score(server, post(), msp)
        yield RunningServer(process, port, path, body)


def _command(server: Server, bundle: Bundle, port: int, layout: PeerLayout) -> tuple[list[str], Mapping[str, str]]:
    """The command line and the environment variables that start `server`."""
    if server.workers is not None:
        models = str(bundle.path.parents[1])
        command = [str(server.python), "-m", "service", "--models", models, "--port", str(port)]
        # The server runs in a temporary folder: PYTHONPATH makes it import this checkout, not an installed package.
        command += ["--workers", str(server.workers), "--engine-process", "on" if server.engine_process else "off"]
        return [*command, "--log-level", "warning"], {"PYTHONPATH": str(ROOT)}
    return [str(server.python), str(server.script)], {
        "BENCHMARK_BUNDLE": str(bundle.path),
        "BENCHMARK_PORT": str(port),
        "BENCHMARK_WORKERS": str(layout.workers),
        "BENCHMARK_THREADS": str(layout.threads),
        "BENCHMARK_BATCH": str(layout.batch),
        "PYTHONPATH": str(SCRIPTS),
    }


def _all_workers_ready(server: Server, port: int) -> bool:
    """Whether all workers of this service are ready: the first one responds before the others are."""
    if server.workers in (None, 1):
        return True
    return f"ood_workers_ready {server.workers:.1f}" in httpx.get(f"http://127.0.0.1:{port}/metrics", timeout=30).text


def _post(url: str, body: Path) -> Any:
    """The parsed JSON response; None if there is none or its status is an error, as while a server starts."""
    content_type = {".png": "image/png", ".txt": "text/plain", ".json": "application/json"}[body.suffix]
    try:
        response = httpx.post(url, content=body.read_bytes(), headers={"Content-Type": content_type}, timeout=30)
        return response.json() if response.is_success else None
    except (httpx.HTTPError, ValueError):
        return None


def _check_score(server: Server, response: Any, msp: float) -> None:
    try:
        score = server.decode(response)
    except (KeyError, IndexError, TypeError, ValueError):
        raise WrongScore(f"{server.name} returned {str(response)[:200]}, which holds no score") from None
    if abs(score - msp) > TOLERANCE:
        raise WrongScore(f"{server.name} returned {score:g}, ONNX Runtime computes {msp:g}")
