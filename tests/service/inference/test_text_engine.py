"""The engine with texts: padding changes no row, and graphs that do not fit are refused."""

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper, numpy_helper

from bundle import Bundle, TextEncoder, load_bundle
from service.inference.batch_tuning import tune
from service.inference.engine import Engine
from service.inference.onnx_session import EngineError
from service.inference.providers import CPU, Provider
from service.inputs.explanation import PARTS
from tests.service.support.edited_graph import with_edited_graph
from tests.support.tiny_bundle import tiny_graph
from tests.support.tiny_text_bundle import TOPICS, make_tiny_text_bundle, tiny_text_graph

PROVIDER = Provider(CPU, required=False)
WORDS = ["the", "unheard", *(word for words in TOPICS.values() for word in words)]
Change = Callable[[Callable[[onnx.ModelProto], object]], Bundle]


@pytest.fixture(scope="module")
def text_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_text_bundle(tmp_path_factory.mktemp("texts"), max_tokens=80)


@pytest.fixture(scope="module")
def engine(text_bundle: Path) -> Engine:
    engine = Engine(load_bundle(text_bundle), PROVIDER, cores=1)
    engine.warm_up(8)
    return engine


@pytest.fixture(scope="module")
def encoder(text_bundle: Path) -> TextEncoder:
    encoder = load_bundle(text_bundle).text_encoder
    assert encoder is not None
    return encoder


@pytest.fixture
def changed(text_bundle: Path, tmp_path: Path) -> Change:
    """The tiny text bundle with an edited graph, which the manifest does not describe."""
    return partial(with_edited_graph, text_bundle, tmp_path)


def test_tuning_bounds_batches_of_long_texts_by_their_tokens(text_bundle: Path) -> None:
    engine = Engine(load_bundle(text_bundle), PROVIDER, cores=1)
    engine.warm_up(8)
    with_long_batches, with_short_batches = (tune(engine, 8, max_seconds) for max_seconds in (10.0, 1e-9))
    assert 1 <= with_long_batches.max_batch <= 8
    assert with_long_batches.max_positions > 8 * 80
    # Even a single text of 80 tokens takes longer: each is computed alone.
    assert with_short_batches.max_positions < 80


texts = st.lists(st.sampled_from(WORDS), min_size=1, max_size=100).map(" ".join)


@given(st.lists(texts, min_size=1, max_size=20))
def test_a_text_scores_the_same_alone_and_in_any_batch(engine: Engine, encoder: TextEncoder, batch: list[str]) -> None:
    items = encoder.encode_batch(batch)
    for run in (engine.run, engine.try_batch):
        together = run(items, exclusive=True)
        assert {rows.shape for rows in together.values()} == {(len(batch),)}
        for index, item in enumerate(items):
            alone = engine.run([item])
            assert together["prediction"][index] == alone["prediction"][0]
            for name in ("msp", "energy", "entropy"):
                assert together[name][index] == pytest.approx(alone[name][0], rel=1e-4, abs=1e-5)


def test_a_language_model_gives_its_scores_and_no_prediction(tmp_path: Path) -> None:
    engine = Engine(load_bundle(make_tiny_text_bundle(tmp_path, task="language-model")), PROVIDER, cores=1)
    engine.warm_up(4)
    assert list(engine.run([np.array([2, 3], np.int64)])) == ["bpw", "kl_uniform"]
    assert list(engine.explain([np.array([2, 3], np.int64)])) == ["bpw", "kl_uniform", PARTS]


@pytest.mark.parametrize(("tensor", "axis"), [(0, 0), (0, 1), (1, 0)], ids=["tokens-N", "tokens-L", "lengths-N"])
def test_a_graph_with_a_fixed_axis_is_refused(changed: Change, tensor: int, axis: int) -> None:
    def edit(model: onnx.ModelProto) -> None:
        model.graph.input[tensor].type.tensor_type.shape.dim[axis].dim_value = 1

    message = r"not two int64 tensors, 'tokens' of \[N, L\] and 'lengths' of \[N\], N and L dynamic"
    with pytest.raises(EngineError, match=message):
        Engine(changed(edit), PROVIDER, cores=1)


def test_an_image_graph_in_a_text_bundle_is_refused_and_the_reverse(
    changed: Change, tiny_bundle: Path, tmp_path: Path
) -> None:
    with pytest.raises(EngineError, match=r"the graph takes .*'images'.*, not two int64 tensors"):
        Engine(changed(lambda model: model.CopyFrom(tiny_graph(3))), PROVIDER, cores=1)
    folder = Path(shutil.copytree(tiny_bundle, tmp_path / "tiny" / "1"))
    onnx.save(tiny_text_graph(), folder / "model.onnx")
    with pytest.raises(EngineError, match=r"the graph takes .*'tokens'.*, not one uint8 tensor 'images'"):
        Engine(load_bundle(folder, verify=False), PROVIDER, cores=1)


def test_a_graph_that_reads_the_padding_is_refused_when_warming_up(changed: Change) -> None:
    def edit(model: onnx.ModelProto) -> None:
        (mask,) = [node for node in model.graph.node if "masked" in node.output]
        mask.CopyFrom(helper.make_node("Identity", ["votes"], ["masked"]))

    engine = Engine(changed(edit), PROVIDER, cores=1)
    with pytest.raises(EngineError, match=r"an input's \w+ is .* alone and .* in a batch with another input"):
        engine.warm_up(2)


def test_a_graph_with_fewer_embeddings_than_token_ids_is_refused_when_warming_up(changed: Change) -> None:
    def edit(model: onnx.ModelProto) -> None:
        (table,) = [tensor for tensor in model.graph.initializer if tensor.name == "table"]
        table.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(table)[:-1], "table"))

    engine = Engine(changed(edit), PROVIDER, cores=1)
    with pytest.raises(EngineError, match=r"the graph fails on a batch of 1: .*indices"):
        engine.warm_up(1)


def test_a_graph_that_takes_less_than_max_tokens_is_refused_when_warming_up(changed: Change) -> None:
    def edit(model: onnx.ModelProto) -> None:
        # A table of 64 positions: enough for texts of 1 and 40 tokens, but not of 80.
        model.graph.initializer.append(numpy_helper.from_array(np.arange(64, dtype=np.int64), "all_positions"))
        (node,) = [node for node in model.graph.node if "positions" in node.output]
        node.output[0] = "asked"
        model.graph.node.insert(
            list(model.graph.node).index(node) + 1,
            helper.make_node("Gather", ["all_positions", "asked"], ["positions"]),
        )

    engine = Engine(changed(edit), PROVIDER, cores=1)
    with pytest.raises(EngineError, match="the graph fails on a batch of 1"):
        engine.warm_up(1)
