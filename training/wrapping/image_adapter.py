"""The image adapter: from a bundle's uint8 images `[N, H, W, C]` to the input of an ONNX classifier."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from onnx import GraphProto, TensorProto, helper, numpy_helper

from bundle import ImageInput
from training.data import DataLocations, ImageReader
from training.errors import GraphError
from training.wrapping.input_adapter import PREFIX, Feed
from training.wrapping.onnx_classifier import GraphInput, OnnxClassifier

Layout = Literal["nchw", "nhwc"]
Resize = Literal["bilinear", "bicubic", "lanczos"]

_IMAGES = "images"
_CHANNELS = (1, 3)
_FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE)


@dataclass(frozen=True)
class ImageOptions:
    """The user's description of a classifier's images; the rest comes from the shape of its input.

    Attributes:
        layout: the order of axes; None to guess it from the shape.
        size: height and width; None to read them from the shape.
        mean: of pixel values in 0..`scale`, one number or one per channel; empty for 0.
        std: likewise; empty for 1.
        scale: the pixel value of white.
        resize: the filter that brings images of other sizes to the classifier's.
    """

    layout: Layout | None = None
    size: tuple[int, int] | None = None
    mean: Sequence[float] = ()
    std: Sequence[float] = ()
    scale: float = 1.0
    resize: Resize = "bilinear"


@dataclass(frozen=True)
class ImageAdapter:
    """Converts images to bytes or normalised floats in the classifier's order of axes.

    Attributes:
        spec: the bundle's input.
        layout: the classifier's order of axes.
        target: the classifier's input.
    """

    spec: ImageInput
    layout: Layout
    target: GraphInput

    options = "--mean, --std, --layout and --size"
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

    def prepare(self, rows: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The images, unchanged."""
        return (rows,)

    def feed(self, rows: NDArray[np.uint8]) -> Feed:
        """The classifier's input for images `[N, H, W, C]`."""
        values: NDArray[np.generic] = rows
        if self.normalises:
            mean, std = np.asarray(self.spec.mean), np.asarray(self.spec.std)
            values = ((rows / 255.0 - mean) / std).astype(helper.tensor_dtype_to_np_dtype(self.target.elem_type))
        if self.layout == "nchw":
            values = values.transpose(0, 3, 1, 2)
        return {self.target.name: np.ascontiguousarray(values)}

    @property
    def graph(self) -> GraphProto:
        """Layout, scaling and normalisation, from `images` uint8 `[N, H, W, C]` to the classifier's input."""
        steps: list[tuple[str, list[str], dict[str, Any]]] = []
        constants: list[TensorProto] = []
        if self.layout == "nchw":
            steps.append(("Transpose", [], {"perm": [0, 3, 1, 2]}))
        if self.normalises:
            axes = (1, -1, 1, 1) if self.layout == "nchw" else (1, 1, 1, -1)
            mean, std = np.reshape(self.spec.mean, axes), np.reshape(self.spec.std, axes)
            for name, value in (("mean", 255.0 * mean), ("scale", 1.0 / (255.0 * std))):
                constants.append(numpy_helper.from_array(value.astype(np.float32), f"{PREFIX}{name}"))
            steps.append(("Cast", [], {"to": TensorProto.FLOAT}))
            steps.append(("Sub", [f"{PREFIX}mean"], {}))
            steps.append(("Mul", [f"{PREFIX}scale"], {}))
            if self.target.elem_type != TensorProto.FLOAT:
                steps.append(("Cast", [], {"to": self.target.elem_type}))
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


def image_adapter(classifier: OnnxClassifier, options: ImageOptions, announce: Callable[[str], None]) -> ImageAdapter:
    """The adapter for a `classifier` of images; `announce` gets a line for each guess.

    Raises:
        GraphError: if the classifier takes no images, or its shape contradicts the options or leaves a choice open.
    """
    target = _image_input(classifier.inputs)
    layout, mean, std, scale = options.layout, options.mean, options.std, options.scale
    if layout is None:
        layout = _guess_layout(target.shape)
        announce(f"layout: {layout}, guessed from the input's shape {_shape_text(target.shape)}; --layout overrides it")
    order = (1, 2, 3) if layout == "nchw" else (3, 1, 2)
    channels, height, width = (target.shape[axis] for axis in order)
    channels = channels or (1 if len(mean) == 1 else 3)
    if channels == 1:
        spec_channels: Literal[1, 3] = 1
    elif channels == 3:
        spec_channels = 3
    else:
        reason = f"its images {_shape_text(target.shape)} have {channels} channels as {layout}"
        raise GraphError(target.name, reason, "Bundles take 1 or 3; give the other --layout if that was wrong")
    takes_bytes = target.elem_type == TensorProto.UINT8
    if takes_bytes and (mean or std or scale != 1):
        raise GraphError(target.name, "takes bytes and normalises them itself", "Leave out --mean, --std and --scale")
    if not takes_bytes and not mean and not std:
        announce(f"normalisation: none, the graph gets pixel values in 0..{scale:g}; --mean and --std override it")
    size_height, size_width = options.size or (None, None)
    spec = ImageInput(
        height=_side(target.name, "height", height, size_height),
        width=_side(target.name, "width", width, size_width),
        channels=spec_channels,
        resize=options.resize,
        mean=tuple(value / scale for value in _per_channel("mean", mean, 0.0, channels)),
        std=tuple(value / scale for value in _per_channel("std", std, 1.0, channels)),
    )
    return ImageAdapter(spec, layout, target)


def _image_input(inputs: Sequence[GraphInput]) -> GraphInput:
    remedy = "An image classifier takes one, float or uint8 [N, C, H, W] or [N, H, W, C]; for texts give --tokenizer"
    if len(inputs) != 1:
        names = ", ".join(value.name for value in inputs)
        raise GraphError("the graph", f"the logits depend on {len(inputs)} inputs ({names})", remedy)
    (value,) = inputs
    if value.elem_type not in (*_FLOATS, TensorProto.UINT8) or len(value.shape) != 4:
        kind = TensorProto.DataType.Name(value.elem_type).lower()
        raise GraphError(value.name, f"is an input of {kind} with {len(value.shape)} dimensions", remedy)
    return value


def _side(input_name: str, side: str, static: int | None, option: int | None) -> int:
    """The height or width: `static` in the graph's shape, or by the `option` --size."""
    if static is None and option is None:
        raise GraphError(input_name, f"its {side} is dynamic", "Give the size of its images: --size HxW")
    if static is not None and option is not None and static != option:
        raise GraphError(input_name, f"its {side} is {static}, not {option}", "Leave out --size or correct it")
    return int(static or option or 0)


def _guess_layout(shape: tuple[int | None, ...]) -> Layout:
    first, last = shape[1] in _CHANNELS, shape[3] in _CHANNELS
    if first == last:
        raise GraphError(
            "the input", f"its shape {_shape_text(shape)} leaves open which axis holds the channels", "Give --layout"
        )
    return "nchw" if first else "nhwc"


def _per_channel(name: str, values: Sequence[float], default: float, channels: int) -> list[float]:
    numbers = list(values) or [default]
    if len(numbers) not in (1, channels):
        reason = f"has {len(numbers)} numbers for {channels} channels"
        raise GraphError(f"--{name}", reason, "Give one for each channel")
    if name == "std" and min(numbers) <= 0:
        raise GraphError("--std", "must be positive", "Correct it")
    return numbers * channels if len(numbers) == 1 else numbers


def _shape_text(shape: tuple[int | None, ...]) -> str:
    return "[" + ", ".join("?" if size is None else str(size) for size in shape) + "]"
