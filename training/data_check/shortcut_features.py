"""Measures by which single features of their files outliers differ from in-distribution data, on samples."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from bundle import DEFAULT_MAX_PIXELS, TextEncoder
from bundle.image_formats import DecodeLimits, format_name, open_image
from datafiles import Fault
from training.data.encoded_images import encoded_bytes
from training.data.sources import Rows
from training.data.tokenizer import UNKNOWN_TOKEN, train_tokenizer
from training.evaluation import FeatureSeparation
from training.recipe import TextConfig

_IMAGES = 300
_TEXTS = 4000
_MIN_VALUES = 10
"""Fewer values than this on one side, for example of JPEG files, are not compared."""
_THUMBNAIL_SIDE = 64

Features = Mapping[str, NDArray[Any]]
"""Feature -> its values `[N]`, floats or category names."""


def separations(in_dist: Features, outliers: Features) -> tuple[FeatureSeparation, ...]:
    """The AUROC, in percent, of telling outliers by each feature that both sets have."""
    return tuple(
        FeatureSeparation(feature=name, auroc=round(100 * _auroc(in_dist[name], outliers[name]), 1))
        for name in in_dist
        if name in outliers and min(len(in_dist[name]), len(outliers[name])) >= _MIN_VALUES
    )


def image_features(rows: Rows) -> Features:
    """The features of a sample of image files; files that cannot be decoded are left out.

    Args:
        rows: The rows of the data set.
    """
    values: dict[str, list[Any]] = {
        name: [] for name in ("file size", "image size", "file format", "mean brightness", "JPEG quantisation")
    }
    sample = np.asarray(_sample(len(rows), _IMAGES), dtype=np.int64)
    for image_file in rows.encoded().at(sample).read():
        encoded = encoded_bytes(image_file)
        if isinstance(encoded, Fault):
            continue
        try:
            opened = open_image(encoded, DecodeLimits(DEFAULT_MAX_PIXELS))
            image = opened.decode(_THUMBNAIL_SIDE)
            quantisation = getattr(image, "quantization", None)
            brightness = float(np.asarray(image.convert("L")).mean()) / 255
        # Corrupt files raise exceptions of many types. Loading the image later reports the file and the row.
        except Exception:  # noqa: S112
            continue
        values["file size"].append(len(encoded))
        values["image size"].append(opened.pixels)
        values["file format"].append(str(format_name(encoded)))
        values["mean brightness"].append(brightness)
        if quantisation:
            values["JPEG quantisation"].append(float(np.mean(quantisation[0])))
    return {name: np.asarray(measured) for name, measured in values.items()}


def text_features(in_dist: Sequence[str], outliers: Sequence[str], config: TextConfig) -> tuple[Features, Features]:
    """The features of a sample of the in-distribution texts and of the outliers.

    Unknown tokens are counted by a vocabulary of half of the in-distribution sample, on the other half and on outliers:
    a text has no unknown token in a vocabulary that is made from it.

    Args:
        in_dist: The in-distribution texts.
        outliers: The outliers.
        config: The input of the recipe, which makes the vocabulary.
    """
    sample = [in_dist[index] for index in _sample(len(in_dist), 2 * _TEXTS)]
    vocabulary, others = sample[::2], sample[1::2]
    tokenizer = train_tokenizer(vocabulary, config)
    encoder, unknown = TextEncoder(tokenizer, config.max_tokens), tokenizer.token_to_id(UNKNOWN_TOKEN)
    outliers = [outliers[index] for index in _sample(len(outliers), _TEXTS)]
    return _features_of_texts(others, encoder, unknown), _features_of_texts(outliers, encoder, unknown)


def _features_of_texts(texts: Sequence[str], encoder: TextEncoder, unknown: int | None) -> Features:
    tokens = [ids for ids in encoder.encode_batch(texts) if len(ids)]
    return {
        "text length": np.asarray([len(text) for text in texts]),
        "share of unknown tokens": np.asarray([np.mean(ids == unknown) for ids in tokens]),
    }


def _auroc(in_dist: NDArray[Any], outliers: NDArray[Any]) -> float:
    """The AUROC in the better direction; categories are ordered by the share of outliers among their files."""
    values = np.concatenate((in_dist, outliers))
    is_outlier = np.concatenate((np.zeros(len(in_dist), dtype=bool), np.ones(len(outliers), dtype=bool)))
    if values.dtype.kind == "U":
        _, category = np.unique(values, return_inverse=True)
        # The share among equally many files of both sets.
        weight = np.where(is_outlier, 1 / len(outliers), 1 / len(in_dist))
        share = np.bincount(category, weight * is_outlier) / np.bincount(category, weight)
        values = share[category]
    auroc = float(roc_auc_score(is_outlier, values))
    return max(auroc, 1 - auroc)


def _sample(n: int, size: int) -> range | list[int]:
    """At most `size` of the numbers below `n`, evenly spaced."""
    return range(n) if n <= size else [index * (n - 1) // (size - 1) for index in range(size)]
