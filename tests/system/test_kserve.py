"""The KServe objects: valid by KServe's schemas, and consistent with the service, the image and the other files."""

import re
from pathlib import Path

import kubernetes_validate
import pytest

from service.settings import load_settings, unknown_variables
from tests.service.conftest import running_service
from tests.system.support.compose import read_compose_file
from tests.system.support.deployment import DEPLOY_PAGE, IMAGE_SETTINGS, KUBERNETES, VERSIONS
from tests.system.support.kserve import Schemas, download_schemas, faults
from tests.system.support.kustomize import Object, build, get, read

KSERVE = KUBERNETES / "kserve"


@pytest.fixture(scope="module")
def schemas(tmp_path_factory: pytest.TempPathFactory) -> Schemas:
    return download_schemas(tmp_path_factory.mktemp("kserve"))


@pytest.fixture(scope="module")
def runtime() -> Object:
    return get(build(KSERVE), "ServingRuntime")


@pytest.fixture(scope="module")
def predictor() -> Object:
    return dict(get(build(KSERVE), "InferenceService")["spec"]["predictor"])


@pytest.fixture(scope="module")
def container(runtime: Object) -> Object:
    (container,) = runtime["spec"]["containers"]
    return dict(container)


@pytest.mark.parametrize(
    ("kind", "schema"),
    [("ServingRuntime", "V1alpha1ServingRuntime"), ("InferenceService", "V1beta1InferenceService")],
)
def test_every_object_is_valid_by_its_schema(schemas: Schemas, kind: str, schema: str) -> None:
    item = get(build(KSERVE), kind)
    group, version = item["apiVersion"].split("/")
    assert (group, version) == ("serving.kserve.io", schema.removesuffix(kind).lower())
    assert faults(item, schema, schemas) == []


def test_mistakes_in_an_object_are_detected(schemas: Schemas) -> None:
    spec = {"predictor": {"minReplicas": "2", "modle": {}, "model": {"runtime": "ood-scoring"}}}
    assert set(faults({"spec": spec}, "V1beta1InferenceService", schemas)) == {
        ".spec.predictor: there is no modle",
        ".spec.predictor.minReplicas: '2' is no int",
        ".spec.predictor.model: modelFormat is missing",
    }


@pytest.mark.parametrize("version", VERSIONS)
def test_the_pod_that_kserve_makes_of_both_objects_is_valid(version: str, runtime: Object, predictor: Object) -> None:
    spec = {name: runtime["spec"][name] for name in ("containers", "volumes")}
    predictor_fields = ("automountServiceAccountToken", "enableServiceLinks", "terminationGracePeriodSeconds")
    spec |= {name: predictor[name] for name in predictor_fields}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "predictor"}, "spec": spec}
    kubernetes_validate.validate(pod, version, strict=True)


def test_the_service_uses_the_runtime_its_format_and_the_open_inference_protocol(
    runtime: Object, predictor: Object
) -> None:
    model = predictor["model"]
    assert model["runtime"] == runtime["metadata"]["name"]
    (supported,) = runtime["spec"]["supportedModelFormats"]
    assert model["modelFormat"] == {name: supported[name] for name in ("name", "version")}
    assert runtime["spec"]["protocolVersions"] == [model["protocolVersion"]] == ["v2"]


def test_models_and_keys_are_those_of_the_base(predictor: Object, runtime: Object) -> None:
    (claim,) = read(KUBERNETES / "base" / "models.yaml")
    assert predictor["model"]["storageUri"] == f"pvc://{claim['metadata']['name']}"
    (secret,) = [volume["secret"] for volume in runtime["spec"]["volumes"] if "secret" in volume]
    command = r"kubectl .*create secret generic (\S+) --from-file=(\S+)=deploy/secrets/api-keys"
    (documented,) = re.findall(command, DEPLOY_PAGE)
    assert documented == (secret["secretName"], secret["items"][0]["key"])


def test_the_service_accepts_the_settings(
    container: Object, predictor: Object, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {variable["name"]: variable["value"] for variable in container["env"]}
    assert unknown_variables(settings) == {}
    for name, text in (IMAGE_SETTINGS | settings).items():
        monkeypatch.setenv(name, text)
    loaded = load_settings()
    # The folder into which KServe mounts or downloads `storageUri`.
    assert loaded.models == "/mnt/models"
    assert predictor["terminationGracePeriodSeconds"] >= loaded.grace_seconds + 5
    (keys,) = [mount["mountPath"] for mount in container["volumeMounts"] if mount["name"] == "api-keys"]
    assert Path(settings["OOD_API_KEYS_FILE"]).parent == Path(keys)


def test_the_container_has_the_security_of_the_base_and_the_resources_of_the_compose_file(container: Object) -> None:
    (deployment,) = read(KUBERNETES / "base" / "deployment.yaml")
    pod = deployment["spec"]["template"]["spec"]
    of_pod = {name: value for name, value in pod["securityContext"].items() if name != "fsGroup"}
    assert container["securityContext"] == of_pod | pod["containers"][0]["securityContext"]
    service = read_compose_file()["services"]["service"]
    assert container["image"] == service["image"]
    limits = service["deploy"]["resources"]["limits"]
    assert container["resources"]["limits"] == {"cpu": limits["cpus"], "memory": limits["memory"] + "i"}


def test_the_service_has_the_paths_of_probes_and_scrapes(runtime: Object, container: Object, tiny_bundle: Path) -> None:
    probes = [container[name]["httpGet"] for name in ("readinessProbe", "startupProbe")]
    annotations = runtime["spec"]["annotations"]
    ports = {probe["port"] for probe in probes} | {int(annotations["prometheus.kserve.io/port"])}
    assert ports == {int(IMAGE_SETTINGS["OOD_PORT"])} == {port["containerPort"] for port in container["ports"]}
    with running_service(tiny_bundle.parents[1]) as live:
        for path in (*(probe["path"] for probe in probes), annotations["prometheus.kserve.io/path"]):
            assert live.client.get(path).status_code == 200


def test_the_documentation_applies_the_files_that_the_objects_need() -> None:
    for path in ("base/namespace.yaml", "base/models.yaml", "kserve"):
        assert re.search(rf"kubectl .*apply -[fk] deploy/kubernetes/{path}$", DEPLOY_PAGE, flags=re.MULTILINE), path
