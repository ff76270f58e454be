"""The image of the `cpu` target: built, and run as docker-compose.yml runs it.

One story, told by one test: to build it takes a minute or more.
"""

import shutil
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import yaml

from service.auth.api_keys import digest_of
from tests.service.support.pictures import picture
from tests.support.tiny_bundle import make_tiny_bundle
from tests.support.waiting import until
from tests.system.conftest import ROOT
from tests.system.support.engine import Engine
from tests.system.support.programs import free_port

IMAGE = "localhost/ood-test-service"
KEY = "ood_a-key-of-alice"
SCORE = "/v1/models/tiny/score"


@dataclass(frozen=True)
class Container:
    """A running one, by its name and port."""

    engine: Engine
    name: str
    port: int

    def execute(self, *command: str) -> str:
        return self.engine("exec", self.name, *command)

    def ready(self) -> bool:
        try:
            return httpx.get(f"http://127.0.0.1:{self.port}/readyz", timeout=5).is_success
        except httpx.TransportError:
            return False


# Base image, packages and the service come over the network.
@pytest.mark.timeout(1200)
def test_the_image_serves_as_the_compose_file_runs_it(tmp_path: Path) -> None:
    engine = Engine(tmp_path)
    engine.build(context := copied_context(tmp_path / "context"), "cpu", IMAGE)
    it_holds_no_training_and_nothing_to_build_with(engine)
    with composed(engine, tmp_path) as container:
        it_scores_for_who_has_a_key(container)
        it_runs_as_nobody_special_and_can_change_nothing(container)
        its_health_check_passes_once_it_is_ready(container)
        sigterm_reaches_it_and_what_it_accepted_is_answered(container)
    a_change_of_the_code_makes_one_layer_anew(engine, context)


def copied_context(folder: Path) -> Path:
    """A copy of what .dockerignore lets through, to change."""
    let_through = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    for name in (*let_through, "Dockerfile", ".dockerignore"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(ROOT / name, folder / name)
    return folder


@contextmanager
def composed(engine: Engine, folder: Path) -> Iterator[Container]:
    """The service of docker-compose.yml with a small model and one key, ready."""
    service = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))["services"]["service"]
    assert service["read_only"]
    make_tiny_bundle(folder / "models")
    (folder / "keys").write_text(f"alice sha256:{digest_of(KEY)}\n")
    container = Container(engine, f"ood-test-{(port := free_port())}", port)
    flags = [
        "--read-only",
        *(f"--cap-drop={each}" for each in service["cap_drop"]),
        *(f"--security-opt={each}" for each in service["security_opt"]),
        *(f"--tmpfs={each}" for each in service["tmpfs"]),
        *(f"--env-file={ROOT / each}" for each in service["env_file"]),
        *(f"--env={name}={text}" for name, text in service["environment"].items()),
        f"--env=OOD_PORT={port}",
        *(f"--volume={folder / each}" for each in service["volumes"]),
        f"--volume={folder / 'keys'}:{service['environment']['OOD_API_KEYS_FILE']}:ro",
    ]
    engine.run("--detach", f"--name={container.name}", *flags, IMAGE)
    try:
        until(container.ready, 120)
        yield container
    finally:
        engine("rm", "--force", container.name)


def it_holds_no_training_and_nothing_to_build_with(engine: Engine) -> None:
    look = """
    for each in gcc cc g++ make git; do command -v $each; done
    python -c 'import importlib.util as i; print(*filter(i.find_spec, ["torch", "lightning", "training", "pytest"]))'
    """
    assert engine.run("--rm", "--entrypoint=sh", IMAGE, "-c", look) == ""


def it_scores_for_who_has_a_key(container: Container) -> None:
    def score(**headers: str) -> httpx.Response:
        headers |= {"content-type": "image/png"}
        return httpx.post(f"http://127.0.0.1:{container.port}{SCORE}", content=picture(), headers=headers, timeout=30)

    assert score(authorization=f"Bearer {KEY}").json()["results"][0]["prediction"]["label"] == "red"
    assert score().status_code == 401


def it_runs_as_nobody_special_and_can_change_nothing(container: Container) -> None:
    assert container.execute("id", "-u") == container.execute("id", "-g") == "10001"
    for place in ("/x", "/app/x", "/models/x", "/venv/x"):
        assert container.execute("sh", "-c", f"touch {place} 2>&1 || true").endswith("Read-only file system"), place
    # Nor where the root file system is not read-only.
    assert container.execute("find", "/app", "/venv", "-user", "ood") == ""


def its_health_check_passes_once_it_is_ready(container: Container) -> None:
    image = container.engine.inspect(IMAGE)
    kind, *command = (image.get("Healthcheck") or image["Config"]["Healthcheck"])["Test"]
    assert kind == "CMD"
    container.execute(*command)


def sigterm_reaches_it_and_what_it_accepted_is_answered(container: Container) -> None:
    body = picture()
    head = f"POST {SCORE} HTTP/1.1\r\nHost: x\r\nX-API-Key: {KEY}\r\nContent-Type: image/png\r\n"
    with socket.create_connection(("127.0.0.1", container.port), timeout=30) as connection:
        connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body[:10])
        stop = threading.Thread(target=container.engine, args=("stop", "--time", "40", container.name))
        stop.start()
        until(lambda: not container.ready())
        connection.sendall(body[10:])
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
        stop.join()
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert container.engine("inspect", "--format", "{{.State.ExitCode}}", container.name) == "0"


def a_change_of_the_code_makes_one_layer_anew(engine: Engine, context: Path) -> None:
    before = engine.inspect(IMAGE)["RootFS"]["Layers"]
    with (context / "service" / "__init__.py").open("a") as file:
        file.write("# A change.\n")
    engine.build(context, "cpu", f"{IMAGE}:changed")
    after = engine.inspect(f"{IMAGE}:changed")["RootFS"]["Layers"]
    engine("rmi", f"{IMAGE}:changed")
    assert after[:-1] == before[:-1]
    assert after[-1] != before[-1]
