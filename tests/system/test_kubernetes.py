"""The Kubernetes manifests: valid by the API's own schemas, and one with the service, the image and the other files."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from service.settings import Settings, load_settings, unknown_variables
from tests.service.conftest import running_service
from tests.system.conftest import ROOT
from tests.system.support.deployment import DOCKERFILE, DOCUMENTED, IMAGE, KUBERNETES, VERSIONS
from tests.system.support.gateway import env_file
from tests.system.support.kustomize import Object, build, merged, one, read

MONITORING = KUBERNETES / "monitoring"
OVERLAYS = {"cpu": "service", "gpu": "service-gpu"}
"""The overlays, and the service of docker-compose.yml that each is the equal of."""


@pytest.fixture(scope="module", params=OVERLAYS)
def overlay(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def objects(overlay: str) -> list[Object]:
    return build(KUBERNETES / "overlays" / overlay)


@pytest.fixture(scope="module")
def pod(objects: list[Object]) -> Object:
    """The Deployment's template."""
    return dict(one(objects, "Deployment")["spec"]["template"])


@pytest.fixture(scope="module")
def container(pod: Object) -> Object:
    (only,) = pod["spec"]["containers"]
    return dict(only)


@pytest.fixture(scope="module")
def settings(objects: list[Object]) -> dict[str, str]:
    return dict(one(objects, "ConfigMap", "ood-settings")["data"])


def test_a_patch_changes_entries_by_their_name_and_keeps_the_others() -> None:
    base = {"containers": [{"name": "a", "image": "x", "args": [1, 2]}, {"name": "b"}], "kept": 1}
    change = {"containers": [{"name": "a", "args": [3]}, {"name": "c"}]}
    assert merged(base, change) == {
        "containers": [{"name": "a", "image": "x", "args": [3]}, {"name": "b"}, {"name": "c"}],
        "kept": 1,
    }


@pytest.mark.parametrize("version", VERSIONS)
def test_every_object_is_valid_by_the_schema_of_its_kind(version: str, objects: list[Object]) -> None:
    for each in objects:
        kubernetes_validate.validate(each, version, strict=True)


def test_every_file_belongs_to_a_kustomization() -> None:
    listed = set()
    for file in KUBERNETES.rglob("kustomization.yaml"):
        (spec,) = read(file)
        patches = [patch["path"] for patch in spec.get("patches", [])]
        listed |= {file, *((file.parent / name).resolve() for name in (*spec["resources"], *patches))}
    assert set(KUBERNETES.rglob("*.yaml")) - listed == {MONITORING / "adapter.yaml"}


