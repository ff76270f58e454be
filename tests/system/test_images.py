"""The Dockerfile and the compose files, checked without an engine. test_built_image.py builds an image."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from service import Settings
from tests.support.tiny_bundle import make_tiny_bundle
from tests.support.waiting import until
from tests.system.support.compose import COMPOSE_FILES, mounted_file, mounts, read_compose_file
from tests.system.support.deployment import DEPLOY_PAGE, DOCKERFILE
from tests.system.support.gateway import KEY_TEMPLATES, TEMPLATES, TLS_TEMPLATES, env_file
from tests.system.support.programs import require_program
from tests.system.support.prometheus import DASHBOARDS, PROMETHEUS, ROUTES
from tests.system.support.service_process import ROOT, Start

TARGETS = {"cpu": "service,grpc", "gpu": "service-gpu,grpc", "training": "training,transformers"}


def stages() -> dict[str, list[tuple[str, str]]]:
    """The instructions of each stage by its name, after those of its base stage: pairs of keyword and arguments."""
    text = re.sub(r"\\\n\s*", "", re.sub(r"^#.*\n", "", DOCKERFILE, flags=re.MULTILINE))
    instructions: dict[str, list[tuple[str, str]]] = {}
    for line in filter(None, text.splitlines()):
        keyword, arguments = line.split(maxsplit=1)
        if keyword == "FROM":
            base, name = arguments.split(" AS ")
            instructions[name] = list(instructions.get(base, []))
        elif instructions:
            list(instructions.values())[-1].append((keyword, arguments))
    return instructions


@pytest.fixture(scope="module")
def services() -> dict[str, dict[str, Any]]:
    return dict(read_compose_file()["services"])


def test_hadolint_finds_nothing_in_the_dockerfile() -> None:
    result = subprocess.run(
        [require_program("hadolint"), "Dockerfile"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize("file", COMPOSE_FILES, ids=lambda file: file.name)
def test_the_compose_files_are_valid_by_the_compose_specification(file: Path) -> None:
    command = [require_program("check-jsonschema"), "--builtin-schema", "vendor.compose-spec", str(file)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize(("target", "extra"), TARGETS.items())
def test_images_and_make_install_with_the_same_script(target: str, extra: str) -> None:
    commands = [arguments for keyword, arguments in stages()[f"install-{target}"] if keyword == "RUN"]
    assert commands[-1].split(" ", 1)[1] == f"deploy/install /venv/bin/python {extra}"
    assert not [command for command in commands if re.search(r"\bpip\b", command.replace("/root/.cache/pip", ""))]
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert "INSTALL := deploy/install $(BIN)/python" in makefile
    # The tests of CUDA code put another build of ONNX Runtime into a folder of its own.
    assert not [line for line in makefile.splitlines() if "pip install" in line and "--target $(GPU)" not in line]


def test_the_install_script_installs_an_extra_at_the_tested_versions(tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    python.chmod(0o755)
    command = ["deploy/install", str(python), "service"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout.split() == [
        *("-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-c", "constraints.txt", "-e", ".[service]")
    ]


@pytest.mark.parametrize("target", TARGETS)
def test_a_change_of_the_code_installs_nothing(target: str) -> None:
    installing, final = stages()[f"install-{target}"], stages()[target]
    copied = {name for keyword, arguments in installing if keyword == "COPY" for name in arguments.split()[:-1]}
    assert copied == {"pyproject.toml", "constraints.txt", "LICENSE", "deploy/install"}
    first_copy = final.index(("COPY", "bundle bundle"))
    assert {keyword for keyword, _ in final[first_copy:]} <= {"COPY", "ENTRYPOINT"}


@pytest.mark.parametrize("target", TARGETS)
def test_images_run_as_an_unprivileged_user_under_an_init_process(target: str) -> None:
    final = dict(stages()[target])
    assert final["USER"] == "10001:10001"
    assert final["ENTRYPOINT"].startswith('["tini", "--", "python", "-m", ')


@pytest.mark.parametrize("target", ["cpu", "gpu"])
def test_serving_images_contain_no_training_and_set_only_existing_settings(target: str) -> None:
    final = stages()[target]
    assert not [arguments for keyword, arguments in final if keyword == "COPY" and "training" in arguments]
    environment = " ".join(arguments for keyword, arguments in final if keyword == "ENV")
    variables = set(re.findall(r"OOD_(\w+)=", environment))
    assert {name.lower() for name in variables} <= set(Settings.model_fields)
    assert {"HOST", "PORT", "MODELS", "PROVIDER"} <= variables


def test_the_health_check_succeeds_while_the_service_is_ready(tmp_path: Path, start: Start) -> None:
    make_tiny_bundle(tmp_path / "models")
    service = start(tmp_path / "models")
    health_check = next(arguments for keyword, arguments in stages()["cpu"] if keyword == "HEALTHCHECK")
    command = [sys.executable, *yaml.safe_load(health_check.split("CMD ", 1)[1])[1:]]

    def exit_code() -> int:
        environment = os.environ | {"OOD_PORT": str(service.port)}
        return subprocess.run(command, env=environment, capture_output=True, check=False).returncode

    # A busy machine may need more than one attempt, as a container may.
    until(lambda: exit_code() == 0)
    assert service.end() == 0
    assert exit_code() == 1


def test_only_the_gateway_is_published(services: dict[str, dict[str, Any]]) -> None:
    assert [name for name, service in services.items() if "ports" in service] == ["gateway"]
    assert [name for name, service in services.items() if "public" in service["networks"]] == ["gateway"]


def test_every_container_has_limits_and_a_read_only_file_system(services: dict[str, dict[str, Any]]) -> None:
    for name, service in services.items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert {"cpus", "memory", "pids"} <= set(service["deploy"]["resources"]["limits"]), name


def test_models_are_mounted_read_only_and_secrets_are_files(services: dict[str, dict[str, Any]]) -> None:
    for name in ("service", "service-gpu"):
        assert services[name]["volumes"] == ["./models:/models:ro"]
        assert services[name]["environment"]["OOD_API_KEYS_FILE"] == "/run/secrets/api_keys"
        settings = [variable for variable in services[name]["environment"] if variable.startswith("OOD_")]
        assert {setting.removeprefix("OOD_").lower() for setting in settings} <= set(Settings.model_fields)
    for service in services.values():
        for variable, text in (service.get("environment") or {}).items():
            secret = re.search("KEY|PASSWORD|TOKEN|SECRET", variable)
            assert secret is None or text.startswith("/run/secrets/"), variable
    assert "/deploy/secrets/" in (ROOT / ".gitignore").read_text(encoding="utf-8").split()


def test_the_gateway_waits_for_a_healthy_service_and_has_its_limits(services: dict[str, dict[str, Any]]) -> None:
    dependencies = services["gateway"]["depends_on"]
    assert {name: dependency["condition"] for name, dependency in dependencies.items()} == dict.fromkeys(
        ("service", "service-gpu"), "service_healthy"
    )
    limits = "deploy/limits.env"
    assert all(limits in services[name]["env_file"] for name in ("service", "service-gpu", "gateway"))
    variables = {name for file in services["gateway"]["env_file"] for name in env_file(ROOT / file)}
    template = (ROOT / "deploy/gateway/templates/default.conf.template").read_text(encoding="utf-8")
    # With NGINX_ENTRYPOINT_LOCAL_RESOLVERS the image sets NGINX_LOCAL_RESOLVERS.
    assert set(re.findall(r"\$\{(\w+)\}", template)) - {"NGINX_LOCAL_RESOLVERS"} <= variables
    assert "NGINX_ENTRYPOINT_LOCAL_RESOLVERS" in variables


@pytest.mark.parametrize("file", COMPOSE_FILES, ids=lambda file: file.name)
def test_mounted_files_are_in_the_repository(file: Path) -> None:
    compose_file = read_compose_file(file.name)
    paths = [path for name in compose_file["services"] for path in mounts(compose_file, name).values()]
    assert [path for path in paths if not path.exists()] == []


@pytest.mark.parametrize("file", COMPOSE_FILES, ids=lambda file: file.name)
def test_every_secret_is_created_by_make_or_by_a_documented_command(file: Path, tmp_path: Path) -> None:
    compose_file = read_compose_file(file.name)
    secrets = {name: secret["file"] for name, secret in compose_file.get("secrets", {}).items()}
    used = {name for service in compose_file["services"].values() for name in service.get("secrets", [])}
    assert set(secrets) == used
    shutil.copytree(ROOT / "deploy" / "alertmanager", tmp_path / "deploy" / "alertmanager")
    binaries = Path(sys.executable).parent
    make = ["make", "-f", str(ROOT / "Makefile"), f"BIN={binaries}", "-o", str(binaries / ".service"), "secrets"]
    subprocess.run(make, cwd=tmp_path, capture_output=True, timeout=120, check=True)
    names = re.findall(r"`(deploy/secrets/tls\.crt)` and `(tls\.key)`", DEPLOY_PAGE)
    documented = {"deploy/secrets/" + Path(name).name for pair in names for name in pair}
    files = (tmp_path / "deploy" / "secrets").iterdir()
    created = {str(path.relative_to(tmp_path)) for path in files if path.stat().st_size}
    assert set(secrets.values()) <= created | documented


def test_containers_read_the_files_that_the_tests_check() -> None:
    compose_file = read_compose_file()
    flags = dict(flag.split("=", 1) for flag in compose_file["services"]["prometheus"]["command"])
    assert mounted_file(compose_file, "prometheus", flags["--config.file"]) == PROMETHEUS
    assert mounted_file(compose_file, "alertmanager", "/etc/alertmanager/routes.yml") == ROUTES
    provisioning = mounted_file(compose_file, "grafana", "/etc/grafana/provisioning")
    (provider,) = yaml.safe_load((provisioning / "dashboards" / "ood-scoring.yml").read_text())["providers"]
    assert mounted_file(compose_file, "grafana", provider["options"]["path"]) == DASHBOARDS
    files = [read_compose_file(file.name) for file in COMPOSE_FILES]
    templates = {path for file in files if "gateway" in file["services"] for path in mounts(file, "gateway").values()}
    assert templates == {path for folder in (TEMPLATES, TLS_TEMPLATES, KEY_TEMPLATES) for path in folder.iterdir()}


def test_the_stop_grace_period_of_a_container_exceeds_the_drain_of_the_service(
    services: dict[str, dict[str, Any]],
) -> None:
    for name in ("service", "service-gpu"):
        assert int(services[name]["stop_grace_period"].removesuffix("s")) > Settings().grace_seconds
