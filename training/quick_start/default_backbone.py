"""The default backbone of a quick start: a small model of the hub, if it suits the data and can be downloaded."""

import importlib.util
from pathlib import Path

from training.data import guess_source
from training.data.source_guess import holds_texts
from training.data.sources import DataLocations, read_rows
from training.data.text_loading import read_texts
from training.errors import BackboneError, TrainingError
from training.pretrained_files import find_pretrained
from training.quick_start.survey import survey_images

IMAGE_BACKBONE = "microsoft/resnet-18"
"""ResNet-18 with ImageNet weights: 11.7 million weights, 45 MB, Apache 2.0."""
TEXT_BACKBONE = "sentence-transformers/all-MiniLM-L6-v2"
"""A sentence encoder: 22.7 million weights, 90 MB, Apache 2.0."""
NO_BACKBONE = "none"
"""The name that asks for a network trained from scratch."""

_SMALLEST_SIDE = 64
"""The typical shorter side of images below which they are enlarged too much for a backbone of 224 pixels."""
_MOST_EXAMPLES = 10_000
"""The number of in-distribution examples whose features take about ten minutes on two cores."""
_COSTS = {
    IMAGE_BACKBONE: "on photographs of five kinds of flowers, such a network has an accuracy of 73.5% and flags 46% of "
    "unseen kinds of objects at alpha 0.05; a classifier of the features of EfficientNet-Lite0, 89.5% and 99%",
    TEXT_BACKBONE: "on posts of 20 Newsgroups, a GRU (newsgroups-gru) has an accuracy of 66.6%, a classifier of the "
    "features of MiniLM 73.0%; the GRU detects other texts at least as well",
}
"""The cost of training from scratch, measured as docs/training.md says."""
_REMEDY = "--backbone names another one (an ONNX file or a folder), --backbone none asks for none"


def default_backbone(in_dist: Path) -> tuple[str | None, str]:
    """The backbone for the in-distribution data `in_dist`, None for a small network, and a message with the reason.

    Args:
        in_dist: A table of texts or a folder of images. If it cannot be read, there is no backbone and no message.
    """
    try:
        name, unsuitable = _suitable(in_dist)
    except (TrainingError, OSError):
        return None, ""
    if unsuitable:
        return None, f"a small network is trained from scratch: {unsuitable}"
    if importlib.util.find_spec("transformers") is None:
        missing = "transformers is not installed (pip install -c constraints.txt '.[training,transformers]')"
        return None, _from_scratch(name, missing)
    try:
        find_pretrained(name, Path())
    except BackboneError as error:
        return None, _from_scratch(name, f"{error.subject} {error.reason}")
    return name, f"backbone {name}, the default: its features are classified; {_REMEDY}"


def _suitable(in_dist: Path) -> tuple[str, str]:
    """The name of the backbone for the kind of data, and the reason why it does not suit them, empty if it does."""
    root = in_dist.resolve().parent
    source = guess_source(in_dist, root)
    if holds_texts(in_dist):
        name, rows, reason = TEXT_BACKBONE, read_texts(source, DataLocations(data_dir=root)), ""
    else:
        name, rows = IMAGE_BACKBONE, read_rows(source, root, "image")
        height, width, _ = survey_images(rows)
        small = min(height, width) < _SMALLEST_SIDE
        reason = f"images of {height}x{width} are too small for the default backbone" if small else ""
    if not reason and len(rows) > _MOST_EXAMPLES:
        reason = f"the features of {len(rows):,} examples by the default backbone, {name}, would take long; {_REMEDY}"
    return name, reason


def _from_scratch(name: str, reason: str) -> str:
    instead = f"A small network is trained from scratch instead: {_COSTS[name]}"
    return f"no pretrained backbone: {reason}. {instead}. {_REMEDY}"
