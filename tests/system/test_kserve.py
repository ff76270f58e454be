"""The KServe objects: valid by KServe's own description, and one with the service, the image and the other files."""

import re
from pathlib import Path

import kubernetes_validate
import pytest

from service.settings import load_settings, unknown_variables
from tests.service.conftest import running_service
from tests.system.conftest import ROOT
from tests.system.support.compose import composed
from tests.system.support.deployment import DOCUMENTED, IMAGE, KUBERNETES, VERSIONS
from tests.system.support.kserve import Models, faults, fetched_models
from tests.system.support.kustomize import Object, build, one, read

KSERVE = KUBERNETES / "kserve"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    return fetched_models(tmp_path_factory.mktemp("kserve"))


@pytest.fixture(scope="module")
def runtime() -> Object:
    return one(build(KSERVE), "ServingRuntime")


@pytest.fixture(scope="module")
def predictor() -> Object:
    return dict(one(build(KSERVE), "InferenceService")["spec"]["predictor"])


@pytest.fixture(scope="module")
def container(runtime: Object) -> Object:
    (only,) = runtime["spec"]["containers"]
    return dict(only)


@pytest.mark.parametrize(
    ("kind", "model"),
    [("ServingRuntime", "V1alpha1ServingRuntime"), ("InferenceService", "V1beta1InferenceService")],
)
def test_objects_are_as_kserve_describes_them(models: Models, kind: str, model: str) -> None:
    made = one(build(KSERVE), kind)
    group, version = made["apiVersion"].split("/")
    assert (group, version) == ("serving.kserve.io", model.removesuffix(kind).lower())
    assert faults(made, model, models) == []


def test_a_slip_in_an_object_is_found(models: Models) -> None:
    spec = {"predictor": {"minReplicas": "2", "modle": {}, "model": {"runtime": "ood-scoring"}}}
    assert set(faults({"spec": spec}, "V1beta1InferenceService", models)) == {
        ".spec.predictor: there is no modle",
        ".spec.predictor.minReplicas: '2' is no int",
        ".spec.predictor.model: modelFormat is missing",
    }


@pytest.mark.parametrize("version", VERSIONS)
def test_the_pod_that_kserve_makes_of_both_is_valid(version: str, runtime: Object, predictor: Object) -> None:
    spec = {name: runtime["spec"][name] for name in ("containers", "volumes")}
    of_predictor = ("automountServiceAccountToken", "enableServiceLinks", "terminationGracePeriodSeconds")
    spec |= {name: predictor[name] for name in of_predictor}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "predictor"}, "spec": spec}
    kubernetes_validate.validate(pod, version, strict=True)


def test_the_service_asks_for_the_runtime_its_format_and_the_open_inference_protocol(
    runtime: Object, predictor: Object
) -> None:
    model = predictor["model"]
    assert model["runtime"] == runtime["metadata"]["name"]
    (offered,) = runtime["spec"]["supportedModelFormats"]
    assert model["modelFormat"] == {name: offered[name] for name in ("name", "version")}
    assert runtime["spec"]["protocolVersions"] == [model["protocolVersion"]] == ["v2"]


def test_models_and_keys_are_those_of_the_base(predictor: Object, runtime: Object) -> None:
    (claim,) = read(KUBERNETES / "base" / "models.yaml")
    assert predictor["model"]["storageUri"] == f"pvc://{claim['metadata']['name']}"
    (secret,) = [volume["secret"] for volume in runtime["spec"]["volumes"] if "secret" in volume]
    (made,) = re.findall(r"kubectl .*create secret generic (\S+) --from-file=(\S+)=deploy/secrets/api-keys", DOCUMENTED)
    assert made == (secret["secretName"], secret["items"][0]["key"])


def test_settings_are_those_that_the_service_takes(
    container: Object, predictor: Object, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {each["name"]: each["value"] for each in container["env"]}
    assert unknown_variables(settings) == {}
    for name, text in (IMAGE | settings).items():
        monkeypatch.setenv(name, text)
    loaded = load_settings()
    # Where KServe puts what `storageUri` names.
    assert loaded.models == "/mnt/models"
    assert predictor["terminationGracePeriodSeconds"] >= loaded.grace_seconds + 5
    (keys,) = [mount["mountPath"] for mount in container["volumeMounts"] if mount["name"] == "api-keys"]
    assert Path(settings["OOD_API_KEYS_FILE"]).parent == Path(keys)


def test_it_runs_as_in_the_base_with_the_resources_of_the_compose_file(container: Object) -> None:
    (deployment,) = read(KUBERNETES / "base" / "deployment.yaml")
    pod = deployment["spec"]["template"]["spec"]
    whole = {name: value for name, value in pod["securityContext"].items() if name != "fsGroup"}
    assert container["securityContext"] == whole | pod["containers"][0]["securityContext"]
    service = composed()["services"]["service"]
    assert container["image"] == service["image"]
    limits = service["deploy"]["resources"]["limits"]
    assert container["resources"]["limits"] == {"cpu": limits["cpus"], "memory": limits["memory"] + "i"}


def test_probes_and_scrapes_ask_what_the_service_answers(runtime: Object, container: Object, tiny_bundle: Path) -> None:
    probes = [container[name]["httpGet"] for name in ("readinessProbe", "startupProbe")]
    annotations = runtime["spec"]["annotations"]
    ports = {probe["port"] for probe in probes} | {int(annotations["prometheus.kserve.io/port"])}
    assert ports == {int(IMAGE["OOD_PORT"])} == {each["containerPort"] for each in container["ports"]}
    with running_service(tiny_bundle.parents[1]) as live:
        for path in (*(probe["path"] for probe in probes), annotations["prometheus.kserve.io/path"]):
            assert live.client.get(path).status_code == 200


def test_the_documentation_applies_what_the_objects_need() -> None:
    text = (ROOT / "docs" / "deploy.md").read_text(encoding="utf-8")
    for path in ("base/namespace.yaml", "base/models.yaml", "kserve"):
        assert re.search(rf"kubectl .*apply -[fk] deploy/kubernetes/{path}$", text, flags=re.MULTILINE), path
