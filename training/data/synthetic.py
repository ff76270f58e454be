"""Synthetic images that are out of distribution by construction (paper, appendix A and its code).

Gaussian and Rademacher noise and blobs are test sets. Uniform noise, jigsaw and the others are validation sets. Each
can be used as a training run's outliers, too (section 4.3: they generalise badly).

These sets are uint8 images, as a service receives them, and pass through the JPEG encoder of the data they are compared
with. Noise has values in -1..1 and blobs in 0..1. `pixels` stretches them to 0..255. `normalised` uses them as the
network's normalised input, as the authors' code does, so that noise has less contrast: with CIFAR-10's mean and
deviation its pixels are 63..188 and those of blobs 125..188.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from io import BytesIO
from itertools import pairwise

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter

from bundle import ImageInput
from training.data.examples import Examples, StoredArray
from training.data.image_loading import content_hash
from training.errors import RecipeError
from training.recipe import Synthetic

UInt8 = NDArray[np.uint8]
Values = NDArray[np.floating]
Shape = tuple[int, ...]

_BLOCK_IMAGES, _BLOCK_VALUES = 4096, 4096 * 32 * 32 * 3
"""The most images in a block, and about the most values: 100 MB in float64."""


@dataclass(frozen=True)
class _Noise:
    """The values of a kind of noise, from `lowest` to 1."""

    draw: Callable[[Generator, Shape], Values]
    lowest: float

    def pixels(self, values: Values, normalisation: ImageInput | None) -> UInt8:
        """`values` `[..., C]` as pixels: stretched to 0..255, or taken as inputs of a network with `normalisation`."""
        if normalisation is None:
            shares = (values - self.lowest) / (1 - self.lowest)
        else:
            shares = np.clip(np.asarray(normalisation.mean) + np.asarray(normalisation.std) * values, 0, 1)
        images: UInt8 = np.rint(255 * shares).astype(np.uint8)
        return images


def generate(
    name: str,
    shape: Shape,
    *,
    seed: int,
    in_dist: UInt8 | None = None,
    jpeg_quality: int | None = 75,
    normalisation: ImageInput | None = None,
) -> UInt8:
    """Generate synthetic images; equal seeds give equal images.

    Args:
        name: One of `SYNTHETIC`.
        shape: `(N, H, W, C)`.
        seed: The seed of the random generator.
        in_dist: In-distribution images `[>= N, H, W, C]`, for the kinds that distort them.
        jpeg_quality: The quality of the JPEG encoder; None for images that are not encoded.
        normalisation: The input whose normalised values noise consists of; None to stretch noise to 0..255.

    Returns:
        uint8 images of shape `shape`.

    Raises:
        ValueError: The name is unknown, there are fewer than N in-distribution images, or a kind that distorts images
            is given a normalisation.
    """
    if name not in SYNTHETIC:
        raise ValueError(f"unknown synthetic set '{name}'; known: {', '.join(SYNTHETIC)}")
    if name in DISTORTIONS and normalisation is not None:
        raise ValueError(f"synthetic set '{name}' distorts images and has no normalised values: leave space out")
    if name in DISTORTIONS and (in_dist is None or len(in_dist) < shape[0]):
        raise ValueError(f"synthetic set '{name}' distorts in-distribution images: give at least {shape[0]} of them")
    generator = np.random.default_rng(seed)
    images = np.empty(shape, dtype=np.uint8)
    # In blocks, because intermediate values are float64: gigabytes for the outliers of a training run.
    for rows in _blocks(shape):
        block = images[rows]
        if name in NOISE or in_dist is None:
            block[:] = NOISE[name].pixels(NOISE[name].draw(generator, block.shape), normalisation)
        else:
            block[:] = DISTORTIONS[name](generator, in_dist[rows])
    if jpeg_quality is not None:
        for row, image in enumerate(images):
            images[row] = _through_jpeg(image, jpeg_quality)
    return images


def synthesise(
    config: Synthetic, in_dist: Examples, *, name: str, seed: int, spec: ImageInput | None = None
) -> Examples:
    """Generate the synthetic set of a recipe, with the shape of the images `in_dist`.

    `spec` is the network's input, which noise in normalised values needs.

    Kinds that distort images use those of `in_dist` in order, repeatedly if there are too few.

    Raises:
        RecipeError: The kind is unknown, or distorts images and is asked for in normalised values.
        ValueError: Noise in normalised values is asked for without `spec`.
    """
    if config.space == "normalised" and spec is None:
        raise ValueError(f"{name}: noise in normalised values needs the network's input")
    n = config.size
    rows = np.arange(n, dtype=np.int64) % len(in_dist)
    try:
        x = generate(
            config.synthetic,
            (n, *in_dist.x.shape[1:]),
            seed=seed,
            in_dist=in_dist.x[rows] if config.synthetic in DISTORTIONS else None,
            jpeg_quality=config.jpeg_quality,
            normalisation=spec if config.space == "normalised" else None,
        )
    except ValueError as error:
        raise RecipeError(f"{name}.synthetic", str(error), "Correct the recipe") from error
    array = StoredArray(x)
    return Examples(array, None, (), name, f"synthetic/{config.synthetic}", content_hash(array, None))


def _blocks(shape: Shape) -> list[slice]:
    """The rows of images of `shape` in blocks, each of two images or more: some distortions mix a block's images."""
    n = shape[0]
    size = min(_BLOCK_IMAGES, max(2, _BLOCK_VALUES // math.prod(shape[1:])))
    starts = [start for start in range(0, n, size) if n - start > 1 or n == 1]
    return [slice(start, end) for start, end in pairwise([*starts, n])]


def _gaussian(generator: Generator, shape: Shape) -> Values:
    """N(0, 0.5^2) per value, clipped to [-1, 1]."""
    return np.clip(generator.normal(0, 0.5, shape), -1, 1)


def _rademacher(generator: Generator, shape: Shape) -> Values:
    """-1 or 1 per value with equal probability."""
    return 2.0 * generator.integers(0, 2, shape) - 1


def _uniform(generator: Generator, shape: Shape) -> Values:
    """One of 256 evenly spaced numbers in [-1, 1] per value, all equally likely."""
    return generator.integers(0, 256, shape, dtype=np.uint8) / 127.5 - 1


def _blobs(generator: Generator, shape: Shape) -> Values:
    """Bernoulli noise (p = 0.7), blurred (sigma 1.5), 0 below 0.75: amorphous shapes with definite edges."""
    noise = generator.binomial(1, 0.7, shape).astype(np.float64)
    # The authors' filter includes the channel axis, which makes the shapes grey.
    smooth = np.stack([gaussian_filter(image, sigma=1.5, mode="nearest") for image in noise])
    return np.where(smooth < 0.75, 0.0, smooth)


def _jigsaw(generator: Generator, in_dist: UInt8) -> UInt8:
    """Each image with its quadrants in another order."""
    n, height, width, channels = in_dist.shape
    rows, columns = height // 2, width // 2
    even = in_dist[:, : 2 * rows, : 2 * columns]
    tiles = even.reshape(n, 2, rows, 2, columns, channels).transpose(0, 1, 3, 2, 4, 5).reshape(n, 4, rows, columns, -1)
    orders = np.array(
        [(1, 0, 3, 2), (2, 3, 0, 1), (3, 2, 1, 0), (2, 0, 3, 1), (1, 3, 0, 2), (1, 2, 3, 0), (3, 0, 1, 2)]
    )
    drawn = orders[generator.integers(len(orders), size=n)]
    moved = tiles[np.arange(n)[:, None], drawn].reshape(n, 2, 2, rows, columns, channels)
    result = in_dist.copy()
    result[:, : 2 * rows, : 2 * columns] = moved.transpose(0, 1, 3, 2, 4, 5).reshape(even.shape)
    return result


def _arithmetic_mean(generator: Generator, in_dist: UInt8) -> UInt8:
    """The mean of two images."""
    return np.rint((in_dist.astype(np.float64) + in_dist[_others(generator, len(in_dist))]) / 2).astype(np.uint8)


def _geometric_mean(generator: Generator, in_dist: UInt8) -> UInt8:
    """The square root of the product of two images."""
    return np.rint(np.sqrt(in_dist.astype(np.float64) * in_dist[_others(generator, len(in_dist))])).astype(np.uint8)


def _speckle(generator: Generator, in_dist: UInt8) -> UInt8:
    """Multiplicative Gaussian noise (sigma 1)."""
    values = in_dist * (1 + generator.normal(size=in_dist.shape))
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def _noisy(generator: Generator, in_dist: UInt8) -> UInt8:
    """Additive Gaussian noise; each image's standard deviation is drawn from 10% to 100% of the value range."""
    deviation = generator.uniform(25.5, 255.0, size=(len(in_dist), 1, 1, 1))
    return np.clip(np.rint(in_dist + deviation * generator.normal(size=in_dist.shape)), 0, 255).astype(np.uint8)


def _inverted(generator: Generator, in_dist: UInt8) -> UInt8:
    """Images with some or all channels inverted."""
    channels = in_dist.shape[3]
    flips = generator.integers(1, 2**channels, size=len(in_dist))
    mask = (flips[:, None] >> np.arange(channels)) & 1
    return np.where(mask[:, None, None, :] == 1, 255 - in_dist, in_dist).astype(np.uint8)


NOISE: Mapping[str, _Noise] = {
    "gaussian": _Noise(_gaussian, -1),
    "rademacher": _Noise(_rademacher, -1),
    "blobs": _Noise(_blobs, 0),
    "uniform": _Noise(_uniform, -1),
}
DISTORTIONS: Mapping[str, Callable[[Generator, UInt8], UInt8]] = {
    "jigsaw": _jigsaw,
    "arithmetic_mean": _arithmetic_mean,
    "geometric_mean": _geometric_mean,
    "speckle": _speckle,
    "noisy": _noisy,
    "inverted": _inverted,
}
SYNTHETIC = (*NOISE, *DISTORTIONS)
"""The kinds of synthetic sets."""


def _others(generator: Generator, n: int) -> NDArray[np.int64]:
    """For each of `n` images the index of a random other one (of itself if `n` is 1)."""
    return (np.arange(n) + generator.integers(1, max(n, 2), size=n)) % n


def _through_jpeg(image: UInt8, quality: int) -> UInt8:
    buffer = BytesIO()
    picture = Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image)
    picture.save(buffer, "JPEG", quality=quality, subsampling="4:2:0")
    return np.asarray(Image.open(buffer)).reshape(image.shape)
