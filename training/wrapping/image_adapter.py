"""The image adapter: from a bundle's uint8 images `[N, H, W, C]` to the input of an ONNX classifier."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import isqrt
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from bundle import ImageInput
from training.data import DataLocations, ImageReader
from training.errors import DataError, GraphError
from training.wrapping.image_preprocessing import DEFAULT_SIDE, PRESETS, Preprocessing, Resize, Size
from training.wrapping.input_adapter import PREFIX, Feed
from training.wrapping.onnx_classifier import GraphInput

Layout = Literal["nchw", "nhwc", "flat"]
"""The order of a classifier's axes; `flat` is one row `[N, H * W * C]` per image."""

_IMAGES = "images"
_CHANNELS = (1, 3)
_FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE)


@dataclass(frozen=True)
class ImageOptions:
    """The user's description of a classifier's images; the rest comes from the graph and the files next to it.

    Attributes:
        preprocess: the name of a preset; None for the file next to the graph, or the preset `none`.
        layout: the order of axes; None to guess it from the graph.
        size: height and width; None to read them from the graph.
        mean: of pixel values in 0..`scale`, one number or one per channel of the graph; empty for the preset's.
        std: likewise.
        scale: the pixel value of white.
        bgr: whether the graph's channels are blue, green, red; None for the preset's.
        resize: the filter that brings images of other sizes to the classifier's; None for the preset's.
        resize_to: the size before a centre crop: the shorter side's length, or height and width.
    """

    preprocess: str | None = None
    layout: Layout | None = None
    size: Size | None = None
    mean: Sequence[float] = ()
    std: Sequence[float] = ()
    scale: float = 1.0
    bgr: bool | None = None
    resize: Resize | None = None
    resize_to: int | Size | None = None

    @property
    def normalises(self) -> bool:
        """Whether the options state the normalisation, instead of a preset or file."""
        return bool(self.mean or self.std or self.scale != 1)


