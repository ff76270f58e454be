"""Small text data sets on disk: sentences that a network can learn to tell apart in seconds."""

from pathlib import Path
from typing import Any

import datasets
import numpy as np

TOPICS = ("kitchen", "harbour")
_WORDS = {
    "kitchen": ["bread", "oven", "salt", "butter", "knife", "plate", "soup", "pepper", "flour", "stove"],
    "harbour": ["ship", "anchor", "sail", "rope", "captain", "wave", "pier", "crane", "tide", "deck"],
    "outliers": ["guitar", "violin", "drum", "chord", "melody", "concert", "rhythm", "piano", "opera", "tune"],
    "unseen": ["glacier", "planet", "comet", "galaxy", "orbit", "meteor", "crater", "nebula", "rocket", "moon"],
}
_COMMON = ["the", "a", "and", "with", "of", "some", "for", "this", "is", "was"]


def sentences(topic: str, n: int, seed: int) -> list[str]:
    """`n` sentences of 3 to 12 words, on average half of them words of the topic."""
    generator = np.random.default_rng(seed)
    return [
        " ".join(
            str(generator.choice(_WORDS[topic] if generator.random() < 0.5 else _COMMON))
            for _ in range(generator.integers(3, 13))
        ).capitalize()
        + "."
        for _ in range(n)
    ]


def write_texts(path: Path, texts: list[str], labels: list[int] | None = None) -> Path:
    """Write a parquet file with the column `text` and, if `labels` are given, `label`."""
    columns: dict[str, Any] = {"text": texts}
    features: dict[str, Any] = {"text": datasets.Value("string")}
    if labels is not None:
        columns["label"] = labels
        features["label"] = datasets.ClassLabel(names=list(TOPICS))
    path.parent.mkdir(parents=True, exist_ok=True)
    datasets.Dataset.from_dict(columns, features=datasets.Features(features)).to_parquet(path)
    return path


def write_tiny_texts(root: Path) -> Path:
    """Write train, test, outlier and out-of-distribution files into `root`."""
    for name, n, seed in (("train", 120, 1), ("test", 40, 2)):
        texts = [text for i, topic in enumerate(TOPICS) for text in sentences(topic, n, seed + 10 * i)]
        write_texts(root / f"{name}.parquet", texts, [i for i in range(len(TOPICS)) for _ in range(n)])
    write_texts(root / "outliers.parquet", sentences("outliers", 150, 5))
    write_texts(root / "ood.parquet", sentences("unseen", 40, 6))
    return root


def tiny_text_recipe(**changes: Any) -> dict[str, Any]:
    """A recipe for the data that `write_tiny_texts` writes; trains in seconds."""
    schedule = {"epochs": 4, "batch_size": 16, "learning_rate": 0.01, "optimizer": "adam", "weight_decay": 0}
    recipe: dict[str, Any] = {
        "name": "topics",
        "input": {"kind": "text", "max_tokens": 24},
        "in_distribution": {
            "train": {"path": "train.parquet", "label": "label"},
            "test": {"path": "test.parquet", "label": "label"},
            "calibration_size": 60,
        },
        "outliers": {"train": {"path": "outliers.parquet"}},
        "architecture": {"name": "gru", "embedding": 16, "hidden": 16},
        "stages": {
            "baseline": {"objective": {"name": "cross_entropy"}, **schedule},
            "oe": {"objective": {"name": "outlier_exposure", "weight": 1.0}, "start_from": "baseline", **schedule},
        },
        "trainer": {"precision": "32-true"},
        "evaluation": {"ood": {"unseen": {"path": "ood.parquet"}}, "draws": 3},
        "export": {"stage": "oe", "alpha": 0.05},
    }
    return recipe | changes
