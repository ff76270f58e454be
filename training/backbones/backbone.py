"""A backbone: the graph from a bundle's images or texts to the features of a pretrained ONNX model."""

import hashlib
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, TensorProto, ValueInfoProto, compose, helper, numpy_helper

from bundle import ImageInput
from training.backbones.text_inputs import mean_over_tokens, prepend_text_inputs, takes_texts
from training.backbones.transformers_model import transformers_digest, transformers_graph
from training.data.token_ids import NO_TOKEN, TEXT_INPUTS, text_batch
from training.errors import BackboneError, GraphError
from training.linear_head import POOLING, find_linear_head
from training.onnx_graphs import digest_of, opset_of, prune, read_file, replace_content, with_opset
from training.recipe import TextConfig

FEATURES = "features"
"""The output of a backbone's graph."""

_IMAGES, _PIXELS, _PREFIX = "images", "backbone/pixels", "backbone/"
_TYPES = (TensorProto.FLOAT, TensorProto.FLOAT16)
_MIN_IR, _MIN_TEXT_OPSET = 8, 13
_PIXEL_AXES, _TOKEN_AXES = 4, 3
_REMEDY = "Give a model with one float input of images and one feature vector per image"
_TEXT_REMEDY = "Give a model of token ids with one feature vector per text or per token"
_PROBES = 2
_Feed = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Backbone:
    """A graph from `images` uint8 `[N, H, W, C]`, or from `tokens` and `lengths`, to `FEATURES` float32 `[N, D]`.

    Attributes:
        model: The graph.
        size: D.
        source: The name of the file that it was made from.
        sha256: A hash of that file and its weights, of the tensor with the features and of the input's description.
    """

    model: ModelProto
    size: int
    source: str
    sha256: str


def load_backbone(
    path: Path, spec: ImageInput | TextConfig, features: str | None = None, *, name: str | None = None
) -> Backbone:
    """Read the model in `path` and reduce it to the nodes that its features depend on.

    Args:
        path: An ONNX file of a classifier, or of a model whose first output is features; or the folder of a
            `transformers` model, which is exported.
        spec: The size and normalisation of the model's images, or the length of its texts.
        features: The tensor with the features of an ONNX file, `[N, D]`, or `[N, D, H, W]` and `[N, L, D]`, which are
            averaged over positions and tokens. By default the input of the last linear layer if that computes the
            model's first output, else that output.
        name: The name of the model, by default that of the file or folder.

    Raises:
        GraphError: The file is no such model, or its features are not one vector per input.
        BackboneError: The folder holds no such model, or `features` is given for a folder.
    """
    name = name or path.name
    if not path.is_dir():
        model = read_file(path)
        return _backbone(model, spec, features, source=name, digest=digest_of(path))
    if features is not None:
        reason = "is a transformers model, whose features have no name"
        raise BackboneError(name, reason, "Leave out architecture.features")
    model, digest = transformers_graph(path, spec), transformers_digest(path)
    return _backbone(model, spec, model.graph.output[0].name, source=name, digest=digest)


def _backbone(
    model: ModelProto, spec: ImageInput | TextConfig, features: str | None, *, source: str, digest: bytes
) -> Backbone:
    """The part of `model` that its features depend on, from stored inputs; see `load_backbone`."""
    weights = {tensor.name for tensor in model.graph.initializer}
    replace_content(model.graph.input, [value for value in model.graph.input if value.name not in weights])
    is_text = isinstance(spec, TextConfig)
    if is_text != takes_texts(model.graph.input):
        kinds = ("images", "texts") if is_text else ("texts", "images")
        raise GraphError(source, f"is a model of {kinds[0]}, the data are {kinds[1]}", "Give another backbone")
    if is_text and opset_of(model) < _MIN_TEXT_OPSET:
        model = with_opset(model, _MIN_TEXT_OPSET)
    name = features or _features_of(model)
    if name not in {output for node in model.graph.node for output in node.output}:
        raise GraphError(source, f"has no tensor '{name}'", "Name its features: architecture.features")
    pixels = None if is_text else _pixels(model, source)
    prune(model.graph, [name])
    if pixels is not None:
        replace_content(model.graph.input, [pixels])
    input_names = [value.name for value in model.graph.input]
    model.ir_version = max(model.ir_version, _MIN_IR)
    model = compose.add_prefix(model, _PREFIX)
    if isinstance(spec, ImageInput):
        _prepend(model.graph, spec, model.graph.input[0].type.tensor_type)
    else:
        prepend_text_inputs(model.graph, input_names, source)
    feed = _probe(spec)
    axes = _axes(model, _PREFIX + name, feed, source)
    pooled = "backbone/pooled"
    if axes == _TOKEN_AXES:
        model.graph.node.extend(mean_over_tokens(_PREFIX + name, pooled))
    else:
        operator = "GlobalAveragePool" if axes == _PIXEL_AXES else "Identity"
        model.graph.node.append(helper.make_node(operator, [_PREFIX + name], [pooled]))
    model.graph.node.append(helper.make_node("Flatten", [pooled], ["backbone/flat"], axis=1))
    model.graph.node.append(helper.make_node("Cast", ["backbone/flat"], [FEATURES], to=TensorProto.FLOAT))
    # The inputs stay, also those that the features do not depend on.
    inputs = deepcopy(list(model.graph.input))
    prune(model.graph, [FEATURES])
    replace_content(model.graph.input, inputs)
    sha256 = hashlib.sha256(digest + spec.model_dump_json().encode() + name.encode()).hexdigest()
    return Backbone(model, _run(model, FEATURES, feed, source).shape[1], source, sha256)


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


