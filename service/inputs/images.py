"""The image modality: converts encoded image files to the graph's input `images`, uint8 `[N, H, W, C]`."""

import base64
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from bundle import Bundle, EncodedImage, ImageError, ImageInput, ImageTooLarge, LikelihoodSpec, decode_image
from bundle.image_formats.declared_size import HEAD_BYTES, estimate_pixels
from service.errors import InputError
from service.inputs.base64_text import decode_base64, decode_base64_head
from service.inputs.examples import sample_png
from service.inputs.explanation import explain_pixels
from service.inputs.modality import Array, Limits, Prepared, Run
from service.inputs.payloads import Base64, Payload, Pixels, Text

# Images up to these limits are decoded faster than they can be handed to another thread and back (see
# docs/performance.md). The limit on pixels protects the event loop: a file of a few kilobytes can declare a huge image.
_INLINE_BYTES = 16_384
_INLINE_PIXELS = 96 * 96

# About the time that opening a file takes, in pixels.
_MIN_WORK = 10_000

_GRAPH_INPUT = "images"


class Images:
    """The inputs of an image model (`service.inputs.modality.Modality`)."""

    media_types: ClassVar[Sequence[str]] = (
        "image/png",
        "image/*",
        "application/octet-stream",
        "binary/octet-stream",
    )
    body_schema: ClassVar[Mapping[str, Any]] = {"type": "string", "format": "binary"}
    sample_types: ClassVar[Mapping[str, str]] = {
        ".png": "image/png",
        ".jpg": "image/jpeg",
        ".jpeg": "image/jpeg",
        ".webp": "image/webp",
    }

    tensor_name: ClassVar[str] = "images"

    def __init__(self, spec: ImageInput) -> None:
        self._spec = spec
        self.pixel_shape = (spec.height, spec.width, spec.channels)
        self.description = f"{spec.width}x{spec.height} images"
        axes = ", ".join(str(length) for length in self.pixel_shape)
        self.signature = f"one uint8 tensor {_GRAPH_INPUT!r} of [N, {axes}], N dynamic"

    @classmethod
    def of(cls, bundle: Bundle) -> Self:
        """The modality of `bundle`, an image model."""
        spec = bundle.manifest.input
        assert isinstance(spec, ImageInput), "the manifest's validation ties modality to input"
        return cls(spec)

    def example(self) -> dict[str, str]:
        """A tiny generated image."""
        return {"image": base64.b64encode(sample_png(8, 8, self._spec.channels)).decode("ascii")}

    def takes(self, media_type: str) -> bool:
        """Whether a body of this content type is an image: any spelling, because its first bytes tell the format."""
        return media_type.startswith("image/") or media_type in self.media_types

    def body_reader(self, parameters: Mapping[bytes, bytes]) -> Callable[[bytes], Payload]:  # noqa: ARG002
        """The body is the encoded image. Its first bytes determine the format, not the headers."""
        return bytes

    def string_payload(self, text: str) -> Payload:
        """The string is an encoded image in base64."""
        return Base64(text)

    def prepare(self, payload: Payload, limits: Limits) -> NDArray[np.uint8] | InputError:
        """The image as uint8 `[H, W, C]`, or the reason why it cannot be scored."""
        encoded = self._encoded(payload)
        if not isinstance(encoded, bytes):
            return encoded
        try:
            image = EncodedImage(encoded, max_pixels=limits.max_pixels)
            if limits.request is not None:
                limits.request.add_pixels(image.pixels)
            with nullcontext() if limits.budget is None else limits.budget.decoding(image.pixels):
                return image.decode(self._spec)
        except ImageError as error:
            return InputError(error.type, error.detail)

    def work(self, payload: Payload, limits: Limits) -> int:
        """The estimated work of `prepare`: the pixels by the header, and as much as an image takes at least."""
        if isinstance(payload, Base64):
            length, head = len(payload.text) * 3 // 4, decode_base64_head(payload.text, HEAD_BYTES)
        else:
            length, head = (len(payload), payload) if isinstance(payload, bytes) else (0, b"")
        pixels = estimate_pixels(head, length)
        return _MIN_WORK + min(pixels, limits.max_pixels)

    def _encoded(self, payload: Payload) -> bytes | NDArray[np.uint8] | InputError:
        """The encoded image, the pixels of one that is not encoded, or the reason why the payload is no image."""
        if isinstance(payload, Pixels):
            return payload.array
        if isinstance(payload, Base64):
            payload = _decode_base64(payload)
        if isinstance(payload, Text):
            return InputError("unsupported-input", "This model scores images; the input is a text. Send `image`.")
        return payload

    def prepare_inline(self, payload: Payload, limits: Limits) -> Prepared | None:
        """Convert a small image; return None for a large one."""
        if isinstance(payload, Base64) and len(payload.text) * 3 // 4 <= _INLINE_BYTES:
            payload = _decode_base64(payload)
        if isinstance(payload, Base64) or (isinstance(payload, bytes) and len(payload) > _INLINE_BYTES):
            return None
        encoded = self._encoded(payload)
        if not isinstance(encoded, bytes):
            return encoded
        try:
            return decode_image(encoded, self._spec, max_pixels=min(_INLINE_PIXELS, limits.max_pixels))
        except ImageTooLarge:
            return None
        except ImageError as error:
            return InputError(error.type, error.detail)

    def matches(self, inputs: Mapping[str, tuple[str, Sequence[int | str | None]]]) -> bool:
        """Whether the graph takes batches of any number of images of this size, and no other input."""
        dtype, shape = inputs.get(_GRAPH_INPUT, ("", ()))
        dynamic = len(shape) == 4 and not isinstance(shape[0], int)
        return len(inputs) == 1 and dtype == "tensor(uint8)" and dynamic and tuple(shape[1:]) == self.pixel_shape

    def feed(self, items: Sequence[Array]) -> dict[str, Array]:
        """`images` uint8 `[N, H, W, C]`."""
        return {_GRAPH_INPUT: items[0][None] if len(items) == 1 else np.stack(items)}

    def explain(self, item: Array, bits: Array, spec: LikelihoodSpec) -> dict[str, Any]:  # noqa: ARG002
        """A heat map of `bits`, those of each pixel `[H, W]`."""
        return explain_pixels(bits, spec)

    @property
    def size_of(self) -> None:
        """None: all images of one model have the same size."""
        return None

    def run_in_buckets(self, run: Run, items: Sequence[Array], *, exclusive: bool) -> Mapping[str, Array]:
        """Compute the batch by one call: all images of one model have the same size."""
        return run(items, exclusive=exclusive)

    def warm_up_batches(self, size: int) -> Iterator[list[Array]]:
        """One batch: all images of one model have the same size."""
        yield self.sample_batch(size)

    def sample_batch(self, size: int) -> list[Array]:
        """Black and noise images, alternating."""
        probe_pair = self.probe_pair()
        return [probe_pair[index % 2] for index in range(size)]

    def probe_pair(self) -> tuple[Array, Array]:
        """A black image and a noise image."""
        noise = np.random.default_rng(0).integers(0, 256, self.pixel_shape, dtype=np.uint8)
        return np.zeros(self.pixel_shape, np.uint8), noise


def _decode_base64(payload: Base64) -> bytes | InputError:
    try:
        return decode_base64(payload.text)
    except ValueError as error:
        return InputError("invalid-base64", f"`image` is not base64: {error}")
