"""The Kubernetes manifests: valid by the API's schemas, and consistent with the service, the image and other files."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from service.inference.providers import CUDA, Provider, largest_batch
from service.settings import Settings, load_settings, unknown_variables
from tests.service.conftest import running_service
from tests.system.support.compose import read_compose_file
from tests.system.support.deployment import DEPLOY_PAGE, DOCKERFILE, IMAGE_SETTINGS, KUBERNETES, VERSIONS
from tests.system.support.gateway import env_file
from tests.system.support.kustomize import Object, build, get, merge, read
from tests.system.support.service_process import ROOT

MONITORING = KUBERNETES / "monitoring"
OVERLAYS = {"cpu": "service", "gpu": "service-gpu"}
"""The overlays, and the service of docker-compose.yml that corresponds to each."""


@pytest.fixture(scope="module", params=OVERLAYS)
def overlay(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def objects(overlay: str) -> list[Object]:
    return build(KUBERNETES / "overlays" / overlay)


@pytest.fixture(scope="module")
def pod(objects: list[Object]) -> Object:
    """The Deployment's template."""
    return dict(get(objects, "Deployment")["spec"]["template"])


@pytest.fixture(scope="module")
def container(pod: Object) -> Object:
    (container,) = pod["spec"]["containers"]
    return dict(container)


@pytest.fixture(scope="module")
def settings(objects: list[Object]) -> dict[str, str]:
    return dict(get(objects, "ConfigMap", "ood-settings")["data"])


def test_a_patch_changes_entries_by_name_and_keeps_the_others() -> None:
    base = {"containers": [{"name": "a", "image": "x", "args": [1, 2]}, {"name": "b"}], "kept": 1}
    change = {"containers": [{"name": "a", "args": [3]}, {"name": "c"}]}
    assert merge(base, change) == {
        "containers": [{"name": "a", "image": "x", "args": [3]}, {"name": "b"}, {"name": "c"}],
        "kept": 1,
    }


@pytest.mark.parametrize("version", VERSIONS)
def test_every_object_is_valid_by_the_schema_of_its_kind(version: str, objects: list[Object]) -> None:
    for item in objects:
        kubernetes_validate.validate(item, version, strict=True)


def test_every_file_belongs_to_a_kustomization() -> None:
    listed = set()
    for file in KUBERNETES.rglob("kustomization.yaml"):
        (spec,) = read(file)
        patches = [patch["path"] for patch in spec.get("patches", [])]
        listed |= {file, *((file.parent / name).resolve() for name in (*spec["resources"], *patches))}
    assert set(KUBERNETES.rglob("*.yaml")) - listed == {MONITORING / "adapter.yaml"}


