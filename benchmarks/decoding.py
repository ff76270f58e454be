"""Decoding: the service's own way from bytes to pixels beside other decoders, at the model's size and at photo size."""

import importlib.util
import io
import time
from collections.abc import Callable, Mapping
from statistics import median
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.results import report
from bundle import ImageInput, decode_image

SPEC = ImageInput(height=32, width=32, channels=3, mean=(0.5,) * 3, std=(0.25,) * 3)
FORMATS: Mapping[str, dict[str, Any]] = {"PNG": {}, "JPEG": {"quality": 85}, "WEBP": {"quality": 85}}
SIZES = {"32x32": (32, 32), "12 megapixels": (3000, 4000)}


def measure(rounds: int) -> None:
    """Print and keep milliseconds an image; of the other decoders those that are installed."""
    figures: dict[str, Any] = {"rounds": rounds}
    for size, (height, width) in SIZES.items():
        picture = Image.fromarray(_natural(height, width))
        for name, options in FORMATS.items():
            file = io.BytesIO()
            picture.save(file, name, **options)
            for decoder, seconds in _interleaved(_decoders(name), file.getvalue(), rounds).items():
                figures[f"{name} {size}, {decoder}, ms"] = 1e3 * seconds
    report("decoding", figures, ("pillow", "numpy"))


def _decoders(image_format: str) -> dict[str, Callable[[bytes], object]]:
    """Each from bytes to 32x32 RGB pixels."""
    decoders: dict[str, Callable[[bytes], object]] = {
        "service": lambda data: decode_image(data, SPEC),
        "pillow, whole": lambda data: np.asarray(
            Image.open(io.BytesIO(data)).convert("RGB").resize((32, 32), Image.Resampling.BILINEAR)
        ),
    }
    if importlib.util.find_spec("cv2"):
        import cv2  # noqa: PLC0415 - measured where it is installed

        def opencv(data: bytes) -> object:
            pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
            return pixels if pixels.shape[:2] == (32, 32) else cv2.resize(pixels, (32, 32), None, 0, 0, cv2.INTER_AREA)

        decoders["opencv"] = opencv
    if importlib.util.find_spec("simplejpeg") and image_format == "JPEG":
        import simplejpeg  # noqa: PLC0415 - measured where it is installed

        def simple(data: bytes) -> object:
            pixels = simplejpeg.decode_jpeg(data, min_height=96, min_width=96, min_factor=1)
            return np.asarray(Image.fromarray(pixels).resize((32, 32), Image.Resampling.BILINEAR))

        decoders["simplejpeg, scaled"] = simple
    return decoders


def _interleaved(decoders: Mapping[str, Callable[[bytes], object]], data: bytes, rounds: int) -> dict[str, float]:
    """Median seconds of one call of each."""
    taken: dict[str, list[float]] = {name: [] for name in decoders}
    for _ in range(rounds):
        for name, decode in decoders.items():
            started = time.perf_counter()
            calls = 0
            while calls == 0 or time.perf_counter() - started < 0.05:
                decode(data)
                calls += 1
            taken[name].append((time.perf_counter() - started) / calls)
    return {name: median(seconds) for name, seconds in taken.items()}


def _natural(height: int, width: int) -> Any:
    """Noise with the spectrum of photographs, amplitude falling with frequency, so that it compresses like one."""
    rng = np.random.default_rng(0)
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width))
    frequency[0, 0] = 1
    channels = []
    for _ in range(3):
        spectrum = rng.normal(size=frequency.shape) + 1j * rng.normal(size=frequency.shape)
        waves = np.fft.irfft2(spectrum / frequency, s=(height, width))
        channels.append(128 + 50 * waves / waves.std())
    return np.clip(np.stack(channels, -1), 0, 255).astype(np.uint8)
