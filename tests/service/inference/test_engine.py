"""The engine: what it runs, and every graph it refuses."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from bundle import Bundle, decode_image, load_bundle, seal_bundle
from service.inference.batch_tuning import BatchPlan
from service.inference.engine import Engine
from service.inference.external_data import external_files
from service.inference.onnx_session import EngineError
from service.inference.providers import CPU, CUDA, Provider, ProviderUnavailable, choose_provider
from tests.service.support.pictures import picture
from tests.support.tiny_bundle import tiny_graph, tiny_images

PROVIDER = Provider(CPU, required=False)


@pytest.fixture
def changed(tiny_bundle: Path, tmp_path: Path) -> Callable[[Callable[[onnx.ModelProto], object]], Bundle]:
    """The tiny bundle with its graph changed behind the manifest's back."""

    def change(edit: Callable[[onnx.ModelProto], object]) -> Bundle:
        folder = tmp_path / "tiny" / "1"
        shutil.copytree(tiny_bundle, folder)
        model = onnx.load(folder / "model.onnx")
        edit(model)
        onnx.save(model, folder / "model.onnx")
        return load_bundle(folder, verify=False)

    return change


def test_a_batch_gives_the_same_rows_as_its_images_alone(tiny_bundle: Path) -> None:
    engine = Engine(load_bundle(tiny_bundle), PROVIDER, cores=1)
    engine.warm_up(8)
    images = list(tiny_images(5, seed=3))
    together = engine.run(images)
    assert set(together) == {"msp", "max_logit", "energy", "entropy", "kl_uniform", "prediction", "probability"}
    for index, image in enumerate(images):
        exclusive = engine.run([image])
        for name, rows in together.items():
            assert rows.shape == (5,)
            np.testing.assert_allclose(rows[index], exclusive[name][0], rtol=1e-5)


def test_a_stream_that_shares_the_machine_gives_the_same_rows(tiny_bundle: Path) -> None:
    engine = Engine(load_bundle(tiny_bundle), PROVIDER, threads=2)
    pace = engine.warm_up(8)
    assert 1 <= pace.batch <= 8
    assert pace.seconds_per_input > 0
    assert engine.streams in (0, 1, 2)
    images = list(tiny_images(5, seed=3))
    for name, rows in engine.run(images, exclusive=False).items():
        np.testing.assert_allclose(rows, engine.run(images, exclusive=True)[name], rtol=1e-5)


@pytest.mark.parametrize(
    ("learned", "streams"), [((4, 1e-3, 99.0, 4), 2), ((4, 1e-3, 99.0, 1), 1), ((4, 1e-3, 99.0, 0), 0)]
)
def test_an_engine_that_is_told_its_pace_measures_nothing_and_takes_its_share_of_the_machine(
    tiny_bundle: Path, learned: tuple[int, float, float, int], streams: int
) -> None:
    engine = Engine(load_bundle(tiny_bundle), PROVIDER, threads=4, workers=2)
    assert engine.warm_up(8, memo=lambda _: learned) == BatchPlan(4, 1e-3, 99.0)
    assert engine.streams == streams
    images = list(tiny_images(5, seed=3))
    for name, rows in engine.run(images, exclusive=False).items():
        np.testing.assert_allclose(rows, engine.run(images, exclusive=True)[name], rtol=1e-5)


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


def test_a_graph_that_mixes_its_inputs_up_is_refused_when_warming_up(changed: Callable[..., Bundle]) -> None:
    def edit(model: onnx.ModelProto) -> None:
        # One energy for the whole batch: right for one image, wrong for two.
        (node,) = [node for node in model.graph.node if node.output[0] == "energy"]
        node.output[0] = "energies"
        model.graph.node.append(helper.make_node("ReduceMean", ["energies"], ["energy"], keepdims=0))

    engine = Engine(changed(edit), PROVIDER, cores=1)
    with pytest.raises(EngineError, match="the graph fails on a batch of 1"):
        engine.warm_up(2)