def test_the_service_accepts_the_settings(
    settings: dict[str, str], container: Object, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert unknown_variables(settings) == {}
    assert container["envFrom"] == [{"configMapRef": {"name": "ood-settings"}}]
    for name, text in (IMAGE_SETTINGS | settings).items():
        monkeypatch.setenv(name, text)
    assert load_settings().models == "/models"


def test_the_limits_are_those_of_the_gateway(settings: dict[str, str]) -> None:
    limits = env_file(ROOT / "deploy" / "limits.env")
    assert limits == {name: settings[name] for name in limits}


def test_no_service_of_the_namespace_becomes_a_setting(pod: Object) -> None:
    # The Service `ood-scoring` would set OOD_SCORING_PORT and other variables, a Service `ood` OOD_PORT.
    assert pod["spec"]["enableServiceLinks"] is False


def test_the_ports_are_those_of_the_image(objects: list[Object], container: Object, pod: Object) -> None:
    assert container["ports"] == [{"name": "http", "containerPort": int(IMAGE_SETTINGS["OOD_PORT"])}]
    assert f"EXPOSE {IMAGE_SETTINGS['OOD_PORT']}" in DOCKERFILE
    assert Settings.model_fields["port"].default == int(IMAGE_SETTINGS["OOD_PORT"])
    assert pod["metadata"]["annotations"]["prometheus.io/port"] == IMAGE_SETTINGS["OOD_PORT"]
    (port,) = get(objects, "Service")["spec"]["ports"]
    (rule,) = get(objects, "NetworkPolicy")["spec"]["ingress"]
    assert port["targetPort"] == rule["ports"][0]["port"] == "http"


def test_the_service_has_the_paths_of_probes_and_scrapes(container: Object, pod: Object, tiny_bundle: Path) -> None:
    probes = [container[name]["httpGet"] for name in ("startupProbe", "readinessProbe", "livenessProbe")]
    assert [probe["path"] for probe in probes] == ["/readyz", "/readyz", "/healthz"]
    assert {probe["port"] for probe in probes} == {"http"}
    metrics_path = pod["metadata"]["annotations"]["prometheus.io/path"]
    with running_service(tiny_bundle.parents[1]) as live:
        for path in (*(probe["path"] for probe in probes), metrics_path):
            assert live.client.get(path).status_code == 200


def test_a_replica_has_time_to_answer_its_accepted_requests(
    pod: Object, container: Object, settings: dict[str, str]
) -> None:
    pre_stop = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    grace = float(settings["OOD_GRACE_SECONDS"])
    assert grace >= float(settings["OOD_TIMEOUT_MS"]) / 1000
    assert pod["spec"]["terminationGracePeriodSeconds"] >= pre_stop + grace + 5


def test_the_objects_that_pods_refer_to_exist(objects: list[Object], pod: Object, container: Object) -> None:
    volumes = {volume["name"]: volume for volume in pod["spec"]["volumes"]}
    assert {mount["name"] for mount in container["volumeMounts"]} == set(volumes)
    assert get(objects, "PersistentVolumeClaim", volumes["models"]["persistentVolumeClaim"]["claimName"])
    secret = volumes["api-keys"]["secret"]
    # The secret is not in the repository; a documented command creates it.
    command = r"kubectl .*create secret generic (\S+) --from-file=(\S+)=deploy/secrets/api-keys"
    (documented,) = re.findall(command, DEPLOY_PAGE)
    assert documented == (secret["secretName"], secret["items"][0]["key"])


def test_models_and_keys_are_mounted_read_only_at_the_paths_of_the_settings(
    container: Object, pod: Object, settings: dict[str, str]
) -> None:
    mounts = {mount["mountPath"]: mount for mount in container["volumeMounts"]}
    assert mounts[IMAGE_SETTINGS["OOD_MODELS"]]["name"] == "models"
    assert mounts[IMAGE_SETTINGS["OOD_MODELS"]]["readOnly"]
    keys = Path(settings["OOD_API_KEYS_FILE"])
    mount = mounts[str(keys.parent)]
    assert mount["readOnly"]
    # With `subPath` the file would never change, and the service reads changed keys again.
    assert "subPath" not in mount
    (volume,) = [volume for volume in pod["spec"]["volumes"] if volume["name"] == mount["name"]]
    assert volume["secret"]["items"][0]["path"] == keys.name


def test_pods_meet_the_restrictions_of_their_namespace(objects: list[Object], pod: Object, container: Object) -> None:
    labels = get(objects, "Namespace")["metadata"]["labels"]
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


def test_all_selectors_match_the_pods(objects: list[Object], pod: Object) -> None:
    labels = pod["metadata"]["labels"]
    deployment, service, disruption, network = (
        get(objects, kind)["spec"] for kind in ("Deployment", "Service", "PodDisruptionBudget", "NetworkPolicy")
    )
    assert deployment["selector"] == disruption["selector"] == network["podSelector"] == {"matchLabels": labels}
    assert service["selector"] == labels
    assert {item["metadata"].get("namespace") for item in objects if item["kind"] != "Namespace"} == {
        get(objects, "Namespace")["metadata"]["name"]
    }


def test_pods_have_no_egress_and_the_documented_ingress(objects: list[Object]) -> None:
    policy = get(objects, "NetworkPolicy")["spec"]
    assert set(policy["policyTypes"]) == {"Ingress", "Egress"}
    assert policy["egress"] == []
    ((name, value),) = policy["ingress"][0]["from"][0]["namespaceSelector"]["matchLabels"].items()
    assert f"kubectl label namespace ingress-nginx {name}={value}" in DEPLOY_PAGE


def test_the_resources_are_those_of_the_compose_file(overlay: str, container: Object) -> None:
    service = read_compose_file()["services"][OVERLAYS[overlay]]
    resources = service["deploy"]["resources"]
    limits = container["resources"]["limits"]
    assert limits["cpu"] == resources["limits"]["cpus"]
    assert limits["memory"] == resources["limits"]["memory"] + "i"
    devices = resources.get("reservations", {}).get("devices", [{"device_ids": []}])[0]["device_ids"]
    assert int(limits.get("nvidia.com/gpu", 0)) == len(devices)
    assert container["image"] == service["image"]


def test_only_the_autoscaler_sets_the_number_of_replicas(objects: list[Object], container: Object) -> None:
    deployment, scaler = get(objects, "Deployment"), get(objects, "HorizontalPodAutoscaler")["spec"]
    assert "replicas" not in deployment["spec"]
    assert scaler["scaleTargetRef"] == {
        "apiVersion": deployment["apiVersion"],
        "kind": "Deployment",
        "name": deployment["metadata"]["name"],
    }
    assert scaler["minReplicas"] >= 2
    # Utilisation is relative to the request.
    assert container["resources"]["requests"]["cpu"]


def test_gpus_are_scaled_by_an_existing_metric_that_the_adapter_provides(tiny_bundle: Path) -> None:
    (metric,) = get(build(KUBERNETES / "overlays" / "gpu"), "HorizontalPodAutoscaler")["spec"]["metrics"]
    name = metric["pods"]["metric"]["name"]
    ((rule,),) = [values["rules"]["custom"] for values in read(MONITORING / "adapter.yaml")]
    assert rule["name"]["as"] == name
    assert rule["seriesQuery"].startswith(name + "{")
    assert metric["pods"]["target"]["averageValue"] == str(largest_batch(Provider(CUDA, required=True)))
    with running_service(tiny_bundle.parents[1]) as live:
        assert re.search(rf"^{name}\{{", live.client.get("/metrics").text, flags=re.MULTILINE)


def test_the_operators_job_has_the_name_and_the_interval_of_prometheus(objects: list[Object]) -> None:
    monitor, service = get(build(MONITORING), "ServiceMonitor")["spec"], get(objects, "Service")
    prometheus: dict[str, Any] = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text(encoding="utf-8"))
    assert monitor["selector"]["matchLabels"] == service["metadata"]["labels"]
    assert service["metadata"]["labels"][monitor["jobLabel"]] == prometheus["scrape_configs"][0]["job_name"]
    (endpoint,) = monitor["endpoints"]
    assert endpoint["port"] == service["spec"]["ports"][0]["name"]
    assert endpoint["interval"] == prometheus["global"]["scrape_interval"]


def test_the_operators_rules_are_those_of_prometheus() -> None:
    result = subprocess.run(
        [sys.executable, str(MONITORING / "make-rules")], capture_output=True, text=True, timeout=30, check=True
    )
    rules = (MONITORING / "rules.yaml").read_text(encoding="utf-8")
    assert rules == result.stdout, f"python {MONITORING / 'make-rules'} > {MONITORING / 'rules.yaml'}"


def test_the_files_that_the_documentation_names_exist() -> None:
    paths = re.findall(r"deploy/kubernetes/[\w./-]*\w", DEPLOY_PAGE)
    assert {f"deploy/kubernetes/overlays/{name}" for name in OVERLAYS} <= set(paths)
    for path in paths:
        assert (ROOT / path).exists(), path
