"""The engine: its rows, its modes, and every graph that it refuses."""

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from bundle import Bundle, decode_image, load_bundle, seal_bundle
from service.inference.batch_tuning import tune
from service.inference.engine import Engine, open_engine
from service.inference.execution_plan import ExecutionMode
from service.inference.onnx_session import EngineError, open_session
from service.inference.providers import CPU, Provider
from service.inputs.explanation import PARTS
from tests.service.support.edited_graph import with_edited_graph
from tests.service.support.failing_evidence import fail_to_explain
from tests.service.support.pictures import picture
from tests.support.tiny_bundle import make_tiny_bundle, tiny_graph, tiny_images

PROVIDER = Provider(CPU, required=False)


@pytest.fixture
def changed(tiny_bundle: Path, tmp_path: Path) -> Callable[[Callable[[onnx.ModelProto], object]], Bundle]:
    """The tiny bundle with an edited graph, which the manifest does not describe."""
    return partial(with_edited_graph, tiny_bundle, tmp_path)


def test_a_batch_gives_the_same_rows_as_its_images_alone(tiny_bundle: Path) -> None:
    engine = Engine(load_bundle(tiny_bundle), PROVIDER, cores=1)
    engine.warm_up(8)
    images = list(tiny_images(5, seed=3))
    together = engine.run(images)
    assert set(together) == {"msp", "max_logit", "energy", "entropy", "kl_uniform", "prediction", "probability"}
    for index, image in enumerate(images):
        alone = engine.run([image])
        for name, rows in together.items():
            assert rows.shape == (5,)
            np.testing.assert_allclose(rows[index], alone[name][0], rtol=1e-5)


class RecordingSession:
    """A session that notes in `calls` how many cores each of its calls uses."""

    def __init__(self, session: onnxruntime.InferenceSession, cores: int, calls: list[int]) -> None:
        self._session = session
        self._cores = cores
        self._calls = calls

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    def run(self, *arguments: Any) -> Any:
        self._calls.append(self._cores)
        return self._session.run(*arguments)


