"""Own outputs of a wrapped classifier over the Open Inference Protocol, next to the scores."""

import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from bundle import MANIFEST_NAME, load_bundle, parse_manifest, seal_bundle
from tests.service.conftest import running_service
from tests.service.support.exposition import value
from tests.service.support.pictures import encoded, picture
from tests.support.tiny_bundle import make_tiny_bundle
from tests.support.waiting import until

NAMES = np.array(["a", "b", "c"], dtype=object)


def add_own_outputs(folder: Path) -> None:
    """Give the bundle in `folder` the outputs `features` [N, 2, 3] and `names` [N] of its graph's own."""
    manifest = parse_manifest(folder, (folder / MANIFEST_NAME).read_bytes())
    model = onnx.load(folder / manifest.model)
    model.graph.node.extend(
        [
            helper.make_node("Cast", ["images"], ["ood/pixels"], to=TensorProto.FLOAT16),
            helper.make_node("Slice", ["ood/pixels", "ood/starts", "ood/ends", "ood/axes"], ["features"]),
            helper.make_node("Gather", ["ood/names", "prediction"], ["names"]),
        ]
    )
    arrays = {"starts": [0, 0, 0], "ends": [1, 2, 3], "axes": [1, 2, 3]}
    model.graph.initializer.extend(
        numpy_helper.from_array(np.array(value, dtype=np.int64), f"ood/{name}") for name, value in arrays.items()
    )
    model.graph.initializer.append(numpy_helper.from_array(NAMES, "ood/names"))
    model.graph.output.append(helper.make_tensor_value_info("features", TensorProto.FLOAT16, ["N", 1, 2, 3]))
    model.graph.output.append(helper.make_tensor_value_info("names", TensorProto.STRING, ["N"]))
    onnx.save(model, folder / manifest.model)
    own = [
        {"name": "features", "output": "features", "datatype": "FP16", "shape": [1, 2, 3]},
        {"name": "model.label", "output": "names", "datatype": "BYTES", "shape": []},
    ]
    fields = manifest.model_dump(mode="json", exclude={"files", "schema_version"}) | {"model_outputs": own}
    (folder / MANIFEST_NAME).unlink()
    seal_bundle(folder, fields)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("models")
    add_own_outputs(make_tiny_bundle(root))
    return root


def test_a_shadow_without_own_outputs_scores_the_requests_that_want_them(models: Path, tmp_path: Path) -> None:
    shutil.copytree(models, tmp_path, dirs_exist_ok=True)
    make_tiny_bundle(tmp_path, version="2")
    (tmp_path / "traffic.yaml").write_text("tiny: {serve: 1, shadow: [2]}")
    tensor = {"name": "images", "datatype": "BYTES", "shape": [1], "data": [encoded(picture())]}
    body = {"inputs": [tensor], "outputs": [{"name": "features"}, {"name": "msp"}]}
    with running_service(tmp_path) as live:
        assert live.client.post("/v2/models/tiny/infer", json=body).status_code == 200
        until(lambda: value(live.client, "ood_inputs_total", model="tiny", version="2") == 1)
        assert value(live.client, "ood_shadow_dropped_total", model="tiny", version="2", reason="failed") == 0


def test_own_outputs_are_returned_on_request_only_in_json_and_binary(models: Path) -> None:
    (folder,) = models.glob("*/1")
    spec = load_bundle(folder).manifest.input
    images = np.random.default_rng(1).integers(0, 256, (2, spec.height, spec.width, spec.channels), dtype=np.uint8)
    tensor = {"name": "images", "datatype": "UINT8", "shape": list(images.shape), "data": images.ravel().tolist()}
    path = f"/v2/models/{folder.parent.name}"
    with running_service(models) as live:
        client = live.client
        metadata = {output["name"]: output for output in client.get(path).json()["outputs"]}
        assert metadata["features"] == {"name": "features", "datatype": "FP16", "shape": [-1, 1, 2, 3]}
        plain = client.post(f"{path}/infer", json={"inputs": [tensor]}).json()
        assert not {"features", "model.label"} & {output["name"] for output in plain["outputs"]}
        names = ["msp", "features", "model.label", "prediction"]
        body = {"inputs": [tensor], "outputs": [{"name": name} for name in names]}
        outputs = {output["name"]: output for output in client.post(f"{path}/infer", json=body).json()["outputs"]}
        assert list(outputs) == names
        assert outputs["features"]["shape"] == [2, 1, 2, 3]
        np.testing.assert_array_equal(outputs["features"]["data"], images[:, :1, :2, :3].ravel())
        assert outputs["model.label"]["data"] == [NAMES[index] for index in outputs["prediction"]["data"]]
        body["outputs"] = [{"name": "features", "parameters": {"binary_data": True}}]
        response = client.post(f"{path}/infer", json=body)
        length = int(response.headers["inference-header-content-length"])
        values = np.frombuffer(response.content[length:], "<f2").reshape(2, 1, 2, 3)
        np.testing.assert_array_equal(values, images[:, :1, :2, :3])
