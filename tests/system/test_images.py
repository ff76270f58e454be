"""The Dockerfile and the compose files, by what can be checked without an engine: test_built_image.py has one."""

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
from tests.system.conftest import ROOT, Service, Start
from tests.system.support.compose import COMPOSE_FILES, composed, mounts, of_this_machine
from tests.system.support.gateway import KEY_TEMPLATES, TEMPLATES, TLS_TEMPLATES, env_file
from tests.system.support.programs import require_program
from tests.system.support.watching import DASHBOARDS, PROMETHEUS, ROUTES

DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
TARGETS = {"cpu": "service,grpc", "gpu": "service-gpu,grpc", "training": "training,transformers"}


def stages() -> dict[str, list[tuple[str, str]]]:
    """The instructions of each stage by its name, behind those of the stage that it goes on from."""
    text = re.sub(r"\\\n\s*", "", re.sub(r"^#.*\n", "", DOCKERFILE, flags=re.MULTILINE))
    found: dict[str, list[tuple[str, str]]] = {}
    for line in filter(None, text.splitlines()):
        word, rest = line.split(maxsplit=1)
        if word == "FROM":
            base, name = rest.split(" AS ")
            found[name] = list(found.get(base, []))
        elif found:
            list(found.values())[-1].append((word, rest))
    return found


@pytest.fixture(scope="module")
def services() -> dict[str, dict[str, Any]]:
    return dict(composed()["services"])


