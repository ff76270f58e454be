"""The image plan: how the bundle's uint8 images `[N, H, W, C]` become what a foreign graph takes."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from bundle import ImageInput
from training.data import DataLocations, ImageReader
from training.errors import GraphError
from training.wrapping.input_adapter import Feed
from training.wrapping.original import GraphInput, Original

Layout = Literal["nchw", "nhwc"]
Resize = Literal["bilinear", "bicubic", "lanczos"]
IMAGES = "images"
"""The bundle's input."""

_PREFIX = "ood-input/"
_CHANNELS = (1, 3)
_FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE)


@dataclass(frozen=True)
class ImageAdapter:
    """`spec` is the bundle's input; the graph's `taken` takes it in `layout`, as bytes or normalised floats."""

    spec: ImageInput
    layout: Layout
    taken: GraphInput

    options = "--mean, --std, --layout and --size"
    remedy = (
        "Export it with a dynamic batch, in evaluation mode: torch.onnx.export(..., "
        "dynamic_shapes=({0: torch.export.Dim('N')},)) or dynamic_axes={'<input>': {0: 'N'}, '<output>': {0: 'N'}}"
    )

    @property
    def normalises(self) -> bool:
        """Whether `spec.mean` and `spec.std` are to be applied."""
        return self.taken.elem_type != TensorProto.UINT8

    @property
    def inputs(self) -> list[ValueInfoProto]:
        """`images` `[N, H, W, C]`."""
        shape: list[str | int] = ["N", self.spec.height, self.spec.width, self.spec.channels]
        return [helper.make_tensor_value_info(IMAGES, TensorProto.UINT8, shape)]

    @property
    def files(self) -> Mapping[str, Path]:
        """None."""
        return {}

    def reader(self, locations: DataLocations) -> ImageReader:
        """Reads images of the size that the graph takes."""
        return ImageReader(self.spec, locations)

    def prepare(self, rows: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The images as they are."""
        return (rows,)

    def feed(self, rows: NDArray[np.uint8]) -> Feed:
        """The foreign graph's input for images `[N, H, W, C]`."""
        values: NDArray[np.generic] = rows
        if self.normalises:
            mean, std = np.asarray(self.spec.mean), np.asarray(self.spec.std)
            values = ((rows / 255.0 - mean) / std).astype(helper.tensor_dtype_to_np_dtype(self.taken.elem_type))
        laid_out = values.transpose(0, 3, 1, 2) if self.layout == "nchw" else values
        return {self.taken.name: np.ascontiguousarray(laid_out)}

    def nodes(self, targets: Mapping[str, str]) -> tuple[list[NodeProto], list[TensorProto]]:
        """Nodes and constants that compute the foreign graph's input from `images`."""
        steps: list[tuple[str, list[str], dict[str, Any]]] = []
        constants: list[TensorProto] = []
        if self.layout == "nchw":
            steps.append(("Transpose", [], {"perm": [0, 3, 1, 2]}))
        if self.normalises:
            axes = (1, -1, 1, 1) if self.layout == "nchw" else (1, 1, 1, -1)
            mean, std = (np.asarray(each, dtype=np.float64).reshape(axes) for each in (self.spec.mean, self.spec.std))
            for name, value in (("mean", 255.0 * mean), ("scale", 1.0 / (255.0 * std))):
                constants.append(numpy_helper.from_array(value.astype(np.float32), f"{_PREFIX}{name}"))
            steps.append(("Cast", [], {"to": TensorProto.FLOAT}))
            steps.append(("Sub", [f"{_PREFIX}mean"], {}))
            steps.append(("Mul", [f"{_PREFIX}scale"], {}))
            if self.taken.elem_type != TensorProto.FLOAT:
                steps.append(("Cast", [], {"to": self.taken.elem_type}))
        steps = steps or [("Identity", [], {})]
        names = [IMAGES, *(f"{_PREFIX}{i}" for i in range(1, len(steps))), targets[self.taken.name]]
        nodes = [
            helper.make_node(operator, [names[i], *others], [names[i + 1]], **attributes)
            for i, (operator, others, attributes) in enumerate(steps)
        ]
        return nodes, constants


def image_adapter(
    original: Original,
    *,
    layout: Layout | None,
    size: tuple[int, int] | None,
    mean: Sequence[float],
    std: Sequence[float],
    scale: float,
    resize: Resize,
    announce: Callable[[str], None],
) -> ImageAdapter:
    """Read layout, size and channels off the graph's shape where they are not given; what was guessed is announced.

    `size` is (height, width). `mean` and `std`, one number or one per channel, empty for 0 and 1, are for pixel values
    in 0..`scale`. GraphError where the shape contradicts what is given, or leaves open what is not.
    """
    taken = _image_input(original.inputs)
    if layout is None:
        layout = _guess_layout(taken.shape)
        announce(f"layout: {layout}, guessed from the input's shape {_shown(taken.shape)}; --layout says otherwise")
    order = (1, 2, 3) if layout == "nchw" else (3, 1, 2)
    channels, height, width = (taken.shape[axis] for axis in order)
    channels = channels or (1 if len(mean) == 1 else 3)
    if channels == 1:
        spec_channels: Literal[1, 3] = 1
    elif channels == 3:
        spec_channels = 3
    else:
        reason = f"its images {_shown(taken.shape)} have {channels} channels as {layout}"
        raise GraphError(taken.name, reason, "Bundles take 1 or 3; give the other --layout if that was wrong")
    for name, static, given in zip(("height", "width"), (height, width), size or (None, None), strict=True):
        if static is None and given is None:
            raise GraphError(taken.name, f"its {name} is dynamic", "Give the size of its images: --size HxW")
        if static is not None and given is not None and static != given:
            raise GraphError(taken.name, f"its {name} is {static}, not {given}", "Leave out --size or correct it")
    rows, columns = (static or given for static, given in zip((height, width), size or (0, 0), strict=True))
    takes_bytes = taken.elem_type == TensorProto.UINT8
    if takes_bytes and (mean or std or scale != 1):
        raise GraphError(taken.name, "takes bytes and normalises them itself", "Leave out --mean, --std and --scale")
    if not takes_bytes and not mean and not std:
        announce(f"normalisation: none, the graph gets pixel values in 0..{scale:g}; --mean and --std say otherwise")
    spec = ImageInput(
        height=int(rows or 0),
        width=int(columns or 0),
        channels=spec_channels,
        resize=resize,
        mean=tuple(value / scale for value in _per_channel("mean", mean, 0.0, channels)),
        std=tuple(value / scale for value in _per_channel("std", std, 1.0, channels)),
    )
    return ImageAdapter(spec, layout, taken)


def _image_input(inputs: Sequence[GraphInput]) -> GraphInput:
    remedy = "An image classifier takes one, float or uint8 [N, C, H, W] or [N, H, W, C]; for texts give --tokenizer"
    if len(inputs) != 1:
        names = ", ".join(each.name for each in inputs)
        raise GraphError("the graph", f"the logits depend on {len(inputs)} inputs ({names})", remedy)
    (taken,) = inputs
    if taken.elem_type not in (*_FLOATS, TensorProto.UINT8) or len(taken.shape) != 4:
        kind = TensorProto.DataType.Name(taken.elem_type).lower()
        raise GraphError(taken.name, f"is an input of {kind} with {len(taken.shape)} dimensions", remedy)
    return taken


def _guess_layout(shape: tuple[int | None, ...]) -> Layout:
    first, last = shape[1] in _CHANNELS, shape[3] in _CHANNELS
    if first == last:
        raise GraphError(
            "the input", f"its shape {_shown(shape)} does not tell where the channels are", "Give --layout"
        )
    return "nchw" if first else "nhwc"


def _per_channel(name: str, values: Sequence[float], default: float, channels: int) -> list[float]:
    given = list(values) or [default]
    if len(given) not in (1, channels):
        raise GraphError(f"--{name}", f"has {len(given)} numbers for {channels} channels", "Give one for each channel")
    if name == "std" and min(given) <= 0:
        raise GraphError("--std", "must be positive", "Correct it")
    return given * channels if len(given) == 1 else given


def _shown(shape: tuple[int | None, ...]) -> str:
    return "[" + ", ".join("?" if each is None else str(each) for each in shape) + "]"
