"""Payloads to model-ready arrays: small images at once, the others on worker threads."""

import asyncio
import base64
import binascii
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

from numpy.typing import NDArray

from bundle import ImageError, ImageInput, ImageTooLarge, decode_image
from service.parsing import Base64, Input, Payload, Text
from service.problems import InputError

# Below these, decoding costs less than handing over to another thread and back (measured about 0.1 ms for 32x32).
# The pixel limit is what protects the event loop: a few kilobytes can declare a huge image.
_INLINE_BYTES = 16_384
_INLINE_PIXELS = 96 * 96

Prepared = NDArray[Any] | InputError


@dataclass(frozen=True, slots=True)
class Limits:
    """How large one input may be."""

    max_pixels: int
    max_text_chars: int


class Preparer:
    """Prepares inputs; owns the worker threads."""

    def __init__(self, limits: Limits, threads: int) -> None:
        self._limits = limits
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="decode")

    def close(self) -> None:
        """End the threads; what waits for them is dropped."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def prepare(
        self, inputs: Sequence[Input], spec: ImageInput, observe: Callable[[float], None]
    ) -> list[Prepared]:
        """Each input as the array `[H, W, C]` that `spec` asks for, or what is wrong with it, in order.

        `observe` gets the seconds that each one took. Cancelling drops what no thread has begun.
        """
        if len(inputs) == 1:
            started = time.perf_counter()
            at_once = _prepare_small(inputs[0].payload, spec, self._limits)
            if at_once is not None:
                observe(time.perf_counter() - started)
                return [at_once]
        loop = asyncio.get_running_loop()
        jobs = [loop.run_in_executor(self._pool, _timed, item.payload, spec, self._limits) for item in inputs]
        done = await asyncio.gather(*jobs)
        for _, seconds in done:
            observe(seconds)
        return [prepared for prepared, _ in done]


def prepare_payload(payload: Payload, spec: ImageInput, limits: Limits) -> Prepared:
    """One payload as the array `[H, W, C]` uint8 of an image model, or what is wrong with it."""
    if isinstance(payload, Base64):
        payload = _decode_base64(payload)
    if isinstance(payload, InputError):
        return payload
    if isinstance(payload, Text):
        if len(payload.text) > limits.max_text_chars:
            return InputError("text-too-long", f"The text has more than {limits.max_text_chars} characters.")
        return InputError("unsupported-input", "This model scores images; the input is a text. Send `image`.")
    try:
        return decode_image(payload, spec, max_pixels=limits.max_pixels)
    except ImageError as error:
        return InputError(error.type, error.detail)


def _prepare_small(payload: Payload, spec: ImageInput, limits: Limits) -> Prepared | None:
    """Like `prepare_payload` where that is quick, else None."""
    if isinstance(payload, Base64) and len(payload.text) * 3 // 4 <= _INLINE_BYTES:
        payload = _decode_base64(payload)
    if isinstance(payload, Base64) or (isinstance(payload, bytes) and len(payload) > _INLINE_BYTES):
        return None
    prepared = prepare_payload(payload, spec, replace(limits, max_pixels=min(_INLINE_PIXELS, limits.max_pixels)))
    if isinstance(prepared, InputError) and prepared.type == ImageTooLarge.type:
        return None
    return prepared


def _decode_base64(payload: Base64) -> bytes | InputError:
    try:
        return base64.b64decode(payload.text, validate=True)
    except (binascii.Error, ValueError) as error:
        return InputError("invalid-base64", f"`image` is not base64: {error}")


def _timed(payload: Payload, spec: ImageInput, limits: Limits) -> tuple[Prepared, float]:
    started = time.perf_counter()
    prepared = prepare_payload(payload, spec, limits)
    return prepared, time.perf_counter() - started
