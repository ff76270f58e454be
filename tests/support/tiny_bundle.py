"""A small image bundle, made in milliseconds: a linear colour classifier as an ONNX graph, calibrated by running it."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from bundle import (
    Calibration,
    CalibrationSpec,
    EvidenceSpec,
    ImageInput,
    NeighboursSpec,
    Reference,
    ScoreOutput,
    get_score,
    save_calibrations,
    save_references,
    seal_bundle,
)

TINY_SCORES = ("msp", "max_logit", "energy", "entropy", "kl_uniform")
"""The scores of the tiny bundle, the default first."""


TINY_REFERENCES = tuple(
    Reference(label=label, source=source)
    for label, source in (("red", "red/a.png"), ("green", "green/b.png"), ("blue", "blue/c.png"), ("red", "row 7"))
)
"""The training examples of the tiny bundle: pure colours, and an orange one."""
_REFERENCE_COLOURS = ((255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 128, 0))


def make_tiny_bundle(
    directory: Path,
    *,
    name: str = "tiny",
    version: str = "1",
    labels: Sequence[str] = ("red", "green", "blue"),
    size: int = 8,
    channels: int = 3,
    seed: int = 0,
    n_calibration: int = 200,
    alpha: float = 0.05,
    default_score: str = "msp",
    evidence: bool = False,
    neighbours: bool = False,
) -> Path:
    """Write the bundle `directory`/`name`/`version` and return its folder.

    With the default labels a red image is "red", and so on: the logits are scaled means of the channels. The weights of
    further labels and of other numbers of channels are random, from `seed`. The calibration images are, too. With
    `evidence` the graph has the part of each pixel in the logit of the predicted class; with `neighbours` it has the
    nearest of `TINY_REFERENCES`.
    """
    folder = directory / name / version
    folder.mkdir(parents=True)
    model = tiny_graph(len(labels), size=size, channels=channels, seed=seed)
    if evidence:
        _add_evidence(model, len(labels), size)
    if neighbours:
        _add_neighbours(model)
        save_references(folder / "references.json", TINY_REFERENCES)
    onnx.save(model, folder / "model.onnx")
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    values = session.run(list(TINY_SCORES), {"images": tiny_images(n_calibration, size, channels, seed)})
    save_calibrations(
        folder / "calibration.npz",
        {
            score: Calibration.from_scores(get_score(score).anomaly(value))
            for score, value in zip(TINY_SCORES, values, strict=True)
        },
    )
    seal_bundle(
        folder,
        {
            "name": name,
            "version": version,
            "description": "A colour classifier for tests.",
            "modality": "image",
            "task": "classification",
            "input": ImageInput(
                height=size,
                width=size,
                channels=3 if channels == 3 else 1,
                mean=(0.5,) * channels,
                std=(0.25,) * channels,
            ),
            "labels": list(labels),
            "scores": [ScoreOutput(name=score, output=score) for score in TINY_SCORES],
            "default_score": default_score,
            "evidence": EvidenceSpec(output="evidence", bias=(0.0,) * len(labels)) if evidence else None,
            "neighbours": NeighboursSpec(output="neighbours", distances="distances", file="references.json")
            if neighbours
            else None,
            "calibration": CalibrationSpec(
                file="calibration.npz", n=n_calibration, source="random colours", alpha=alpha
            ),
            "created": datetime(2026, 1, 1, tzinfo=UTC),
        },
    )
    return folder


def tiny_images(n: int, size: int = 8, channels: int = 3, seed: int = 0) -> NDArray[np.uint8]:
    """In-distribution images `[n, size, size, channels]`: one colour each, with a little noise."""
    rng = np.random.default_rng(seed)
    colour = rng.integers(0, 256, (n, 1, 1, channels))
    noise = rng.integers(-10, 11, (n, size, size, channels))
    images: NDArray[np.uint8] = np.clip(colour + noise, 0, 255).astype(np.uint8)
    return images


def tiny_graph(classes: int, *, size: int = 8, channels: int = 3, seed: int = 0) -> onnx.ModelProto:
    """The bundle's graph, from `images` uint8 `[N, H, W, C]` to scores, `prediction` and `probability`."""
    weight = np.random.default_rng(seed).normal(0, 4, (channels, classes)).astype(np.float32)
    diagonal = min(channels, classes, 3)
    weight[:diagonal, :diagonal] = 4 * np.eye(diagonal, dtype=np.float32)
    constants: dict[str, NDArray[np.generic]] = {
        "pixel_axes": np.array([1, 2], dtype=np.int64),
        "class_axis": np.array([1], dtype=np.int64),
        "full_scale": np.array(255, dtype=np.float32),
        "mean": np.array(0.5, dtype=np.float32),
        "std": np.array(0.25, dtype=np.float32),
        "weight": weight,
    }
    nodes = [
        helper.make_node("Cast", ["images"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["pixels", "pixel_axes"], ["colour"], keepdims=0),
        helper.make_node("Div", ["colour", "full_scale"], ["unit"]),
        helper.make_node("Sub", ["unit", "mean"], ["centred"]),
        helper.make_node("Div", ["centred", "std"], ["normalised"]),
        helper.make_node("MatMul", ["normalised", "weight"], ["logits"]),
        *score_nodes(),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["N", size, size, channels])],
        score_outputs(),
        [numpy_helper.from_array(value, key) for key, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    return model


def _add_evidence(model: onnx.ModelProto, classes: int, size: int) -> None:
    """Add the output `evidence` `[N, H, W]`, the part of each pixel in the largest logit, to the tiny graph."""
    constants: dict[str, NDArray[np.generic]] = {
        "classes": np.array(classes, dtype=np.int64),
        "off_on": np.array([0, 1], dtype=np.float32),
        "predicted_axes": np.array([1, 2], dtype=np.int64),
        "last_axis": np.array([3], dtype=np.int64),
        "pixel_count": np.array(size * size, dtype=np.float32),
    }
    model.graph.initializer.extend(numpy_helper.from_array(value, key) for key, value in constants.items())
    model.graph.node.extend(
        [
            helper.make_node("Div", ["pixels", "full_scale"], ["pixel_unit"]),
            helper.make_node("Sub", ["pixel_unit", "mean"], ["pixel_centred"]),
            helper.make_node("Div", ["pixel_centred", "std"], ["pixel_normalised"]),
            helper.make_node("MatMul", ["pixel_normalised", "weight"], ["pixel_logits"]),
            helper.make_node("OneHot", ["prediction", "classes", "off_on"], ["is_predicted"], axis=1),
            helper.make_node("Unsqueeze", ["is_predicted", "predicted_axes"], ["class_mask"]),
            helper.make_node("Mul", ["pixel_logits", "class_mask"], ["of_class"]),
            helper.make_node("ReduceSum", ["of_class", "last_axis"], ["pixel_sum"], keepdims=0),
            helper.make_node("Div", ["pixel_sum", "pixel_count"], ["evidence"]),
        ]
    )
    model.graph.output.append(helper.make_tensor_value_info("evidence", TensorProto.FLOAT, ["N", size, size]))
    onnx.checker.check_model(model, full_check=True)


def _add_neighbours(model: onnx.ModelProto) -> None:
    """Add the outputs `neighbours` and `distances` `[N, 3]`, the nearest references by their mean colour."""
    colours = (np.array(_REFERENCE_COLOURS, dtype=np.float32) / 255 - 0.5) / 0.25
    directions = colours / np.linalg.norm(colours, axis=1, keepdims=True)
    constants: dict[str, NDArray[np.generic]] = {
        "directions": np.ascontiguousarray(directions.T),
        "three": np.array([3], dtype=np.int64),
        "two": np.array(2, dtype=np.float32),
    }
    model.graph.initializer.extend(numpy_helper.from_array(value, key) for key, value in constants.items())
    model.graph.node.extend(
        [
            helper.make_node("LpNormalization", ["normalised"], ["direction"], axis=1, p=2),
            helper.make_node("MatMul", ["direction", "directions"], ["similarity"]),
            helper.make_node("TopK", ["similarity", "three"], ["nearest", "neighbours"], axis=1),
            helper.make_node("Mul", ["nearest", "two"], ["doubled"]),
            helper.make_node("Sub", ["two", "doubled"], ["distances"]),
        ]
    )
    model.graph.output.extend(
        [
            helper.make_tensor_value_info("neighbours", TensorProto.INT64, ["N", 3]),
            helper.make_tensor_value_info("distances", TensorProto.FLOAT, ["N", 3]),
        ]
    )
    onnx.checker.check_model(model, full_check=True)


def score_nodes() -> list[onnx.NodeProto]:
    """Nodes from `logits` `[N, K]` and the constant `class_axis` to every score, `prediction` and `probability`."""
    return [
        helper.make_node("LogSoftmax", ["logits"], ["log_softmax"], axis=1),
        helper.make_node("Softmax", ["logits"], ["softmax"], axis=1),
        helper.make_node("ArgMax", ["logits"], ["prediction"], axis=1, keepdims=0),
        helper.make_node("ReduceMax", ["softmax", "class_axis"], ["msp"], keepdims=0),
        helper.make_node("Identity", ["msp"], ["probability"]),
        helper.make_node("ReduceMax", ["logits", "class_axis"], ["max_logit"], keepdims=0),
        helper.make_node("ReduceLogSumExp", ["logits", "class_axis"], ["log_sum_exp"], keepdims=0),
        helper.make_node("Neg", ["log_sum_exp"], ["energy"]),
        helper.make_node("Mul", ["softmax", "log_softmax"], ["plogp"]),
        helper.make_node("ReduceSum", ["plogp", "class_axis"], ["negative_entropy"], keepdims=0),
        helper.make_node("Neg", ["negative_entropy"], ["entropy"]),
        helper.make_node("ReduceMean", ["log_softmax", "class_axis"], ["mean_log_softmax"], keepdims=0),
        helper.make_node("Neg", ["mean_log_softmax"], ["kl_uniform"]),
    ]


def score_outputs() -> list[onnx.ValueInfoProto]:
    """The outputs of `score_nodes`."""
    outputs = [
        helper.make_tensor_value_info(score, TensorProto.FLOAT, ["N"]) for score in (*TINY_SCORES, "probability")
    ]
    return [*outputs, helper.make_tensor_value_info("prediction", TensorProto.INT64, ["N"])]
