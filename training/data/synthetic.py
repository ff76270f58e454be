"""Synthetic images that are out of distribution by construction (paper, appendix A and its code).

Gaussian and Rademacher noise and blobs are test sets; uniform noise, jigsaw and the others are for validation, so that
choices need not touch a test set. Any can be a training run's outliers (section 4.3: they generalise badly). The
authors draw noise in the network's normalised input space; these are images (a service sees nothing else), -1..1
mapped onto 0..255, through the JPEG encoder of the data they are compared with.
"""

from collections.abc import Callable, Mapping
from io import BytesIO

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter

from training.data.examples import Examples, StoredArray
from training.data.image_loading import content_hash
from training.errors import RecipeError
from training.recipe import Synthetic

UInt8 = NDArray[np.uint8]
Shape = tuple[int, ...]

_BLOCK = 4096


def generate(name: str, shape: Shape, *, seed: int, like: UInt8 | None = None, jpeg_quality: int | None = 75) -> UInt8:
    """`shape` `(N, H, W, C)` uint8 images of the kind `name`, the same for the same seed.

    `like` are in-distribution images `[>= N, H, W, C]` for the kinds that distort them. Raises ValueError for an
    unknown name or a missing `like`.
    """
    if name not in SYNTHETIC:
        raise ValueError(f"unknown synthetic set '{name}'; known: {', '.join(SYNTHETIC)}")
    if name in DISTORTIONS and (like is None or len(like) < shape[0]):
        raise ValueError(f"synthetic set '{name}' distorts in-distribution images: give at least {shape[0]} of them")
    generator = np.random.default_rng(seed)
    images = np.empty(shape, dtype=np.uint8)
    # In blocks: on the way the values are floats of eight bytes, gigabytes for a training run's outliers.
    for start in range(0, shape[0], _BLOCK):
        block = images[start : start + _BLOCK]
        if name in NOISE or like is None:
            block[:] = NOISE[name](generator, block.shape)
        else:
            block[:] = DISTORTIONS[name](generator, like[start : start + len(block)])
    if jpeg_quality is not None:
        for row, image in enumerate(images):
            images[row] = _through_jpeg(image, jpeg_quality)
    return images


def synthesise(plan: Synthetic, like: Examples, *, name: str, seed: int) -> Examples:
    """The synthetic set that `plan` asks for, in the shape of the images `like`; RecipeError if unknown.

    Kinds that distort images take those of `like` in turn.
    """
    n = plan.size
    rows = np.arange(n, dtype=np.int64) % len(like)
    try:
        x = generate(
            plan.synthetic, (n, *like.x.shape[1:]), seed=seed, like=like.x[rows], jpeg_quality=plan.jpeg_quality
        )
    except ValueError as error:
        raise RecipeError(f"{name}.synthetic", str(error), "Correct the recipe") from error
    array = StoredArray(x)
    return Examples(array, None, (), name, f"synthetic/{plan.synthetic}", content_hash(array, None))


def _gaussian(generator: Generator, shape: Shape) -> UInt8:
    """N(0, 0.5^2) per value, clipped to [-1, 1], mapped onto 0..255."""
    return _from_unit(np.clip(generator.normal(0, 0.5, shape), -1, 1))


def _rademacher(generator: Generator, shape: Shape) -> UInt8:
    """-1 or 1 per value with equal probability."""
    return _from_unit(2.0 * generator.integers(0, 2, shape) - 1)


def _uniform(generator: Generator, shape: Shape) -> UInt8:
    return generator.integers(0, 256, shape, dtype=np.uint8)


def _blobs(generator: Generator, shape: Shape) -> UInt8:
    """Binomial noise (p = 0.7), blurred (sigma 1.5), cut at 0.75: amorphous shapes with definite edges."""
    noise = generator.binomial(1, 0.7, shape).astype(np.float64)
    # The authors blur across the channels too, which makes the shapes grey.
    smooth = np.stack([gaussian_filter(image, sigma=1.5, mode="nearest") for image in noise])
    blobs: UInt8 = np.rint(255 * np.where(smooth < 0.75, 0.0, smooth)).astype(np.uint8)
    return blobs


def _jigsaw(generator: Generator, like: UInt8) -> UInt8:
    """The four quadrants of each image in another order."""
    n, height, width, channels = like.shape
    rows, columns = height // 2, width // 2
    even = like[:, : 2 * rows, : 2 * columns]
    tiles = even.reshape(n, 2, rows, 2, columns, channels).transpose(0, 1, 3, 2, 4, 5).reshape(n, 4, rows, columns, -1)
    orders = np.array(
        [(1, 0, 3, 2), (2, 3, 0, 1), (3, 2, 1, 0), (2, 0, 3, 1), (1, 3, 0, 2), (1, 2, 3, 0), (3, 0, 1, 2)]
    )
    chosen = orders[generator.integers(len(orders), size=n)]
    moved = tiles[np.arange(n)[:, None], chosen].reshape(n, 2, 2, rows, columns, channels)
    result = like.copy()
    result[:, : 2 * rows, : 2 * columns] = moved.transpose(0, 1, 3, 2, 4, 5).reshape(even.shape)
    return result


def _arithmetic_mean(generator: Generator, like: UInt8) -> UInt8:
    """The mean of two images."""
    return np.rint((like.astype(np.float64) + like[_others(generator, len(like))]) / 2).astype(np.uint8)


def _geometric_mean(generator: Generator, like: UInt8) -> UInt8:
    """The square root of the product of two images."""
    return np.rint(np.sqrt(like.astype(np.float64) * like[_others(generator, len(like))])).astype(np.uint8)


def _speckle(generator: Generator, like: UInt8) -> UInt8:
    """Multiplicative Gaussian noise (sigma 1)."""
    values = like * (1 + generator.normal(size=like.shape))
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def _noisy(generator: Generator, like: UInt8) -> UInt8:
    """Additive Gaussian noise, its deviation drawn for each image between a tenth and the whole of the range."""
    deviation = generator.uniform(25.5, 255.0, size=(len(like), 1, 1, 1))
    return np.clip(np.rint(like + deviation * generator.normal(size=like.shape)), 0, 255).astype(np.uint8)


def _inverted(generator: Generator, like: UInt8) -> UInt8:
    """Some or all channels inverted."""
    channels = like.shape[3]
    flips = generator.integers(1, 2**channels, size=len(like))
    mask = (flips[:, None] >> np.arange(channels)) & 1
    return np.where(mask[:, None, None, :] == 1, 255 - like, like).astype(np.uint8)


NOISE: Mapping[str, Callable[[Generator, Shape], UInt8]] = {
    "gaussian": _gaussian,
    "rademacher": _rademacher,
    "blobs": _blobs,
    "uniform": _uniform,
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
"""The names that `generate` knows."""


def _others(generator: Generator, n: int) -> NDArray[np.int64]:
    """For each of n images another one (for a single image, itself)."""
    return (np.arange(n) + generator.integers(1, max(n, 2), size=n)) % n


def _from_unit(values: NDArray[np.floating]) -> UInt8:
    images: UInt8 = np.rint(127.5 * (values + 1)).astype(np.uint8)
    return images


def _through_jpeg(image: UInt8, quality: int) -> UInt8:
    buffer = BytesIO()
    picture = Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image)
    picture.save(buffer, "JPEG", quality=quality, subsampling="4:2:0")
    return np.asarray(Image.open(buffer)).reshape(image.shape)