def test_the_dockerfile_is_free_of_lint() -> None:
    done = subprocess.run(
        [require_program("hadolint"), "Dockerfile"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("file", COMPOSE_FILES, ids=lambda file: file.name)
def test_the_compose_files_are_valid_by_the_compose_specification(file: Path) -> None:
    command = [require_program("check-jsonschema"), "--builtin-schema", "vendor.compose-spec", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(("target", "extra"), TARGETS.items())
def test_images_are_installed_by_the_script_that_make_installs_with(target: str, extra: str) -> None:
    runs = [rest for word, rest in stages()[f"install-{target}"] if word == "RUN"]
    assert runs[-1].split(" ", 1)[1] == f"deploy/install /venv/bin/python {extra}"
    assert not [rest for rest in runs if re.search(r"\bpip\b", rest.replace("/root/.cache/pip", ""))]
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert "INSTALL := deploy/install $(BIN)/python" in makefile
    assert "pip install" not in makefile


def test_the_install_script_installs_an_extra_at_the_tested_versions(tmp_path: Path) -> None:
    spy = tmp_path / "python"
    spy.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    spy.chmod(0o755)
    done = subprocess.run(["deploy/install", str(spy), "service"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [
        *("-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-c", "constraints.txt", "-e", ".[service]")
    ]


@pytest.mark.parametrize("target", TARGETS)
def test_a_change_of_the_code_installs_nothing(target: str) -> None:
    installing, final = stages()[f"install-{target}"], stages()[target]
    copied = {name for word, rest in installing if word == "COPY" for name in rest.split()[:-1]}
    assert copied == {"pyproject.toml", "constraints.txt", "LICENSE", "deploy/install"}
    code = next(index for index, (word, rest) in enumerate(final) if (word, rest) == ("COPY", "bundle bundle"))
    assert {word for word, _ in final[code:]} <= {"COPY", "ENTRYPOINT"}


@pytest.mark.parametrize("target", TARGETS)
def test_images_run_as_nobody_special_under_an_init(target: str) -> None:
    final = dict(stages()[target])
    assert final["USER"] == "10001:10001"
    assert final["ENTRYPOINT"].startswith('["tini", "--", "python", "-m", ')


@pytest.mark.parametrize("target", ["cpu", "gpu"])
def test_serving_images_hold_no_training_and_set_only_settings_that_exist(target: str) -> None:
    final = stages()[target]
    assert not [rest for word, rest in final if word == "COPY" and "training" in rest]
    variables = {name for word, rest in final if word == "ENV" for name in re.findall(r"OOD_(\w+)=", rest)}
    assert {name.lower() for name in variables} <= set(Settings.model_fields)
    assert {"HOST", "PORT", "MODELS", "PROVIDER"} <= variables


def test_the_health_check_follows_readiness(tmp_path: Path, start: Start) -> None:
    make_tiny_bundle(tmp_path / "models")
    service: Service = start(tmp_path / "models")
    check = next(rest for word, rest in stages()["cpu"] if word == "HEALTHCHECK").split("CMD ", 1)[1]
    command = [sys.executable, *yaml.safe_load(check)[1:]]
    port = service.address.rsplit(":", 1)[1]
    assert subprocess.run(command, env=os.environ | {"OOD_PORT": port}, check=False).returncode == 0
    assert service.end() == 0
    gone = subprocess.run(command, env=os.environ | {"OOD_PORT": port}, capture_output=True, check=False)
    assert gone.returncode == 1


def test_only_the_gateway_is_published(services: dict[str, dict[str, Any]]) -> None:
    assert [name for name, each in services.items() if "ports" in each] == ["gateway"]
    assert {"outside"} & set(services["gateway"]["networks"])
    assert not [name for name, each in services.items() if "outside" in each["networks"] and name != "gateway"]


def test_every_container_is_limited_and_cannot_change_itself(services: dict[str, dict[str, Any]]) -> None:
    for name, each in services.items():
        assert each["read_only"] is True, name
        assert each["cap_drop"] == ["ALL"], name
        assert {"cpus", "memory", "pids"} <= set(each["deploy"]["resources"]["limits"]), name


def test_models_are_mounted_read_only_and_secrets_are_files(services: dict[str, dict[str, Any]]) -> None:
    for name in ("service", "service-gpu"):
        assert services[name]["volumes"] == ["./models:/models:ro"]
        assert services[name]["environment"]["OOD_API_KEYS_FILE"] == "/run/secrets/api_keys"
        ours = {each for each in services[name]["environment"] if each.startswith("OOD_")}
        assert {each.removeprefix("OOD_").lower() for each in ours} <= set(Settings.model_fields)
    for each in services.values():
        for variable, text in (each.get("environment") or {}).items():
            secret = re.search("KEY|PASSWORD|TOKEN|SECRET", variable)
            assert secret is None or text.startswith("/run/secrets/"), variable
    assert "/deploy/secrets/" in (ROOT / ".gitignore").read_text(encoding="utf-8").split()


def test_the_gateway_waits_for_a_healthy_service_and_gets_the_services_limits(
    services: dict[str, dict[str, Any]],
) -> None:
    waits = services["gateway"]["depends_on"]
    assert {name: each["condition"] for name, each in waits.items()} == dict.fromkeys(
        ("service", "service-gpu"), "service_healthy"
    )
    limits = "deploy/limits.env"
    assert all(limits in services[name]["env_file"] for name in ("service", "service-gpu", "gateway"))
    given = {name for file in services["gateway"]["env_file"] for name in env_file(ROOT / file)}
    template = (ROOT / "deploy/gateway/templates/default.conf.template").read_text(encoding="utf-8")
    # The image makes NGINX_LOCAL_RESOLVERS itself where NGINX_ENTRYPOINT_LOCAL_RESOLVERS is set.
    assert set(re.findall(r"\$\{(\w+)\}", template)) - {"NGINX_LOCAL_RESOLVERS"} <= given
    assert "NGINX_ENTRYPOINT_LOCAL_RESOLVERS" in given


@pytest.mark.parametrize("file", COMPOSE_FILES, ids=lambda file: file.name)
def test_what_is_mounted_is_in_the_repository(file: Path) -> None:
    services = composed(file.name)["services"]
    missing = [path for name in services for path in mounts(composed(file.name), name).values() if not path.exists()]
    assert missing == []


@pytest.mark.parametrize("file", COMPOSE_FILES, ids=lambda file: file.name)
def test_secrets_are_those_that_make_makes_or_the_documentation_asks_for(file: Path, tmp_path: Path) -> None:
    whole = composed(file.name)
    secrets = {name: each["file"] for name, each in whole.get("secrets", {}).items()}
    assert set(secrets) == {name for each in whole["services"].values() for name in each.get("secrets", [])}
    shutil.copytree(ROOT / "deploy" / "alertmanager", tmp_path / "deploy" / "alertmanager")
    binaries = Path(sys.executable).parent
    make = ["make", "-f", str(ROOT / "Makefile"), f"BIN={binaries}", "-o", str(binaries / ".service"), "secrets"]
    subprocess.run(make, cwd=tmp_path, capture_output=True, timeout=120, check=True)
    documented = re.findall(r"`(deploy/secrets/tls\.crt)` and `(tls\.key)`", (ROOT / "docs" / "deploy.md").read_text())
    asked_for = {"deploy/secrets/" + Path(name).name for pair in documented for name in pair}
    files = (tmp_path / "deploy" / "secrets").iterdir()
    made = {str(path.relative_to(tmp_path)) for path in files if path.stat().st_size}
    assert set(secrets.values()) <= made | asked_for


def test_programs_read_the_files_that_the_tests_check() -> None:
    whole = composed()
    (config,) = [
        flag.removeprefix("--config.file=")
        for flag in whole["services"]["prometheus"]["command"]
        if flag.startswith("--config.file=")
    ]
    assert of_this_machine(whole, "prometheus", config) == PROMETHEUS
    assert of_this_machine(whole, "alertmanager", "/etc/alertmanager/routes.yml") == ROUTES
    provisioning = of_this_machine(whole, "grafana", "/etc/grafana/provisioning")
    (provider,) = yaml.safe_load((provisioning / "dashboards" / "ood-scoring.yml").read_text())["providers"]
    assert of_this_machine(whole, "grafana", provider["options"]["path"]) == DASHBOARDS
    templates = {path for file in COMPOSE_FILES if "gateway" in composed(file.name)["services"]
                 for path in mounts(composed(file.name), "gateway").values()}  # fmt: skip
    assert templates == {path for folder in (TEMPLATES, TLS_TEMPLATES, KEY_TEMPLATES) for path in folder.iterdir()}


def test_a_container_is_given_longer_to_stop_than_the_service_to_drain(services: dict[str, dict[str, Any]]) -> None:
    for name in ("service", "service-gpu"):
        assert int(services[name]["stop_grace_period"].removesuffix("s")) > Settings().grace_seconds