def feature_session(backbone: Backbone) -> Callable[[NDArray[Any]], NDArray[np.float32]]:
    """A function from stored images or texts `[N, ...]` to features `[N, D]`, by ONNX Runtime on the CPU."""
    session = _session(backbone.model)
    is_text = [value.name for value in session.get_inputs()] == list(TEXT_INPUTS)

    def features(rows: NDArray[Any]) -> NDArray[np.float32]:
        (values,) = session.run([FEATURES], _feed(rows, is_text=is_text))
        result: NDArray[np.float32] = values
        return result

    return features


def _pixels(model: ModelProto, source: str) -> ValueInfoProto:
    """The input for images."""
    inputs = model.graph.input
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


def _axes(model: ModelProto, output: str, feed: _Feed, source: str) -> int:
    """The number of axes of the tensor `output`: 2, 4 for one vector per position, or 3 for one per token."""
    _set_output(model, output)
    values = _run(model, output, feed, source)
    several = _PIXEL_AXES if _IMAGES in feed else _TOKEN_AXES
    if values.ndim not in (2, several) or len(values) != _PROBES:
        remedy = _REMEDY if _IMAGES in feed else _TEXT_REMEDY
        raise GraphError(source, f"its features have shape {list(values.shape)} for {_PROBES} inputs", remedy)
    return values.ndim


def _set_output(model: ModelProto, output: str) -> None:
    del model.graph.output[:]
    model.graph.output.add(name=output)


def _feed(rows: NDArray[Any], *, is_text: bool) -> _Feed:
    """The inputs of a backbone's graph for stored images or texts."""
    if not is_text:
        return {_IMAGES: np.ascontiguousarray(rows)}
    inputs = text_batch(torch.from_numpy(np.ascontiguousarray(rows)))
    return dict(zip(TEXT_INPUTS, (tensor.numpy() for tensor in inputs), strict=True))


def _probe(spec: ImageInput | TextConfig) -> _Feed:
    """Two images of noise, or two texts of the first token, as long as a model reads and half as long."""
    if isinstance(spec, ImageInput):
        shape = (_PROBES, spec.height, spec.width, spec.channels)
        return _feed(np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8), is_text=False)
    rows = np.zeros((_PROBES, spec.max_tokens), dtype=np.int32)
    rows[1, max(spec.max_tokens // 2, 1) :] = NO_TOKEN
    return _feed(rows, is_text=True)


def _run(model: ModelProto, output: str, feed: _Feed, source: str) -> NDArray[np.floating[Any]]:
    try:
        (values,) = _session(model).run([output], feed)
    # ONNX Runtime has an exception type for each kind of fault, without a common base.
    except Exception as error:
        name, values = next(iter(feed.items()))
        size = "x".join(map(str, values.shape[1:]))
        remedy = _REMEDY if name == _IMAGES else _TEXT_REMEDY
        raise GraphError(source, f"cannot compute features of {name} {size}: {error}", remedy) from error
    result: NDArray[np.floating[Any]] = values
    return result


def _session(model: ModelProto) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    # Without its warnings of constants that are not used.
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
