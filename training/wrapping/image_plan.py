"""The image plan: how the bundle's uint8 images `[N, H, W, C]` become what a foreign graph takes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

from bundle import ImageInput
from training.errors import GraphError
from training.wrapping.original import Original

Layout = Literal["nchw", "nhwc"]
Resize = Literal["bilinear", "bicubic", "lanczos"]
IMAGES = "images"
"""The bundle's input."""

_PREFIX = "ood-input/"
_CHANNELS = (1, 3)


@dataclass(frozen=True)
class ImagePlan:
    """`spec` is the bundle's input; the graph takes it in `layout`, as bytes or, normalised, as `elem_type`."""

    spec: ImageInput
    layout: Layout
    elem_type: int

    @property
    def normalises(self) -> bool:
        """Whether `spec.mean` and `spec.std` are to be applied."""
        return self.elem_type != TensorProto.UINT8

    def adapt(self, images: NDArray[np.uint8]) -> NDArray[np.generic]:
        """What the foreign graph takes, computed by NumPy: the reference for `nodes`."""
        values: NDArray[np.generic] = images
        if self.normalises:
            mean, std = np.asarray(self.spec.mean), np.asarray(self.spec.std)
            values = ((images / 255.0 - mean) / std).astype(helper.tensor_dtype_to_np_dtype(self.elem_type))
        return np.ascontiguousarray(values.transpose(0, 3, 1, 2) if self.layout == "nchw" else values)

    def nodes(self, target: str) -> tuple[list[NodeProto], list[TensorProto]]:
        """Nodes and constants that compute the foreign graph's input `target` from `images`."""
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
            if self.elem_type != TensorProto.FLOAT:
                steps.append(("Cast", [], {"to": self.elem_type}))
        steps = steps or [("Identity", [], {})]
        names = [IMAGES, *(f"{_PREFIX}{i}" for i in range(1, len(steps))), target]
        nodes = [
            helper.make_node(operator, [names[i], *others], [names[i + 1]], **attributes)
            for i, (operator, others, attributes) in enumerate(steps)
        ]
        return nodes, constants


def plan_images(
    original: Original,
    *,
    layout: Layout | None,
    size: tuple[int, int] | None,
    mean: Sequence[float],
    std: Sequence[float],
    scale: float,
    resize: Resize,
    announce: Callable[[str], None],
) -> ImagePlan:
    """Read layout, size and channels off the graph's shape where they are not given; what was guessed is announced.

    `size` is (height, width). `mean` and `std`, one number or one per channel, empty for 0 and 1, are for pixel values
    in 0..`scale`. GraphError where the shape contradicts what is given, or leaves open what is not.
    """
    if layout is None:
        layout = _guess_layout(original.shape)
        announce(f"layout: {layout}, guessed from the input's shape {_shown(original.shape)}; --layout says otherwise")
    order = (1, 2, 3) if layout == "nchw" else (3, 1, 2)
    channels, height, width = (original.shape[axis] for axis in order)
    channels = channels or (1 if len(mean) == 1 else 3)
    if channels == 1:
        spec_channels: Literal[1, 3] = 1
    elif channels == 3:
        spec_channels = 3
    else:
        reason = f"its images {_shown(original.shape)} have {channels} channels as {layout}"
        raise GraphError(original.input, reason, "Bundles take 1 or 3; give the other --layout if that was wrong")
    for name, static, given in zip(("height", "width"), (height, width), size or (None, None), strict=True):
        if static is None and given is None:
            raise GraphError(original.input, f"its {name} is dynamic", "Give the size of its images: --size HxW")
        if static is not None and given is not None and static != given:
            raise GraphError(original.input, f"its {name} is {static}, not {given}", "Leave out --size or correct it")
    rows, columns = (static or given for static, given in zip((height, width), size or (0, 0), strict=True))
    if original.takes_bytes and (mean or std or scale != 1):
        raise GraphError(
            original.input, "takes bytes and normalises them itself", "Leave out --mean, --std and --scale"
        )
    if not original.takes_bytes and not mean and not std:
        announce(f"normalisation: none, the graph gets pixel values in 0..{scale:g}; --mean and --std say otherwise")
    spec = ImageInput(
        height=int(rows or 0),
        width=int(columns or 0),
        channels=spec_channels,
        resize=resize,
        mean=tuple(value / scale for value in _per_channel("mean", mean, 0.0, channels)),
        std=tuple(value / scale for value in _per_channel("std", std, 1.0, channels)),
    )
    return ImagePlan(spec, layout, original.elem_type)


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
