"""Presets: a small, fast input, network and schedule for a quick start, by the kind and number of inputs."""

from typing import Any

from bundle import LOGIT_SCORES, ImageInput
from training.recipe import TextConfig

WITHOUT_OUTLIERS, OF_BACKBONES = ("knn", *LOGIT_SCORES), ("knn", "mahalanobis", *LOGIT_SCORES)
"""The scores of a detector that is trained without outliers, and of one with a pretrained backbone.

The first, which needs no outliers, is the default score unless validation sets choose one. Features of small networks
often depend on each other linearly, which makes `mahalanobis` too inexact in float32.
"""
_LARGEST_SIDE, _SMALLEST_SIDE = 32, 8
_LARGE_SIDE = 32
"""The smallest image side for the network that halves images three times."""
_LONGEST_TEXT, _SHORTEST_TEXT = 128, 8
_IMAGES_PER_STAGE = {"baseline": 60_000, "oe": 40_000}
_FEATURES_PER_STAGE = {"baseline": 30_000, "oe": 15_000}
_TEXTS_PER_STAGE = {"baseline": 60_000, "oe": 30_000}
"""In-distribution examples that a stage processes in all its epochs: minutes on two cores."""
_NOISE_FOR_BACKBONES = 200
"""Images of each kind of noise: a backbone takes much longer for an image than a small network."""


def image_preset(
    n: int, typical: tuple[int, int, int], size: tuple[int, int] | None, *, test_size: int
) -> dict[str, Any]:
    """The sections `input`, `architecture`, `stages` and `evaluation` of a recipe for images.

    Args:
        n: The number of training images.
        typical: The typical height, width and channels of the images.
        size: (height, width) of the model's input. By default the typical size, but no side longer than 32 pixels.
        test_size: The number of in-distribution test images.
    """
    height, width, channels = typical
    height, width = size or tuple(min(max(side, _SMALLEST_SIDE), _LARGEST_SIDE) for side in (height, width))
    is_large = min(height, width) >= _LARGE_SIDE
    batch = _batch(n, largest=128)
    rate = round(0.1 * (batch / 128) ** 0.5, 4)
    # Grey images are often digits, letters or scans, of which a mirror image is no example of the class.
    stage = {"batch_size": batch, "warmup": 0.1, "augmentation": {"pad": 2, "flip": channels > 1}}
    synthetic = min(2000, max(200, test_size))
    return {
        "input": {
            "kind": "image",
            "height": height,
            "width": width,
            "channels": channels,
            "mean": [0.5] * channels,
            "std": [0.25] * channels,
        },
        "architecture": {"name": "whitened_conv", "widths": [32, 64, 128]}
        if is_large
        else {"name": "small_conv", "width": 16},
        "stages": {
            "baseline": {
                "objective": {"name": "cross_entropy"},
                "epochs": _epochs(n, _IMAGES_PER_STAGE["baseline"]),
                "learning_rate": rate,
                **stage,
            },
            "oe": {
                "objective": {"name": "outlier_exposure", "weight": 0.5},
                "start_from": "baseline",
                "epochs": _epochs(n, _IMAGES_PER_STAGE["oe"]),
                "learning_rate": rate / 2,
                "outlier_ratio": 1,
                **stage,
            },
        },
        "evaluation": {"ood": {kind: {"synthetic": kind, "size": synthetic} for kind in ("gaussian", "blobs")}},
    }


def pretrained_preset(n: int, spec: ImageInput | TextConfig, backbone: str) -> dict[str, Any]:
    """The sections `input`, `architecture`, `stages`, `evaluation` and `export` of a recipe with a frozen backbone.

    Args:
        n: The number of training examples.
        spec: The backbone's input.
        backbone: The path of its file or folder, relative to the data folder, or its name on the hub.
    """
    stage = {"batch_size": _batch(n, largest=64), "optimizer": "adam", "learning_rate": 0.001, "weight_decay": 0.0001}
    kinds = ("gaussian", "rademacher", "blobs") if isinstance(spec, ImageInput) else ()
    classifier = {"hidden": 256, "split_norm": True} if isinstance(spec, TextConfig) else {}
    return {
        "input": {"kind": spec.kind, **spec.model_dump(mode="json", exclude_defaults=True)},
        "architecture": {"name": "pretrained", "backbone": backbone, **classifier},
        "stages": {
            "baseline": {
                "objective": {"name": "cross_entropy"},
                "epochs": _epochs(n, _FEATURES_PER_STAGE["baseline"]),
                **stage,
            },
            "oe": {
                "objective": {"name": "outlier_exposure", "weight": 0.5},
                "start_from": "baseline",
                "epochs": _epochs(n, _FEATURES_PER_STAGE["oe"]),
                "outlier_ratio": 1,
                **stage,
            },
        },
        "evaluation": {"ood": {kind: {"synthetic": kind, "size": _NOISE_FOR_BACKBONES} for kind in kinds}},
        "export": {"scores": OF_BACKBONES},
    }


def text_preset(n: int, words: int) -> dict[str, Any]:
    """The sections `input`, `architecture`, `stages` and `evaluation` of a recipe for texts.

    Args:
        n: The number of training texts.
        words: The typical length of a long text.
    """
    stage = {"batch_size": _batch(n, largest=64), "optimizer": "adam", "weight_decay": 0, "group_by_length": True}
    return {
        "input": {"kind": "text", "max_tokens": min(max(words, _SHORTEST_TEXT), _LONGEST_TEXT)},
        "architecture": {"name": "gru", "embedding": 50, "hidden": 64},
        "stages": {
            "baseline": {
                "objective": {"name": "cross_entropy"},
                "epochs": _epochs(n, _TEXTS_PER_STAGE["baseline"]),
                "learning_rate": 0.005,
                **stage,
            },
            "oe": {
                "objective": {"name": "outlier_exposure", "weight": 1.0},
                "start_from": "baseline",
                "epochs": _epochs(n, _TEXTS_PER_STAGE["oe"]),
                "learning_rate": 0.003,
                "outlier_ratio": 1,
                **stage,
            },
        },
        "evaluation": {"ood": {}},
    }


def _epochs(n: int, examples_per_stage: int) -> int:
    return min(max(round(examples_per_stage / n), 2), 30)


def _batch(n: int, *, largest: int) -> int:
    """The batch size that gives an epoch at least 16 steps, except for very small sets."""
    return max(8, min(largest, n // 16))
