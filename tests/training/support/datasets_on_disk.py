"""Small real data sets on disk: image files that a network can learn to tell apart in seconds."""

from io import BytesIO
from pathlib import Path
from typing import Any

import datasets
import numpy as np
from numpy.typing import NDArray
from PIL import Image

LABELS = ("dark", "bright")


def stripes(n: int, seed: int, size: int = 16) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """`n` noisy pictures `[n, size, size, 3]` of two classes that differ in brightness."""
    generator = np.random.default_rng(seed)
    y = np.arange(n) % 2
    base = np.where(y == 0, 60, 190)[:, None, None, None]
    x = np.clip(base + generator.normal(0, 25, (n, size, size, 3)), 0, 255).astype(np.uint8)
    return x, y.astype(np.int64)


def checkers(n: int, seed: int, size: int = 16) -> NDArray[np.uint8]:
    """`n` noisy high-contrast checkerboards `[n, size, size, 3]`: unlike either class of `stripes`."""
    generator = np.random.default_rng(seed)
    board = (np.indices((size, size)).sum(axis=0) // 2 % 2 * 255)[None, :, :, None]
    return np.clip(board + generator.normal(0, 25, (n, size, size, 3)), 0, 255).astype(np.uint8)


def png(image: NDArray[np.uint8]) -> bytes:
    """`image` `[H, W, 3]` as PNG bytes."""
    buffer = BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


def write_parquet(path: Path, x: NDArray[np.uint8], y: NDArray[np.int64] | None = None) -> Path:
    """Write a parquet file with the column `image` and, if `y` is given, `label`."""
    columns: dict[str, Any] = {"image": [{"bytes": png(image), "path": None} for image in x]}
    features: dict[str, Any] = {"image": datasets.Image()}
    if y is not None:
        columns["label"] = y.tolist()
        features["label"] = datasets.ClassLabel(names=list(LABELS))
    path.parent.mkdir(parents=True, exist_ok=True)
    datasets.Dataset.from_dict(columns, features=datasets.Features(features)).to_parquet(path)
    return path


def tiny_recipe(**changes: Any) -> dict[str, Any]:
    """A recipe for the data that `write_tiny_data` writes; trains in seconds."""
    schedule = {"epochs": 2, "batch_size": 16, "learning_rate": 0.05}
    recipe: dict[str, Any] = {
        "name": "stripes",
        "input": {"kind": "image", "height": 16, "width": 16, "channels": 3, "mean": [0.5] * 3, "std": [0.25] * 3},
        "in_distribution": {
            "train": {"path": "train.parquet", "label": "label"},
            "test": {"path": "test.parquet", "label": "label"},
            "calibration_size": 40,
        },
        "outliers": {"train": {"path": "outliers.parquet"}},
        "architecture": {"name": "small_conv", "width": 4},
        "stages": {
            "baseline": {"objective": {"name": "cross_entropy"}, **schedule},
            "oe": {
                "objective": {"name": "outlier_exposure", "weight": 0.5},
                "start_from": "baseline",
                **schedule,
            },
        },
        "trainer": {"precision": "32-true"},
        "evaluation": {
            "ood": {"checkers": {"path": "ood.parquet"}, "gaussian": {"synthetic": "gaussian", "size": 40}},
            "validation": {"jigsaw": {"synthetic": "jigsaw", "size": 40}},
            "draws": 3,
        },
        "export": {"stage": "oe", "alpha": 0.05},
    }
    return recipe | changes


def write_tiny_data(root: Path) -> Path:
    """Write train, test, outlier and out-of-distribution files into `root`."""
    write_parquet(root / "train.parquet", *stripes(200, seed=1))
    write_parquet(root / "test.parquet", *stripes(100, seed=2))
    # The outliers differ from the checkerboards of the test set: their upper half is inverted.
    outliers = checkers(120, seed=3)
    outliers[:, :8] = 255 - outliers[:, :8]
    write_parquet(root / "outliers.parquet", outliers)
    write_parquet(root / "ood.parquet", checkers(40, seed=4))
    return root
