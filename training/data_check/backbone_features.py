"""Features of images by a pretrained ONNX model, for the check of labels."""

from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bundle import ImageInput, decode_image
from datafiles import Fault
from training.backbones import load_backbone
from training.backbones.backbone import feature_session
from training.data.encoded_images import EncodedImages, encoded_bytes
from training.data_check.checked_set import CheckedSet
from training.errors import DataError
from training.onnx_graphs import read_file

_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_DEFAULT_SIDE = 224
_BATCH = 32


def backbone_features(
    path: Path, checked: CheckedSet, progress: Callable[[int, int], None]
) -> Callable[[NDArray[np.int64]], NDArray[np.float32]]:
    """A function from rows of a set of images to their features float32 `[N, D]`.

    Args:
        path: An ONNX model as `architecture: {name: pretrained}` reads it, of images normalised as ImageNet's.
        checked: The set.
        progress: Called with the number of images done and their total.

    Raises:
        GraphError: The file is no such model.
        DataError: The set holds texts.
    """
    if checked.images is None:
        raise DataError("--backbone", f"is for images, {checked.rows.origin} holds texts", "Leave it out")
    height, width = _image_size(path)
    spec = ImageInput(height=height, width=width, channels=3, mean=_MEAN, std=_STD)
    compute = feature_session(load_backbone(path, spec))
    encoded = checked.rows.encoded()

    def features(rows: NDArray[np.int64]) -> NDArray[np.float32]:
        found: list[NDArray[np.float32]] = []
        images = _decoded(encoded.at(rows), spec)
        while batch := list(islice(images, _BATCH)):
            found.append(compute(np.stack(batch)))
            progress(min(len(found) * _BATCH, len(rows)), len(rows))
        return np.concatenate(found)

    return features


def _decoded(images: EncodedImages, spec: ImageInput) -> Iterator[NDArray[np.uint8]]:
    for image in images.read():
        data = encoded_bytes(image)
        if isinstance(data, Fault):
            raise DataError(str(image), "changed while it was checked", "Run the check again")
        yield decode_image(data, spec)


def _image_size(path: Path) -> tuple[int, int]:
    """The height and width of the model's images; the usual one where the graph takes any size."""
    graph = read_file(path).graph
    weights = {tensor.name for tensor in graph.initializer}
    dims = [
        dim.dim_value for value in graph.input if value.name not in weights for dim in value.type.tensor_type.shape.dim
    ]
    sides = dims[1:3] if dims[3:4] == [3] else dims[2:4]
    height, width = (side or _DEFAULT_SIDE for side in (*sides, 0, 0)[:2])
    return height, width
