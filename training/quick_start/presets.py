"""Quick plans: input, network and schedule of a quick start, small and fast, by the kind and the number of inputs."""

from typing import Any

_LARGEST_SIDE, _SMALLEST_SIDE = 32, 8
_WHITENED_FROM = 32
"""Pixels a side from which three halvings leave the larger network something to see."""
_LONGEST_TEXT, _SHORTEST_TEXT = 128, 8
_IMAGES_SEEN = {"baseline": 60_000, "oe": 40_000}
_TEXTS_SEEN = {"baseline": 60_000, "oe": 30_000}
"""In-distribution examples that a stage sees in all its epochs: minutes on two cores."""


def image_preset(
    n: int, surveyed: tuple[int, int, int], size: tuple[int, int] | None, *, test_size: int
) -> dict[str, Any]:
    """The sections `input`, `architecture`, `stages` and `evaluation` for `n` training images.

    `surveyed` are the images' own height, width and channels; `size` (height, width) overrules the first two. Without
    it no side is longer than 32 pixels.
    """
    height, width, channels = surveyed
    height, width = size or tuple(min(max(side, _SMALLEST_SIDE), _LARGEST_SIDE) for side in (height, width))
    whitened = min(height, width) >= _WHITENED_FROM
    batch = _batch(n, largest=128)
    rate = round(0.1 * (batch / 128) ** 0.5, 4)
    stage = {"batch_size": batch, "warmup": 0.1, "augmentation": {"pad": 2}}
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
        if whitened
        else {"name": "small_conv", "width": 16},
        "stages": {
            "baseline": {
                "objective": {"name": "cross_entropy"},
                "epochs": _epochs(n, _IMAGES_SEEN["baseline"]),
                "learning_rate": rate,
                **stage,
            },
            "oe": {
                "objective": {"name": "outlier_exposure", "weight": 0.5},
                "start_from": "baseline",
                "epochs": _epochs(n, _IMAGES_SEEN["oe"]),
                "learning_rate": rate / 2,
                "outlier_ratio": 1,
                **stage,
            },
        },
        "evaluation": {"ood": {kind: {"synthetic": kind, "size": synthetic} for kind in ("gaussian", "blobs")}},
    }


def text_preset(n: int, words: int) -> dict[str, Any]:
    """The sections `input`, `architecture`, `stages` and `evaluation` for `n` training texts of about `words` words."""
    stage = {"batch_size": _batch(n, largest=64), "optimizer": "adam", "weight_decay": 0, "group_by_length": True}
    return {
        "input": {"kind": "text", "max_tokens": min(max(words, _SHORTEST_TEXT), _LONGEST_TEXT)},
        "architecture": {"name": "gru", "embedding": 50, "hidden": 64},
        "stages": {
            "baseline": {
                "objective": {"name": "cross_entropy"},
                "epochs": _epochs(n, _TEXTS_SEEN["baseline"]),
                "learning_rate": 0.005,
                **stage,
            },
            "oe": {
                "objective": {"name": "outlier_exposure", "weight": 1.0},
                "start_from": "baseline",
                "epochs": _epochs(n, _TEXTS_SEEN["oe"]),
                "learning_rate": 0.003,
                "outlier_ratio": 1,
                **stage,
            },
        },
        "evaluation": {"ood": {}},
    }


def _epochs(n: int, seen: int) -> int:
    return min(max(round(seen / n), 2), 30)


def _batch(n: int, *, largest: int) -> int:
    """Sixteen steps an epoch at least, but for the smallest sets."""
    return max(8, min(largest, n // 16))
