"""A backbone: the graph from a bundle's uint8 images to the features of a pretrained ONNX model."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, TensorProto, ValueInfoProto, compose, helper, numpy_helper

from bundle import ImageInput
from training.errors import GraphError
from training.linear_head import POOLING, find_linear_head
from training.onnx_graphs import prune, read_file, replace_content

FEATURES = "features"
"""The output of a backbone's graph."""

_IMAGES, _PIXELS, _PREFIX = "images", "backbone/pixels", "backbone/"
_TYPES = (TensorProto.FLOAT, TensorProto.FLOAT16)
_MIN_IR = 8
_REMEDY = "Give a model with one float input of images and one feature vector per image"


@dataclass(frozen=True)
class Backbone:
    """A graph from `images` uint8 `[N, H, W, C]` to `FEATURES` float32 `[N, D]`.

    Attributes:
        model: The graph.
        size: D.
        source: The name of the file that it was made from.
        sha256: A hash of that file, of the tensor with the features and of the images' normalisation.
    """

    model: ModelProto
    size: int
    source: str
    sha256: str


def load_backbone(path: Path, spec: ImageInput, features: str | None = None) -> Backbone:
    """Read the ONNX model in `path` and reduce it to the nodes that its features depend on.

    Args:
        path: A classifier, or a model whose first output is features.
        spec: The size and normalisation of the model's images.
        features: The tensor with the features, `[N, D]`, or `[N, D, H, W]`, which is averaged over positions. By
            default the input of the last linear layer if that computes the model's first output, else that output.

    Raises:
        GraphError: The file is no such model, or its features are not one vector per image.
    """
    model = read_file(path)
    pixels = _pixels(model, path.name)
    name = features or _features_of(model)
    if name not in {output for node in model.graph.node for output in node.output}:
        raise GraphError(path.name, f"has no tensor '{name}'", "Name its features: architecture.features")
    prune(model.graph, [name])
    replace_content(model.graph.input, [pixels])
    model.ir_version = max(model.ir_version, _MIN_IR)
    model = compose.add_prefix(model, _PREFIX)
    _prepend(model.graph, spec, pixels.type.tensor_type)
    rank = _rank(model, _PREFIX + name, spec, path.name)
    operator = "GlobalAveragePool" if rank == 4 else "Identity"
    model.graph.node.append(helper.make_node(operator, [_PREFIX + name], ["backbone/pooled"]))
    model.graph.node.append(helper.make_node("Flatten", ["backbone/pooled"], ["backbone/flat"], axis=1))
    model.graph.node.append(helper.make_node("Cast", ["backbone/flat"], [FEATURES], to=TensorProto.FLOAT))
    _set_output(model, FEATURES)
    digest = hashlib.sha256(path.read_bytes() + spec.model_dump_json().encode() + name.encode()).hexdigest()
    return Backbone(model, _run(model, FEATURES, _noise(spec), path.name).shape[1], path.name, digest)


def save_backbone(backbone: Backbone, path: Path) -> None:
    """Write the graph and the attributes of `backbone` to `path`."""
    model = ModelProto()
    model.CopyFrom(backbone.model)
    helper.set_model_props(model, {"size": str(backbone.size), "source": backbone.source, "sha256": backbone.sha256})
    onnx.save(model, path)


def open_backbone(path: Path) -> Backbone:
    """The backbone that `save_backbone` wrote to `path`."""
    model = onnx.load(path)
    facts = {entry.key: entry.value for entry in model.metadata_props}
    del model.metadata_props[:]
    return Backbone(model, int(facts["size"]), facts["source"], facts["sha256"])


def feature_session(backbone: Backbone) -> Callable[[NDArray[np.uint8]], NDArray[np.float32]]:
    """A function from images `[N, H, W, C]` to features `[N, D]`, by ONNX Runtime on the CPU."""
    session = onnxruntime.InferenceSession(backbone.model.SerializeToString(), providers=["CPUExecutionProvider"])

    def features(images: NDArray[np.uint8]) -> NDArray[np.float32]:
        (values,) = session.run([FEATURES], {_IMAGES: np.ascontiguousarray(images)})
        result: NDArray[np.float32] = values
        return result

    return features