def test_every_setting_is_one_that_the_service_has_and_takes(
    settings: dict[str, str], container: Object, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert unknown_variables(settings) == {}
    assert container["envFrom"] == [{"configMapRef": {"name": "ood-settings"}}]
    for name, text in (IMAGE | settings).items():
        monkeypatch.setenv(name, text)
    assert load_settings().models == "/models"


def test_limits_are_those_of_the_gateway(settings: dict[str, str]) -> None:
    limits = env_file(ROOT / "deploy" / "limits.env")
    assert limits == {name: settings[name] for name in limits}


def test_no_service_of_the_namespace_can_look_like_a_setting(pod: Object) -> None:
    # `ood-scoring` would come as OOD_SCORING_PORT and so on, a Service `ood` as OOD_PORT.
    assert pod["spec"]["enableServiceLinks"] is False


def test_the_ports_are_the_images(objects: list[Object], container: Object, pod: Object) -> None:
    assert container["ports"] == [{"name": "http", "containerPort": int(IMAGE["OOD_PORT"])}]
    assert f"EXPOSE {IMAGE['OOD_PORT']}" in DOCKERFILE
    assert Settings.model_fields["port"].default == int(IMAGE["OOD_PORT"])
    assert pod["metadata"]["annotations"]["prometheus.io/port"] == IMAGE["OOD_PORT"]
    (port,) = one(objects, "Service")["spec"]["ports"]
    (rule,) = one(objects, "NetworkPolicy")["spec"]["ingress"]
    assert port["targetPort"] == rule["ports"][0]["port"] == "http"


def test_probes_and_scrapes_ask_what_the_service_answers(container: Object, pod: Object, tiny_bundle: Path) -> None:
    probes = [container[name]["httpGet"] for name in ("startupProbe", "readinessProbe", "livenessProbe")]
    assert [probe["path"] for probe in probes] == ["/readyz", "/readyz", "/healthz"]
    assert {probe["port"] for probe in probes} == {"http"}
    scraped = pod["metadata"]["annotations"]["prometheus.io/path"]
    with running_service(tiny_bundle.parents[1]) as live:
        for path in (*(probe["path"] for probe in probes), scraped):
            assert live.client.get(path).status_code == 200


def test_a_replica_has_the_time_to_answer_what_it_accepted(
    pod: Object, container: Object, settings: dict[str, str]
) -> None:
    before = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    grace = float(settings["OOD_GRACE_SECONDS"])
    assert grace >= float(settings["OOD_TIMEOUT_MS"]) / 1000
    assert pod["spec"]["terminationGracePeriodSeconds"] >= before + grace + 5


def test_what_pods_refer_to_exists(objects: list[Object], pod: Object, container: Object) -> None:
    volumes = {volume["name"]: volume for volume in pod["spec"]["volumes"]}
    assert {mount["name"] for mount in container["volumeMounts"]} == set(volumes)
    assert one(objects, "PersistentVolumeClaim", volumes["models"]["persistentVolumeClaim"]["claimName"])
    secret = volumes["api-keys"]["secret"]
    # Not in the repository: the documentation makes it.
    (made,) = re.findall(r"kubectl .*create secret generic (\S+) --from-file=(\S+)=deploy/secrets/api-keys", DOCUMENTED)
    assert made == (secret["secretName"], secret["items"][0]["key"])


def test_models_and_keys_lie_where_the_service_looks_and_cannot_be_written(
    container: Object, pod: Object, settings: dict[str, str]
) -> None:
    mounts = {mount["mountPath"]: mount for mount in container["volumeMounts"]}
    assert mounts[IMAGE["OOD_MODELS"]]["name"] == "models"
    assert mounts[IMAGE["OOD_MODELS"]]["readOnly"]
    keys = Path(settings["OOD_API_KEYS_FILE"])
    mount = mounts[str(keys.parent)]
    assert mount["readOnly"]
    # A file that is mounted by itself would never change, and keys are read again when they do.
    assert "subPath" not in mount
    (volume,) = [volume for volume in pod["spec"]["volumes"] if volume["name"] == mount["name"]]
    assert volume["secret"]["items"][0]["path"] == keys.name


def test_pods_are_as_restricted_as_their_namespace_demands(
    objects: list[Object], pod: Object, container: Object
) -> None:
    labels = one(objects, "Namespace")["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"
    security = pod["spec"]["securityContext"]
    assert security["runAsNonRoot"]
    assert security["seccompProfile"] == {"type": "RuntimeDefault"}
    assert f"USER {security['runAsUser']}:{security['runAsGroup']}" in DOCKERFILE
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert pod["spec"]["automountServiceAccountToken"] is False


def test_everything_selects_the_pods(objects: list[Object], pod: Object) -> None:
    labels = pod["metadata"]["labels"]
    deployment, service, disruption, network = (
        one(objects, kind)["spec"] for kind in ("Deployment", "Service", "PodDisruptionBudget", "NetworkPolicy")
    )
    assert deployment["selector"] == disruption["selector"] == network["podSelector"] == {"matchLabels": labels}
    assert service["selector"] == labels
    assert {each["metadata"].get("namespace") for each in objects if each["kind"] != "Namespace"} == {
        one(objects, "Namespace")["metadata"]["name"]
    }


def test_the_service_reaches_nothing_and_is_reached_by_whom_the_documentation_says(objects: list[Object]) -> None:
    policy = one(objects, "NetworkPolicy")["spec"]
    assert set(policy["policyTypes"]) == {"Ingress", "Egress"}
    assert policy["egress"] == []
    ((name, value),) = policy["ingress"][0]["from"][0]["namespaceSelector"]["matchLabels"].items()
    assert f"kubectl label namespace ingress-nginx {name}={value}" in DOCUMENTED


def test_resources_are_those_of_the_compose_file(overlay: str, container: Object) -> None:
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
    composed = compose["services"][OVERLAYS[overlay]]["deploy"]["resources"]
    limits = container["resources"]["limits"]
    assert limits["cpu"] == composed["limits"]["cpus"]
    assert limits["memory"] == composed["limits"]["memory"] + "i"
    gpus = composed.get("reservations", {}).get("devices", [{"count": 0}])[0]["count"]
    assert int(limits.get("nvidia.com/gpu", 0)) == gpus
    assert container["image"] == compose["services"][OVERLAYS[overlay]]["image"]


def test_the_autoscaler_alone_says_how_many_replicas_there_are(objects: list[Object], container: Object) -> None:
    deployment, scaler = one(objects, "Deployment"), one(objects, "HorizontalPodAutoscaler")["spec"]
    assert "replicas" not in deployment["spec"]
    assert scaler["scaleTargetRef"] == {
        "apiVersion": deployment["apiVersion"],
        "kind": "Deployment",
        "name": deployment["metadata"]["name"],
    }
    assert scaler["minReplicas"] >= 2
    # Utilisation is of what is requested.
    assert container["resources"]["requests"]["cpu"]


def test_gpus_are_scaled_by_a_metric_that_exists_and_that_the_adapter_brings(tiny_bundle: Path) -> None:
    (metric,) = one(build(KUBERNETES / "overlays" / "gpu"), "HorizontalPodAutoscaler")["spec"]["metrics"]
    name = metric["pods"]["metric"]["name"]
    ((rule,),) = [values["rules"]["custom"] for values in read(MONITORING / "adapter.yaml")]
    assert rule["name"]["as"] == name
    assert rule["seriesQuery"].startswith(name + "{")
    assert metric["pods"]["target"]["averageValue"] == str(Settings.model_fields["max_batch"].default)
    with running_service(tiny_bundle.parents[1]) as live:
        assert re.search(rf"^{name}\{{", live.client.get("/metrics").text, flags=re.MULTILINE)


def test_the_operator_scrapes_replicas_by_the_name_that_the_rules_know(objects: list[Object]) -> None:
    monitor, service = one(build(MONITORING), "ServiceMonitor")["spec"], one(objects, "Service")
    scraped: dict[str, Any] = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text(encoding="utf-8"))
    assert monitor["selector"]["matchLabels"] == service["metadata"]["labels"]
    assert service["metadata"]["labels"][monitor["jobLabel"]] == scraped["scrape_configs"][0]["job_name"]
    (endpoint,) = monitor["endpoints"]
    assert endpoint["port"] == service["spec"]["ports"][0]["name"]
    assert endpoint["interval"] == scraped["global"]["scrape_interval"]


def test_the_operators_rules_are_those_of_prometheus() -> None:
    made = subprocess.run(
        [sys.executable, str(MONITORING / "make-rules")], capture_output=True, text=True, timeout=30, check=True
    )
    shipped = (MONITORING / "rules.yaml").read_text(encoding="utf-8")
    assert shipped == made.stdout, f"python {MONITORING / 'make-rules'} > {MONITORING / 'rules.yaml'}"


def test_the_documentation_names_files_that_are_there() -> None:
    named = re.findall(r"deploy/kubernetes/[\w./-]*\w", DOCUMENTED)
    assert {f"deploy/kubernetes/overlays/{name}" for name in OVERLAYS} <= set(named)
    for path in named:
        assert (ROOT / path).exists(), path
