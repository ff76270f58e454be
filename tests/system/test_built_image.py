"""Builds the image of the `cpu` target, and runs it like docker-compose.yml.

There is a single test, because the build takes a minute or more.
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

from service.auth.api_keys import digest_of
from tests.service.support.pictures import picture
from tests.support.tiny_bundle import make_tiny_bundle
from tests.support.waiting import until
from tests.system.support.compose import read_compose_file
from tests.system.support.engine import Engine
from tests.system.support.programs import free_port
from tests.system.support.scoring_clients import PNG, SCORE_PATH
from tests.system.support.service_process import ROOT, TIMEOUT_SECONDS

IMAGE = "localhost/ood-test-service"
KEY = "ood_a-key-of-alice"


@dataclass(frozen=True)
class Container:
    """A running container of the service."""

    engine: Engine
    name: str
    port: int

    def execute(self, *command: str) -> str:
        return self.engine("exec", self.name, *command)

    def is_ready(self) -> bool:
        try:
            return httpx.get(f"http://127.0.0.1:{self.port}/readyz", timeout=TIMEOUT_SECONDS).is_success
        except httpx.TransportError:
            return False


# The build downloads the base image and the packages.
@pytest.mark.timeout(1200)
def test_the_image_serves_with_the_options_of_the_compose_file(tmp_path: Path) -> None:
    engine = Engine(tmp_path)
    engine.build(context := copied_context(tmp_path / "context"), "cpu", IMAGE)
    it_contains_neither_training_nor_build_tools(engine)
    with running_container(engine, tmp_path) as container:
        it_scores_for_clients_with_a_key(container)
        it_runs_as_an_unprivileged_user_without_writable_folders(container)
        its_health_check_passes_once_it_is_ready(container)
        after_sigterm_it_answers_its_accepted_requests(container)
    a_change_of_the_code_rebuilds_one_layer(engine, context)


def copied_context(folder: Path) -> Path:
    """A copy of the build context: the files that .dockerignore includes."""
    included = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    for name in (*included, "Dockerfile", ".dockerignore"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(ROOT / name, folder / name)
    return folder


@contextmanager
def running_container(engine: Engine, folder: Path) -> Iterator[Container]:
    """Run the service of docker-compose.yml with a small model and one key; it is ready."""
    service = read_compose_file()["services"]["service"]
    assert service["read_only"]
    make_tiny_bundle(folder / "models")
    (folder / "keys").write_text(f"alice sha256:{digest_of(KEY)}\n")
    container = Container(engine, f"ood-test-{(port := free_port())}", port)
    flags = [
        "--read-only",
        *(f"--cap-drop={capability}" for capability in service["cap_drop"]),
        *(f"--security-opt={option}" for option in service["security_opt"]),
        *(f"--tmpfs={mount}" for mount in service["tmpfs"]),
        *(f"--env-file={ROOT / file}" for file in service["env_file"]),
        *(f"--env={name}={text}" for name, text in service["environment"].items()),
        f"--env=OOD_PORT={port}",
        *(f"--volume={folder / volume}" for volume in service["volumes"]),
        f"--volume={folder / 'keys'}:{service['environment']['OOD_API_KEYS_FILE']}:ro",
    ]
    engine.run("--detach", f"--name={container.name}", *flags, IMAGE)
    try:
        until(container.is_ready)
        yield container
    finally:
        engine("rm", "--force", container.name)


def it_contains_neither_training_nor_build_tools(engine: Engine) -> None:
    script = """
    for program in gcc cc g++ make git; do command -v $program; done
    python -c 'import importlib.util as i; print(*filter(i.find_spec, ["torch", "lightning", "training", "pytest"]))'
    """
    assert engine.run("--rm", "--entrypoint=sh", IMAGE, "-c", script) == ""


def it_scores_for_clients_with_a_key(container: Container) -> None:
    def score(**headers: str) -> httpx.Response:
        url = f"http://127.0.0.1:{container.port}{SCORE_PATH}"
        return httpx.post(url, content=picture(), headers=PNG | headers, timeout=TIMEOUT_SECONDS)

    assert score(authorization=f"Bearer {KEY}").json()["results"][0]["prediction"]["label"] == "red"
    assert score().status_code == 401


def it_runs_as_an_unprivileged_user_without_writable_folders(container: Container) -> None:
    assert container.execute("id", "-u") == container.execute("id", "-g") == "10001"
    for file in ("/x", "/app/x", "/models/x", "/venv/x"):
        assert container.execute("sh", "-c", f"touch {file} 2>&1 || true").endswith("Read-only file system"), file
    # The user could not write if the root file system were writable either.
    assert container.execute("find", "/app", "/venv", "-user", "ood") == ""


def its_health_check_passes_once_it_is_ready(container: Container) -> None:
    image = container.engine.inspect(IMAGE)
    kind, *command = (image.get("Healthcheck") or image["Config"]["Healthcheck"])["Test"]
    assert kind == "CMD"
    container.execute(*command)


def after_sigterm_it_answers_its_accepted_requests(container: Container) -> None:
    body = picture()
    head = f"POST {SCORE_PATH} HTTP/1.1\r\nHost: x\r\nX-API-Key: {KEY}\r\nContent-Type: image/png\r\n"
    with socket.create_connection(("127.0.0.1", container.port), timeout=TIMEOUT_SECONDS) as connection:
        connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body[:10])
        stop = threading.Thread(target=container.engine, args=("stop", "--time", "40", container.name))
        stop.start()
        until(lambda: not container.is_ready())
        connection.sendall(body[10:])
        response = b"".join(iter(lambda: connection.recv(65536), b""))
        stop.join()
    assert response.startswith(b"HTTP/1.1 200 ")
    assert container.engine("inspect", "--format", "{{.State.ExitCode}}", container.name) == "0"


def a_change_of_the_code_rebuilds_one_layer(engine: Engine, context: Path) -> None:
    before = engine.inspect(IMAGE)["RootFS"]["Layers"]
    with (context / "service" / "__init__.py").open("a") as file:
        file.write("# A change.\n")
    engine.build(context, "cpu", f"{IMAGE}:changed")
    after = engine.inspect(f"{IMAGE}:changed")["RootFS"]["Layers"]
    engine("rmi", f"{IMAGE}:changed")
    assert after[:-1] == before[:-1]
    assert after[-1] != before[-1]
