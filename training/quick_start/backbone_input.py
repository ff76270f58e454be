"""The input of a pretrained backbone: from its file, and from the files that model hubs store next to it."""

from pathlib import Path

from bundle import ImageInput
from training.errors import DataError, GraphError
from training.wrapping.image_adapter import ImageOptions, image_adapter
from training.wrapping.image_preprocessing import PRESETS
from training.wrapping.model_files import read_model_files
from training.wrapping.onnx_classifier import graph_inputs, read_model

_OPTION = "--backbone"


def image_backbone_input(
    backbone: Path, *, preprocess: str | None = None, size: tuple[int, int] | None = None
) -> tuple[ImageInput, str]:
    """The size and the normalisation of a backbone's images, and a message that states them.

    Args:
        backbone: An ONNX file.
        preprocess: The name of a preset; None for the file next to the backbone.
        size: (height, width) of images, for a backbone that takes any.

    Raises:
        DataError: Nothing states the normalisation.
        GraphError: The file is no ONNX graph, or takes other inputs than normalised images.
    """
    stored = read_model_files(backbone).preprocessing
    if stored is None and preprocess is None:
        reason = f"no preprocessor_config.json or config.json next to {backbone.name} states its preprocessing"
        raise DataError(_OPTION, reason, f"Add one, or give --preprocess: {', '.join(PRESETS)}")
    model, notes = read_model(backbone), list[str]()
    adapter = image_adapter(model, graph_inputs(model), ImageOptions(preprocess, size=size), stored, notes.append)
    if adapter.bgr or adapter.layout == "flat" or not adapter.normalises:
        reason = "takes BGR images, rows of pixels or bytes"
        raise GraphError(backbone.name, reason, "Give a model of normalised RGB images [N, C, H, W] or [N, H, W, C]")
    return adapter.spec, notes[-1]
