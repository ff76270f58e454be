"""Backbones of texts: features are means over a text's tokens, and recipes make bundles of classifiers of them."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper, save

from bundle import ImageInput, TextEncoder, load_bundle, pad_tokens
from tests.training.support.evaluated_runs import evaluated_run
from tests.training.support.onnx_text_classifiers import MAX_TOKENS, TextNetwork, export_texts, make_tokenizer
from tests.training.support.texts_on_disk import TOPICS, sentences, tiny_text_recipe, write_tiny_texts
from training.backbones import load_backbone, with_features
from training.backbones.backbone import feature_session
from training.data import Examples, StoredArray
from training.data.token_ids import NO_TOKEN
from training.errors import GraphError, RecipeError
from training.evaluation import Report
from training.recipe import TextConfig, parse_recipe
from training.steps import export_run

SPEC = TextConfig(max_tokens=8)
ROWS = np.array([[1, 2, 3, NO_TOKEN], [4, 5, NO_TOKEN, NO_TOKEN], [6, 1, 2, 5]], dtype=np.int32)
TABLE = np.random.default_rng(0).normal(size=(7, 5)).astype(np.float32)


def save_embeddings(path: Path) -> Path:
    """Write a model of `input_ids` and `attention_mask` whose output is one vector of `TABLE` per token."""
    inputs = [
        helper.make_tensor_value_info(name, TensorProto.INT64, ["N", "L"]) for name in ("input_ids", "attention_mask")
    ]
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["vectors"]),
        helper.make_node("Cast", ["attention_mask"], ["mask"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["mask", "last"], ["column"]),
        helper.make_node("Mul", ["vectors", "column"], ["masked"]),
        helper.make_node("Identity", ["masked"], ["last_hidden_state"]),
    ]
    output = helper.make_tensor_value_info("last_hidden_state", TensorProto.FLOAT, ["N", "L", 5])
    constants = [numpy_helper.from_array(TABLE, "table"), numpy_helper.from_array(np.array([2]), "last")]
    graph = helper.make_graph(nodes, "embeddings", inputs, [output], constants)
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def test_vectors_of_tokens_are_averaged_over_each_text(tmp_path: Path) -> None:
    backbone = load_backbone(save_embeddings(tmp_path / "embeddings.onnx"), SPEC)
    expected = [TABLE[row[row != NO_TOKEN]].mean(axis=0) for row in ROWS]
    np.testing.assert_allclose(feature_session(backbone)(ROWS), expected, atol=1e-6)


def test_features_of_texts_keep_their_order(tmp_path: Path) -> None:
    backbone = load_backbone(save_embeddings(tmp_path / "embeddings.onnx"), SPEC)
    examples = Examples(StoredArray(ROWS), None, (), "texts", "here", "cd" * 32)
    features = with_features(examples, backbone, tmp_path / "cache")
    np.testing.assert_allclose(features.x[np.arange(3)][:, 0], feature_session(backbone)(ROWS), atol=1e-6)


def test_the_features_of_a_classifier_of_texts_are_the_input_of_its_last_linear_layer(tmp_path: Path) -> None:
    network = TextNetwork(make_tokenizer())
    backbone = load_backbone(export_texts(network, tmp_path / "texts.onnx"), SPEC)
    recorded: list[torch.Tensor] = []
    network.classifier.register_forward_pre_hook(lambda _, inputs: recorded.append(inputs[0]))
    network(torch.tensor([[1, 2, 3, 0], [6, 1, 2, 5]]), torch.tensor([[1, 1, 1, 0], [1, 1, 1, 1]]))
    np.testing.assert_allclose(feature_session(backbone)(ROWS[[0, 2]]), recorded[0].detach(), atol=1e-5)


def test_a_backbone_of_another_kind_of_input_is_refused(tmp_path: Path) -> None:
    spec = ImageInput(height=8, width=8, channels=3, mean=(0.5,) * 3, std=(0.5,) * 3)
    with pytest.raises(GraphError, match="is a model of texts, the data are images"):
        load_backbone(save_embeddings(tmp_path / "embeddings.onnx"), spec)


def recipe_of(**changes: Any) -> dict[str, Any]:
    schedule = {"epochs": 5, "batch_size": 16, "learning_rate": 0.01, "optimizer": "adam"}
    return tiny_text_recipe(
        input={"kind": "text", "max_tokens": MAX_TOKENS},
        architecture={"name": "pretrained", "backbone": "model/texts.onnx"},
        stages={"baseline": {"objective": {"name": "cross_entropy"}, **schedule}},
        export={"stage": "baseline", "alpha": 0.05, "scores": ["knn", "msp"]},
        trainer={},
        **changes,
    )


def test_texts_must_not_be_grouped_by_length() -> None:
    stages = {"baseline": {"objective": {"name": "cross_entropy"}, "epochs": 1, "group_by_length": True}}
    with pytest.raises(RecipeError, match=r"stages\.baseline\.group_by_length"):
        parse_recipe(recipe_of() | {"stages": stages}, "recipe")


def test_a_recipe_makes_a_bundle_of_texts_with_the_tokenizer_next_to_the_backbone(tmp_path: Path) -> None:
    write_tiny_texts(tmp_path / "data")
    tokenizer = make_tokenizer()
    (tmp_path / "data" / "model").mkdir()
    tokenizer.save(str(tmp_path / "data" / "model" / "tokenizer.json"))
    export_texts(TextNetwork(tokenizer).train_on(tokenizer), tmp_path / "data" / "model" / "texts.onnx")
    run, locations = evaluated_run(tmp_path, recipe_of())
    report = Report.from_json((run.report_path / "report.json").read_text())
    assert report.error["baseline"] < 10
    bundle = load_bundle(export_run(run, locations, tmp_path / "models", overwrite=False))
    session = onnxruntime.InferenceSession(bundle.model_path, providers=["CPUExecutionProvider"])
    encoder = TextEncoder.load(bundle.path / "tokenizer.json", MAX_TOKENS)
    texts = [text for topic in TOPICS for text in sentences(topic, 20, 9)]
    tokens, lengths = pad_tokens([encoder.encode(text) for text in texts])
    distances, predicted = session.run(["knn", "prediction"], {"tokens": tokens, "lengths": lengths})
    assert np.mean(predicted == np.repeat([0, 1], 20)) > 0.9
    assert np.median(distances) < bundle.calibrations["knn"].threshold(0.05)
    assert all(re.fullmatch(r"row \d+", reference.source) for reference in bundle.references)
    (nearest,) = session.run(["neighbours"], {"tokens": tokens, "lengths": lengths})
    labels = [bundle.references[row].label for row in nearest[:, 0]]
    assert np.mean([label == topic for label, topic in zip(labels, np.repeat(list(TOPICS), 20), strict=True)]) > 0.9