@pytest.fixture
def cores_of_calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of cores of each call of ONNX Runtime by engines that are made later."""
    calls: list[int] = []

    def open_recording(bundle: Bundle, provider: Provider, cores: int, **options: Any) -> RecordingSession:
        return RecordingSession(open_session(bundle, provider, cores, **options), cores, calls)

    monkeypatch.setattr("service.inference.engine.open_session", open_recording)
    return calls


@pytest.mark.parametrize(
    ("mode", "exclusive_cores", "shared_cores"),
    [(ExecutionMode.INLINE, 1, 1), (ExecutionMode.EXCLUSIVE, 2, 2), (ExecutionMode.SHARED, 2, 1)],
)
def test_a_call_uses_the_cores_of_the_mode_and_gives_the_rows_of_onnx_runtime(
    tiny_bundle: Path, cores_of_calls: list[int], mode: ExecutionMode, exclusive_cores: int, shared_cores: int
) -> None:
    engine = Engine(load_bundle(tiny_bundle), PROVIDER, cores=2)
    engine.set_mode(mode)
    images = list(tiny_images(5, seed=3))
    (expected,) = onnxruntime.InferenceSession(tiny_bundle / "model.onnx").run(["energy"], {"images": np.stack(images)})
    for exclusive in (True, False):
        np.testing.assert_allclose(engine.run(images, exclusive=exclusive)["energy"], expected, rtol=1e-5)
    assert cores_of_calls == [exclusive_cores, shared_cores]


def test_the_mode_can_be_changed_any_number_of_times(tiny_bundle: Path, cores_of_calls: list[int]) -> None:
    engine = Engine(load_bundle(tiny_bundle), PROVIDER, cores=2)
    for mode in (ExecutionMode.INLINE, ExecutionMode.SHARED, ExecutionMode.EXCLUSIVE):
        engine.set_mode(mode)
        engine.run(list(tiny_images(1)), exclusive=True)
    assert cores_of_calls == [1, 2, 2]


@pytest.mark.parametrize(
    ("mode", "exclusive_cores", "shared_cores"),
    [(ExecutionMode.INLINE, 1, 1), (ExecutionMode.EXCLUSIVE, 2, 2), (ExecutionMode.SHARED, 2, 1)],
)
def test_an_explanation_is_computed_on_the_cores_of_the_mode_beside_the_same_scores(
    tmp_path: Path, cores_of_calls: list[int], mode: ExecutionMode, exclusive_cores: int, shared_cores: int
) -> None:
    engine = Engine(load_bundle(make_tiny_bundle(tmp_path, evidence=True)), PROVIDER, cores=2)
    engine.warm_up(4)
    engine.set_mode(mode)
    images = list(tiny_images(5, seed=3))
    plain = engine.run(images)
    cores_of_calls.clear()
    for exclusive in (True, False):
        explained = engine.explain(images, exclusive=exclusive)
        assert set(explained) - set(plain) == {PARTS}
        np.testing.assert_allclose(explained[PARTS].sum(axis=(1, 2)), plain["max_logit"], rtol=1e-4)
        for name, rows in plain.items():
            np.testing.assert_allclose(explained[name], rows, rtol=1e-5)
    assert cores_of_calls == [exclusive_cores, shared_cores]


class EngineOfFixedBatches(Engine):
    """An engine that fills batches up to fixed sizes as on a GPU, with the kernels of the CPU."""

    @property
    def on_cpu(self) -> bool:
        return False


def test_fixed_batches_have_the_evidence_of_each_image(tmp_path: Path) -> None:
    bundle = load_bundle(make_tiny_bundle(tmp_path, evidence=True, neighbours=True))
    engine = EngineOfFixedBatches(bundle, PROVIDER, cores=1)
    engine.warm_up(16)
    assert engine.fixed_sizes == [1, 16]
    images = list(tiny_images(5, seed=3))
    explained = engine.explain(images)
    expected = Engine(bundle, PROVIDER, cores=1).explain(images)
    assert explained.keys() == expected.keys()
    for name, rows in expected.items():
        np.testing.assert_allclose(explained[name], rows, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(engine.run(images)["msp"], expected["msp"], rtol=1e-5)


def test_an_explanation_that_the_manifest_promises_must_be_there(tmp_path: Path) -> None:
    def edit(model: onnx.ModelProto) -> None:
        model.graph.output.remove(next(output for output in model.graph.output if output.name == "evidence"))

    bundle = with_edited_graph(make_tiny_bundle(tmp_path / "models", evidence=True), tmp_path, edit)
    with pytest.raises(EngineError, match=r"output 'evidence' must be tensor\(float\), the graph has no such output"):
        Engine(bundle, PROVIDER, cores=1)


def test_an_explanation_that_fails_on_every_image_is_refused_when_warming_up(tmp_path: Path) -> None:
    bundle = with_edited_graph(
        make_tiny_bundle(tmp_path / "models", evidence=True), tmp_path, partial(fail_to_explain, darkest=0)
    )
    with pytest.raises(EngineError, match="the graph fails on a batch of 1"):
        Engine(bundle, PROVIDER, cores=1).warm_up(2)


def test_a_call_has_at_most_64_inputs_by_default(tiny_bundle: Path) -> None:
    assert open_engine(load_bundle(tiny_bundle), PROVIDER, cores=1).max_batch == 64
    assert open_engine(load_bundle(tiny_bundle), PROVIDER, cores=1, max_batch=3).max_batch == 3


def test_tuning_bounds_the_batches_of_an_engine(tiny_bundle: Path) -> None:
    engine = Engine(load_bundle(tiny_bundle), PROVIDER, cores=2)
    engine.warm_up(8)
    plan = tune(engine, 8, 0.25)
    assert 1 <= plan.max_batch <= 8
    assert plan.seconds_per_input > 0


def test_an_output_that_the_manifest_promises_must_be_there(changed: Callable[..., Bundle]) -> None:
    def edit(model: onnx.ModelProto) -> None:
        model.graph.output.remove(next(output for output in model.graph.output if output.name == "energy"))

    with pytest.raises(EngineError, match=r"output 'energy' must be tensor\(float\), the graph has no such output"):
        Engine(changed(edit), PROVIDER, cores=1)


def test_a_graph_of_another_input_size_is_refused(changed: Callable[..., Bundle]) -> None:
    with pytest.raises(EngineError, match=r"not one uint8 tensor 'images' of \[N, 8, 8, 3\]"):
        Engine(changed(lambda model: model.CopyFrom(tiny_graph(3, size=16))), PROVIDER, cores=1)


def test_a_graph_with_a_fixed_batch_is_refused(changed: Callable[..., Bundle]) -> None:
    def edit(model: onnx.ModelProto) -> None:
        model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1

    with pytest.raises(EngineError, match=r"takes .*\[1, 8, 8, 3\].*, not one"):
        Engine(changed(edit), PROVIDER, cores=1)


def test_a_graph_whose_rows_depend_on_each_other_is_refused_when_warming_up(changed: Callable[..., Bundle]) -> None:
    def edit(model: onnx.ModelProto) -> None:
        # One energy for the whole batch: right for one image, wrong for two.
        (node,) = [node for node in model.graph.node if node.output[0] == "energy"]
        node.output[0] = "energies"
        model.graph.node.append(helper.make_node("ReduceMean", ["energies"], ["energy"], keepdims=0))

    engine = Engine(changed(edit), PROVIDER, cores=1)
    with pytest.raises(EngineError, match="the graph fails on a batch of 1"):
        engine.warm_up(2)


def test_a_file_that_is_not_a_graph_is_refused(tiny_bundle: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_bundle, tmp_path / "1"))
    for content in (b"", b"no graph at all", b"\x0a\xff\xff\xff\xff\x0f"):
        (folder / "model.onnx").write_bytes(content)
        with pytest.raises(EngineError):
            Engine(load_bundle(folder, verify=False), PROVIDER, cores=1)


@pytest.mark.parametrize("location", ["../../secret", "/etc/passwd", "weights.bin", "sub/../../x"])
def test_weights_in_unlisted_files_are_refused(changed: Callable[..., Bundle], location: str) -> None:
    def edit(model: onnx.ModelProto) -> None:
        tensor = next(tensor for tensor in model.graph.initializer if tensor.name == "weight")
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value=location)

    bundle = changed(edit)
    with pytest.raises(EngineError, match="which the manifest does not list"):
        Engine(bundle, PROVIDER, cores=1)


def test_weights_in_a_file_of_the_bundle_are_read_and_the_file_is_not_mapped(tiny_bundle: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_bundle, tmp_path / "1"))
    fields = load_bundle(folder).manifest.model_dump(exclude={"files"})
    model = onnx.load(folder / "model.onnx")
    # ONNX Runtime uses the weights of an addition in place; it would copy those of a product.
    model.graph.initializer.append(numpy_helper.from_array(np.zeros((8, 8, 3), np.float32), "nothing"))
    next(node for node in model.graph.node if node.op_type == "Cast").output[0] = "uncorrected"
    model.graph.node.insert(1, helper.make_node("Add", ["uncorrected", "nothing"], ["pixels"]))
    onnx.save(model, folder / "model.onnx", save_as_external_data=True, location="model.data", size_threshold=60)
    seal_bundle(folder, fields)
    engine = Engine(load_bundle(folder), PROVIDER, cores=1)
    # Truncating a mapped file would kill the process.
    assert str(folder) not in Path("/proc/self/maps").read_text()
    original = Engine(load_bundle(tiny_bundle), PROVIDER, cores=1)
    images = list(tiny_images(3))
    assert (engine.run(images)["msp"] == original.run(images)["msp"]).all()


def test_the_engine_takes_decoded_images(tiny_bundle: Path) -> None:
    bundle = load_bundle(tiny_bundle)
    outputs = Engine(bundle, PROVIDER, cores=1).run([decode_image(picture("blue"), bundle.manifest.input)])
    assert bundle.manifest.labels[int(outputs["prediction"][0])] == "blue"
