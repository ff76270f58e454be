"""Time to decode one image with the service's decoder and with others, at the model's size and at photo size."""

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
SIZES = {"32x32": (32, 32), "12_megapixels": (3000, 4000)}

Decoder = Callable[[bytes], object]


def measure(rounds: int) -> None:
    """Report milliseconds per image of every installed decoder."""
    figures: dict[str, Any] = {"rounds": rounds}
    for size, (height, width) in SIZES.items():
        picture = Image.fromarray(_natural_pixels(height, width))
        for name, options in FORMATS.items():
            file = io.BytesIO()
            picture.save(file, name, **options)
            seconds = _median_seconds(_decoders(name), file.getvalue(), rounds)
            figures[f"{name.lower()}_{size}"] = {f"{decoder}_ms": 1e3 * value for decoder, value in seconds.items()}
    report("decoding", figures, ("pillow", "numpy"))


def _decoders(image_format: str) -> dict[str, Decoder]:
    """The installed decoders by name. Each takes the bytes of a file and returns 32x32 RGB pixels."""
    decoders: dict[str, Decoder] = {
        "service": lambda data: decode_image(data, SPEC),
        "pillow_full_size": lambda data: np.asarray(
            Image.open(io.BytesIO(data)).convert("RGB").resize((32, 32), Image.Resampling.BILINEAR)
        ),
    }
    if importlib.util.find_spec("cv2"):
        import cv2  # noqa: PLC0415 - an optional package

        def opencv(data: bytes) -> object:
            pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
            return pixels if pixels.shape[:2] == (32, 32) else cv2.resize(pixels, (32, 32), None, 0, 0, cv2.INTER_AREA)

        decoders["opencv"] = opencv
    if importlib.util.find_spec("simplejpeg") and image_format == "JPEG":
        import simplejpeg  # noqa: PLC0415 - an optional package

        def scaled_simplejpeg(data: bytes) -> object:
            pixels = simplejpeg.decode_jpeg(data, min_height=96, min_width=96, min_factor=1)
            return np.asarray(Image.fromarray(pixels).resize((32, 32), Image.Resampling.BILINEAR))

        decoders["simplejpeg_scaled"] = scaled_simplejpeg
    return decoders


def _median_seconds(decoders: Mapping[str, Decoder], data: bytes, rounds: int) -> dict[str, float]:
    """Median seconds per call of each decoder, in interleaved rounds."""
    durations: dict[str, list[float]] = {name: [] for name in decoders}
    for _ in range(rounds):
        for name, decode in decoders.items():
            start = time.perf_counter()
            calls = 0
            while calls == 0 or time.perf_counter() - start < 0.05:
                decode(data)
                calls += 1
            durations[name].append((time.perf_counter() - start) / calls)
    return {name: median(seconds) for name, seconds in durations.items()}


def _natural_pixels(height: int, width: int) -> Any:
    """Noise `[H, W, 3]` uint8 with the spectrum of photographs, so that it compresses like a photograph."""
    rng = np.random.default_rng(0)
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width))
    frequency[0, 0] = 1
    channels = []
    for _ in range(3):
        spectrum = rng.normal(size=frequency.shape) + 1j * rng.normal(size=frequency.shape)
        waves = np.fft.irfft2(spectrum / frequency, s=(height, width))
        channels.append(128 + 50 * waves / waves.std())
    return np.clip(np.stack(channels, -1), 0, 255).astype(np.uint8)
