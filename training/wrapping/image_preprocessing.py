"""The preprocessing that an image classifier was trained with: presets by framework."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

Resize = Literal["bilinear", "bicubic", "lanczos"]
Size = tuple[int, int]
"""Height and width."""

DEFAULT_SIDE = 224
"""The height and width of images for a graph that takes any size."""

_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Preprocessing:
    """The steps from an RGB image to a classifier's input: resize, centre crop, order of channels, normalisation.

    Attributes:
        origin: the preset or file, for messages.
        mean: of pixel values in 0..1, one number or one per channel of an RGB image.
        std: likewise.
        bgr: whether the classifier's channels are blue, green, red.
        resize: the filter.
        size: height and width of the classifier's images; None if the graph alone knows them.
        crop_share: the share of the shorter side that a centre crop keeps; None without a crop.
        resize_to: the size before the crop, the shorter side's length or height and width; None for `crop_share`'s.
    """

    origin: str
    mean: Sequence[float] = (0.0,)
    std: Sequence[float] = (1.0,)
    bgr: bool = False
    resize: Resize = "bilinear"
    size: Size | None = None
    crop_share: float | None = None
    resize_to: int | Size | None = None

    def resized(self, size: Size) -> int | Size | None:
        """The size before the crop of images of `size`, None if they are resized to `size` itself."""
        if self.resize_to is not None or self.crop_share is None:
            return None if self.resize_to == size else self.resize_to
        return int(max(size) / self.crop_share)


PRESETS: Mapping[str, Preprocessing] = MappingProxyType(
    {
        "torchvision": Preprocessing("torchvision", _IMAGENET_MEAN, _IMAGENET_STD, crop_share=0.875),
        "inception": Preprocessing("inception", (0.5,), (0.5,), resize="bicubic", crop_share=0.875),
        "keras-tf": Preprocessing("keras-tf", (0.5,), (0.5,)),
        "keras-caffe": Preprocessing(
            "keras-caffe", tuple(value / 255 for value in (123.68, 116.779, 103.939)), (1 / 255,), bgr=True
        ),
        "keras-torch": Preprocessing("keras-torch", _IMAGENET_MEAN, _IMAGENET_STD),
        "raw": Preprocessing("raw", (0.0,), (1 / 255,)),
        "none": Preprocessing("none"),
    }
)
"""The preprocessing of public classifiers, by name.

- `torchvision`: resized to 256 for 224, cropped, ImageNet's mean and standard deviation; most models of timm too.
- `inception`: values from -1 to 1, cropped, bicubic; Inception, ViT, BEiT and MobileNet models of timm and others.
- `keras-tf`, `keras-caffe`, `keras-torch`: the modes of `keras.applications`, without a crop.
- `raw`: values from 0 to 255; `none`: values from 0 to 1.
"""