def _pixels(model: ModelProto, source: str) -> ValueInfoProto:
    """The input for images."""
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in weights]
    if len(inputs) != 1:
        raise GraphError(source, f"has {len(inputs)} inputs ({', '.join(value.name for value in inputs)})", _REMEDY)
    tensor = inputs[0].type.tensor_type
    if len(tensor.shape.dim) != 4 or tensor.elem_type not in _TYPES:
        raise GraphError(source, f"its input '{inputs[0].name}' is no float tensor of four dimensions", _REMEDY)
    pixels: ValueInfoProto = inputs[0]
    return pixels


def _features_of(model: ModelProto) -> str:
    """The input of the last linear layer if that computes the first output, else the first output."""
    output: str = model.graph.output[0].name
    softmax = next((node for node in model.graph.node if node.op_type == "Softmax" and output in node.output), None)
    head = find_linear_head(model.graph, output if softmax is None else softmax.input[0])
    # Behind a convolution, a ReLU or pooling, the output is features itself.
    if head is None or head.node.op_type == "Conv" or {"Relu", *POOLING} & set(head.between):
        return output
    return head.features


def _prepend(graph: GraphProto, spec: ImageInput, tensor: Any) -> None:
    """Add normalisation and order of axes before the input of `graph`."""
    channels_last = tensor.shape.dim[3].dim_value == spec.channels and tensor.shape.dim[1].dim_value != spec.channels
    axes = (1, 1, 1, -1) if channels_last else (1, -1, 1, 1)
    mean, std = np.reshape(spec.mean, axes), np.reshape(spec.std, axes)
    constants = {"mean": 255.0 * mean, "scale": 1.0 / (255.0 * std)}
    graph.initializer.extend(
        numpy_helper.from_array(value.astype(np.float32), f"{_PIXELS}/{name}") for name, value in constants.items()
    )
    order = [0, 1, 2, 3] if channels_last else [0, 3, 1, 2]
    steps = [
        helper.make_node("Transpose", [_IMAGES], [f"{_PIXELS}/1"], perm=order),
        helper.make_node("Cast", [f"{_PIXELS}/1"], [f"{_PIXELS}/2"], to=TensorProto.FLOAT),
        helper.make_node("Sub", [f"{_PIXELS}/2", f"{_PIXELS}/mean"], [f"{_PIXELS}/3"]),
        helper.make_node("Mul", [f"{_PIXELS}/3", f"{_PIXELS}/scale"], [f"{_PIXELS}/4"]),
        helper.make_node("Cast", [f"{_PIXELS}/4"], [graph.input[0].name], to=tensor.elem_type),
    ]
    replace_content(graph.node, [*steps, *graph.node])
    shape: list[str | int] = ["N", spec.height, spec.width, spec.channels]
    replace_content(graph.input, [helper.make_tensor_value_info(_IMAGES, TensorProto.UINT8, shape)])


def _rank(model: ModelProto, output: str, spec: ImageInput, source: str) -> int:
    """The number of axes of the tensor `output`: 2, or 4 for one vector per position."""
    _set_output(model, output)
    noise = _noise(spec)
    values = _run(model, output, noise, source)
    if values.ndim not in (2, 4) or len(values) != len(noise):
        raise GraphError(source, f"its features have shape {list(values.shape)} for {len(noise)} images", _REMEDY)
    return values.ndim


def _set_output(model: ModelProto, output: str) -> None:
    del model.graph.output[:]
    model.graph.output.add(name=output)


def _noise(spec: ImageInput) -> NDArray[np.uint8]:
    shape = (2, spec.height, spec.width, spec.channels)
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def _run(model: ModelProto, output: str, images: NDArray[np.uint8], source: str) -> NDArray[np.floating[Any]]:
    try:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        (values,) = session.run([output], {_IMAGES: images})
    # ONNX Runtime has an exception type for each kind of fault, without a common base.
    except Exception as error:
        size = "x".join(map(str, images.shape[1:]))
        raise GraphError(source, f"cannot compute features of images {size}: {error}", _REMEDY) from error
    result: NDArray[np.floating[Any]] = values
    return result