@dataclass(frozen=True)
class ImageAdapter:
    """Converts images to bytes or normalised floats in the classifier's order of axes.

    Attributes:
        spec: the bundle's input.
        layout: the classifier's order of axes.
        target: the classifier's input.
        bgr: whether the classifier's channels are blue, green, red.
    """

    spec: ImageInput
    layout: Layout
    target: GraphInput
    bgr: bool = False

    options = "--preprocess, --mean, --std, --scale, --layout and --size"
    remedy = (
        "Export it with a dynamic batch, in evaluation mode: torch.onnx.export(..., "
        "dynamic_shapes=({0: torch.export.Dim('N')},)) or dynamic_axes={'<input>': {0: 'N'}, '<output>': {0: 'N'}}"
    )

    @property
    def normalises(self) -> bool:
        """Whether `spec.mean` and `spec.std` are applied."""
        return self.target.elem_type != TensorProto.UINT8

    @property
    def files(self) -> Mapping[str, Path]:
        """No files."""
        return {}

    def reader(self, locations: DataLocations, *, skip_broken: bool = False) -> ImageReader:
        """A reader of images in the classifier's size."""
        return ImageReader(self.spec, locations, skip_broken=skip_broken)

    def probe_rows(self) -> Sequence[NDArray[np.uint8]]:
        """A noise image, and one of a single colour."""
        shape = (1, self.spec.height, self.spec.width, self.spec.channels)
        noise = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
        return noise, np.full(shape, 128, dtype=np.uint8)

    def prepare(self, rows: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The images, unchanged."""
        return (rows,)

    def feed(self, rows: NDArray[np.uint8]) -> Feed:
        """The classifier's input for images `[N, H, W, C]`."""
        values: NDArray[np.generic] = rows
        if self.normalises:
            mean, std = np.asarray(self.spec.mean), np.asarray(self.spec.std)
            values = ((rows / 255.0 - mean) / std).astype(helper.tensor_dtype_to_np_dtype(self.target.elem_type))
        if self.bgr:
            values = values[..., ::-1]
        if self.layout == "nchw":
            values = values.transpose(0, 3, 1, 2)
        if self.layout == "flat":
            values = values.reshape(len(values), -1)
        return {self.target.name: np.ascontiguousarray(values)}

    @property
    def graph(self) -> GraphProto:
        """Layout, channels and normalisation, from `images` uint8 `[N, H, W, C]` to the classifier's input."""
        steps: list[tuple[str, list[str], dict[str, Any]]] = []
        constants: list[TensorProto] = []

        def constant(name: str, value: NDArray[np.generic]) -> str:
            constants.append(numpy_helper.from_array(value, f"{PREFIX}{name}"))
            return f"{PREFIX}{name}"

        if self.bgr:
            steps.append(("Gather", [constant("blue-green-red", np.array([2, 1, 0], dtype=np.int64))], {"axis": 3}))
        if self.layout == "nchw":
            steps.append(("Transpose", [], {"perm": [0, 3, 1, 2]}))
        if self.normalises:
            axes = (1, -1, 1, 1) if self.layout == "nchw" else (1, 1, 1, -1)
            order = slice(None, None, -1) if self.bgr else slice(None)
            mean, std = (np.reshape(values[order], axes) for values in (self.spec.mean, self.spec.std))
            steps.append(("Cast", [], {"to": TensorProto.FLOAT}))
            steps.append(("Sub", [constant("mean", (255.0 * mean).astype(np.float32))], {}))
            steps.append(("Mul", [constant("scale", (1.0 / (255.0 * std)).astype(np.float32))], {}))
            if self.target.elem_type != TensorProto.FLOAT:
                steps.append(("Cast", [], {"to": self.target.elem_type}))
        if self.layout == "flat":
            steps.append(("Reshape", [constant("row", np.array([0, -1], dtype=np.int64))], {}))
        steps = steps or [("Identity", [], {})]
        names = [_IMAGES, *(f"{PREFIX}step-{i}" for i in range(1, len(steps) + 1))]
        shape: list[str | int] = ["N", self.spec.height, self.spec.width, self.spec.channels]
        return helper.make_graph(
            [
                helper.make_node(operator, [names[i], *others], [names[i + 1]], **attributes)
                for i, (operator, others, attributes) in enumerate(steps)
            ],
            "image-adapter",
            [helper.make_tensor_value_info(_IMAGES, TensorProto.UINT8, shape)],
            [helper.make_tensor_value_info(names[-1], self.target.elem_type, None)],
            constants,
        )


def image_adapter(
    model: ModelProto,
    inputs: Sequence[GraphInput],
    options: ImageOptions,
    stored: Preprocessing | None,
    announce: Callable[[str], None],
) -> ImageAdapter:
    """The adapter for a classifier of images.

    Args:
        model: the graph.
        inputs: the inputs that its logits depend on.
        options: the user's options, which override everything else.
        stored: the preprocessing of the files next to the graph, if there are any.
        announce: gets a line for each guess.

    Raises:
        GraphError: if the classifier takes no images, or its shape contradicts the options or leaves a choice open.
        DataError: if the preset is unknown.
    """
    target = _image_input(inputs)
    steps = preprocessing_of(options, stored)
    layout, channels, (height, width) = _axes(model, target, options, announce)
    if channels not in _CHANNELS:
        reason = f"its images {_shape_text(target.shape)} have {channels} channels as {layout}"
        raise GraphError(target.name, reason, "Bundles take 1 or 3; give the other --layout if that was wrong")
    takes_bytes = target.elem_type == TensorProto.UINT8
    if takes_bytes and (options.mean or options.std or options.scale != 1):
        raise GraphError(target.name, "takes bytes and normalises them itself", "Leave out --mean, --std and --scale")
    size = (
        _side(target.name, "height", height, options.size and options.size[0], steps, announce),
        _side(target.name, "width", width, options.size and options.size[1], steps, announce),
    )
    bgr = (steps.bgr if options.bgr is None else options.bgr) and channels == 3
    spec = image_input(options, steps, size, channels, bgr=bgr)
    if takes_bytes:
        # The graph itself normalises bytes.
        spec = spec.model_copy(update={"mean": (0.0,) * channels, "std": (1.0,) * channels})
    adapter = ImageAdapter(spec, layout, target, bgr)
    announce(_summary(adapter, options, steps))
    return adapter


def image_input(
    options: ImageOptions, steps: Preprocessing, size: Size, channels: int, *, bgr: bool = False
) -> ImageInput:
    """The input of images of `size` with 1 or 3 channels, prepared by `steps` unless `options` say otherwise."""
    return ImageInput(
        height=size[0],
        width=size[1],
        channels=1 if channels == 1 else 3,
        resize=options.resize or steps.resize,
        resize_to=_resized(options, steps, size),
        mean=_per_channel("mean", options, steps.mean, channels, bgr=bgr),
        std=_per_channel("std", options, steps.std, channels, bgr=bgr),
    )


def preprocessing_of(options: ImageOptions, stored: Preprocessing | None) -> Preprocessing:
    """The preset that `options` name, else the preprocessing of the files next to a graph, else the preset `none`.

    Raises:
        DataError: if the preset is unknown.
    """
    if options.preprocess is not None:
        if options.preprocess not in PRESETS:
            raise DataError("--preprocess", f"'{options.preprocess}' is unknown", f"Known: {', '.join(PRESETS)}")
        return PRESETS[options.preprocess]
    return stored or PRESETS["none"]


def _summary(adapter: ImageAdapter, options: ImageOptions, steps: Preprocessing) -> str:
    spec = adapter.spec
    cropped = ""
    if spec.resize_to is not None:
        before = f"shorter side {spec.resize_to}" if isinstance(spec.resize_to, int) else _by(spec.resize_to)
        cropped = f" resized to {before}, cropped to"
    normalised = "bytes"
    if adapter.normalises:
        normalised = f"mean {_numbers(spec.mean)}, std {_numbers(spec.std)} of values in 0..1"
    order = "" if spec.channels == 1 else ", BGR" if adapter.bgr else ", RGB"
    origin = "the options" if options.normalises else steps.origin
    return (
        f"preprocessing: {origin};{cropped} {spec.height}x{spec.width} ({spec.resize}){order}, {adapter.layout}, "
        f"{normalised}; --preprocess overrides it"
    )


def _by(size: Size) -> str:
    return "x".join(map(str, size))


def _numbers(values: Sequence[float]) -> str:
    distinct = values[:1] if len(set(values)) == 1 else values
    return ",".join(f"{value:.4g}" for value in distinct)


def _resized(options: ImageOptions, steps: Preprocessing, size: Size) -> int | Size | None:
    resized = options.resize_to or steps.resized(size)
    if resized is None or resized == size:
        return None
    fits = min(size) <= resized if isinstance(resized, int) else resized[0] >= size[0] and resized[1] >= size[1]
    if not fits and options.resize_to is not None:
        raise DataError("--resize-to", f"is smaller than the classifier's images, {_by(size)}", "Give a larger one")
    return resized if fits else None


def _image_input(inputs: Sequence[GraphInput]) -> GraphInput:
    remedy = (
        "An image classifier takes one, float or uint8 [N, C, H, W] or [N, H, W, C]; a text classifier integers, with "
        "a tokenizer.json next to the graph or --tokenizer"
    )
    if len(inputs) != 1:
        names = ", ".join(value.name for value in inputs)
        raise GraphError("the graph", f"the logits depend on {len(inputs)} inputs ({names})", remedy)
    (value,) = inputs
    if value.elem_type not in (*_FLOATS, TensorProto.UINT8) or len(value.shape) not in (2, 4):
        kind = TensorProto.DataType.Name(value.elem_type).lower()
        raise GraphError(f"'{value.name}'", f"is an input of {kind} with {len(value.shape)} dimensions", remedy)
    return value


def _axes(
    model: ModelProto,
    target: GraphInput,
    options: ImageOptions,
    announce: Callable[[str], None],
) -> tuple[Layout, int, tuple[int | None, int | None]]:
    """The order of axes, the number of channels, and the height and width in the graph."""
    if len(target.shape) == 2:
        return _flat_axes(target, options, announce)
    layout = options.layout
    if layout is None:
        layout, reason = _guess_layout(model, target)
        announce(f"layout: {layout}, from {reason}; --layout overrides it")
    if layout == "flat":
        raise GraphError(target.name, f"its shape {_shape_text(target.shape)} has four axes", "Give another --layout")
    order = (1, 2, 3) if layout == "nchw" else (3, 1, 2)
    channels, height, width = (target.shape[axis] for axis in order)
    return layout, channels or _dynamic_channels(model, target, options), (height, width)


def _dynamic_channels(model: ModelProto, target: GraphInput, options: ImageOptions) -> int:
    """The number of channels of a graph that does not declare it: that of its first convolution, else 3."""
    convolution = _first_convolution(model, target.name)
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    if convolution is not None and convolution[0].input[1] in weights:
        group = next((attribute.i for attribute in convolution[0].attribute if attribute.name == "group"), 1)
        return int(weights[convolution[0].input[1]].dims[1] * group)
    return 1 if len(options.mean) == 1 else 3


def _flat_axes(
    target: GraphInput, options: ImageOptions, announce: Callable[[str], None]
) -> tuple[Layout, int, tuple[int, int]]:
    """The axes of images in one row of numbers each."""
    remedy = "Images in one row each need their --size HxW; tables cannot be wrapped"
    length = target.shape[1]
    if length is None:
        raise GraphError(f"'{target.name}'", "takes rows of any length", remedy)
    for channels in _CHANNELS:
        if options.size is not None:
            if options.size[0] * options.size[1] * channels == length:
                return "flat", channels, options.size
        elif (side := isqrt(length // channels)) ** 2 * channels == length and side > 1:
            announce(f"layout: flat, {side}x{side}x{channels} from the {length} numbers of a row; --size overrides it")
            return "flat", channels, (side, side)
    raise GraphError(f"'{target.name}'", f"takes rows of {length} numbers, which are no square image", remedy)


def _side(
    input_name: str,
    side: str,
    static: int | None,
    option: int | None,
    steps: Preprocessing,
    announce: Callable[[str], None],
) -> int:
    """The height or width: `static` in the graph's shape, or by the `option` --size, or the preprocessing's."""
    if static is not None and option is not None and static != option:
        raise GraphError(input_name, f"its {side} is {static}, not {option}", "Leave out --size or correct it")
    if (size := static or option) is not None:
        return int(size)
    if steps.size is not None:
        return steps.size[side == "width"]
    announce(f"{side}: {DEFAULT_SIDE}, because the graph takes any; --size overrides it")
    return DEFAULT_SIDE


def _guess_layout(model: ModelProto, target: GraphInput) -> tuple[Layout, str]:
    """The order of axes, and the reason for the guess."""
    shape = target.shape
    first, last = shape[1] in _CHANNELS, shape[3] in _CHANNELS
    if first != last:
        return "nchw" if first else "nhwc", f"the input's shape {_shape_text(shape)}"
    if (found := _first_convolution(model, target.name)) is not None:
        return ("nhwc" if found[1] else "nchw"), f"the {found[0].op_type} that reads the input '{target.name}'"
    raise GraphError(
        f"'{target.name}'", f"its shape {_shape_text(shape)} leaves open which axis holds the channels", "Give --layout"
    )


def _first_convolution(model: ModelProto, name: str) -> tuple[NodeProto, bool] | None:
    """The first convolution or pooling behind the input `name`, and whether the channels are moved to axis 1 before."""
    moved = {name: False}
    for node in model.graph.node:
        source = next((operand for operand in node.input if operand in moved), None)
        if source is None:
            continue
        if node.op_type in ("Conv", "MaxPool", "AveragePool", "GlobalAveragePool"):
            return node, moved[source]
        permutation = next((list(attribute.ints) for attribute in node.attribute if attribute.name == "perm"), None)
        is_moved = moved[source] or (node.op_type == "Transpose" and permutation == [0, 3, 1, 2])
        moved.update(dict.fromkeys(node.output, is_moved))
    return None


def _per_channel(
    name: Literal["mean", "std"], options: ImageOptions, preset: Sequence[float], channels: int, *, bgr: bool
) -> tuple[float, ...]:
    """The mean or standard deviation of values in 0..1, in the order of an RGB image."""
    given: Sequence[float] = getattr(options, name)
    if not options.normalises:
        # Of a grey image, the average of the preset's colours.
        return (float(np.mean(preset)),) if channels == 1 else tuple(preset) * (1 if len(preset) > 1 else channels)
    numbers = list(given) or [0.0 if name == "mean" else 1.0]
    if len(numbers) not in (1, channels):
        reason = f"has {len(numbers)} numbers for {channels} channels"
        raise GraphError(f"--{name}", reason, "Give one for each channel")
    if name == "mean" and max(numbers) > options.scale:
        reason = f"has {max(numbers):g}, more than the pixel value of white, {options.scale:g}"
        raise GraphError("--mean", reason, "For numbers of pixel values in 0..255, add --scale 255")
    if name == "std" and min(numbers) <= 0:
        raise GraphError("--std", "must be positive", "Correct it")
    numbers = numbers * channels if len(numbers) == 1 else numbers
    return tuple(value / options.scale for value in (numbers[::-1] if bgr else numbers))


def _shape_text(shape: tuple[int | None, ...]) -> str:
    return "[" + ", ".join("?" if size is None else str(size) for size in shape) + "]"