def test_a_file_that_is_no_graph_is_refused(tiny_bundle: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_bundle, tmp_path / "1"))
    for content in (b"", b"no graph at all", b"\x0a\xff\xff\xff\xff\x0f"):
        (folder / "model.onnx").write_bytes(content)
        with pytest.raises(EngineError):
            Engine(load_bundle(folder, verify=False), PROVIDER, cores=1)


@pytest.mark.parametrize("location", ["../../secret", "/etc/passwd", "weights.bin", "sub/../../x"])
def test_weights_outside_of_the_bundles_files_are_refused(changed: Callable[..., Bundle], location: str) -> None:
    def edit(model: onnx.ModelProto) -> None:
        tensor = next(each for each in model.graph.initializer if each.name == "weight")
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value=location)

    bundle = changed(edit)
    with pytest.raises(EngineError, match="which the manifest does not list"):
        Engine(bundle, PROVIDER, cores=1)


def test_weights_in_a_file_of_the_bundle_are_read_and_the_file_let_go(tiny_bundle: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_bundle, tmp_path / "1"))
    fields = load_bundle(folder).manifest.model_dump(exclude={"files"})
    model = onnx.load(folder / "model.onnx")
    # Weights of an addition are used where they lie; those of a product would be copied.
    model.graph.initializer.append(numpy_helper.from_array(np.zeros((8, 8, 3), np.float32), "nothing"))
    next(node for node in model.graph.node if node.op_type == "Cast").output[0] = "uncorrected"
    model.graph.node.insert(1, helper.make_node("Add", ["uncorrected", "nothing"], ["pixels"]))
    onnx.save(model, folder / "model.onnx", save_as_external_data=True, location="model.data", size_threshold=60)
    seal_bundle(folder, fields)
    engine = Engine(load_bundle(folder), PROVIDER, cores=1)
    # While it is mapped, truncating it would kill the process.
    assert str(folder) not in Path("/proc/self/maps").read_text()
    original = Engine(load_bundle(tiny_bundle), PROVIDER, cores=1)
    images = list(tiny_images(3))
    assert (engine.run(images)["msp"] == original.run(images)["msp"]).all()


def test_external_weights_are_found_wherever_a_graph_can_hold_them() -> None:
    def outside(name: str) -> onnx.TensorProto:
        tensor = numpy_helper.from_array(np.zeros(3, np.float32), name)
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value=f"{name}.bin")
        return tensor

    branch = helper.make_graph([helper.make_node("Constant", [], ["y"], value=outside("attribute"))], "branch", [], [])
    graph = helper.make_graph(
        [helper.make_node("If", ["c"], ["z"], then_branch=branch, else_branch=branch)],
        "graph",
        [],
        [],
        [outside("initializer"), numpy_helper.from_array(np.zeros(100_000, np.float32), "inside")],
    )
    model = helper.make_model(graph)
    assert external_files(model.SerializeToString()) == {"attribute.bin", "initializer.bin"}
    with pytest.raises(ValueError, match="not an ONNX graph"):
        external_files(model.SerializeToString()[:-5])


def test_auto_falls_back_to_the_cpu_and_says_so() -> None:
    provider, note = choose_provider("auto", [CPU])
    assert (provider.first, provider.required) == (CPU, False)
    assert note is not None
    assert CUDA in note


def test_a_required_provider_that_is_not_there_stops_the_start() -> None:
    with pytest.raises(ProviderUnavailable, match="OOD_PROVIDER=cuda needs CUDAExecutionProvider"):
        choose_provider("cuda", [CPU])
    assert choose_provider("cpu", [CPU]) == (Provider(CPU, required=True), None)


def test_decoded_images_are_what_the_engine_takes(tiny_bundle: Path) -> None:
    bundle = load_bundle(tiny_bundle)
    outputs = Engine(bundle, PROVIDER, cores=1).run([decode_image(picture("blue"), bundle.manifest.input)])
    assert bundle.manifest.labels[int(outputs["prediction"][0])] == "blue"
