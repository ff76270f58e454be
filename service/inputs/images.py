"""Images: encoded files in, `images` uint8 `[N, H, W, C]` to the graph."""

import base64
import binascii
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from bundle import Bundle, ImageError, ImageInput, ImageTooLarge, LikelihoodSpec, decode_image
from service.errors import InputError
from service.inputs.examples import sample_png
from service.inputs.explanation import explain_pixels
from service.inputs.modality import Array, Limits, Prepared, Run
from service.inputs.payloads import Base64, Payload, Pixels, Text

# Below these, decoding costs less than handing over to another thread and back (measured about 0.1 ms for 32x32).
# The pixel limit is what protects the event loop: a few kilobytes can declare a huge image.
_INLINE_BYTES = 16_384
_INLINE_PIXELS = 96 * 96

_GRAPH_INPUT = "images"


class Images:
    """What an image model takes (`service.modalities.Modality`)."""

    media_types: ClassVar[Sequence[str]] = (
        "image/png",
        "image/jpeg",
        "image/webp",
        "image/bmp",
        "application/octet-stream",
    )
    body_schema: ClassVar[Mapping[str, Any]] = {"type": "string", "format": "binary"}
    sample_types: ClassVar[Mapping[str, str]] = {
        ".png": "image/png",
        ".jpg": "image/jpeg",
        ".jpeg": "image/jpeg",
        ".webp": "image/webp",
    }

    tensor: ClassVar[str] = "images"

    def __init__(self, spec: ImageInput) -> None:
        self._spec = spec
        self.pixels = self._shape = (spec.height, spec.width, spec.channels)
        self.description = f"{spec.width}x{spec.height} images"
        self.signature = (
            f"one uint8 tensor {_GRAPH_INPUT!r} of [N, {', '.join(str(length) for length in self._shape)}], N dynamic"
        )

    @classmethod
    def of(cls, bundle: Bundle) -> Self:
        """What `bundle`, an image model, takes."""
        spec = bundle.manifest.input
        assert isinstance(spec, ImageInput), "the manifest's validation ties modality to input"
        return cls(spec)

    def example(self) -> dict[str, str]:
        """A tiny generated picture."""
        return {"image": base64.b64encode(sample_png(8, 8, self._spec.channels)).decode("ascii")}

    def body_reader(self, parameters: Mapping[bytes, bytes]) -> Callable[[bytes], Payload]:  # noqa: ARG002
        """The body is the image; its first bytes tell the format, whatever the headers say."""
        return bytes

    def string_payload(self, text: str) -> Payload:
        """An encoded image, in base64."""
        return Base64(text)

    def prepare(self, payload: Payload, limits: Limits) -> NDArray[np.uint8] | InputError:
        """One payload as `[H, W, C]` uint8, or what is wrong with it."""
        return self._prepare(payload, limits.max_pixels)

    def _prepare(self, payload: Payload, max_pixels: int) -> NDArray[np.uint8] | InputError:
        if isinstance(payload, Pixels):
            return payload.array
        if isinstance(payload, Base64):
            payload = _decode_base64(payload)
        if isinstance(payload, InputError):
            return payload
        if isinstance(payload, Text):
            return InputError("unsupported-input", "This model scores images; the input is a text. Send `image`.")
        try:
            return decode_image(payload, self._spec, max_pixels=max_pixels)
        except ImageError as error:
            return InputError(error.type, error.detail)

    def prepare_inline(self, payload: Payload, limits: Limits) -> Prepared | None:
        """Like `prepare` for small images, else None."""
        if isinstance(payload, Base64) and len(payload.text) * 3 // 4 <= _INLINE_BYTES:
            payload = _decode_base64(payload)
        if isinstance(payload, Base64) or (isinstance(payload, bytes) and len(payload) > _INLINE_BYTES):
            return None
        prepared = self._prepare(payload, min(_INLINE_PIXELS, limits.max_pixels))
        if isinstance(prepared, InputError) and prepared.type == ImageTooLarge.type:
            return None
        return prepared

    def matches(self, inputs: Mapping[str, tuple[str, Sequence[int | str | None]]]) -> bool:
        """Whether the graph takes batches of any number of images of this size, and nothing else."""
        kind, shape = inputs.get(_GRAPH_INPUT, ("", ()))
        dynamic = len(shape) == 4 and not isinstance(shape[0], int)
        return len(inputs) == 1 and kind == "tensor(uint8)" and dynamic and tuple(shape[1:]) == self._shape

    def feed(self, items: Sequence[Array]) -> dict[str, Array]:
        """`images` uint8 `[N, H, W, C]`."""
        return {_GRAPH_INPUT: items[0][None] if len(items) == 1 else np.stack(items)}

    def explain(self, item: Array, bits: Array, spec: LikelihoodSpec) -> dict[str, Any]:  # noqa: ARG002
        """A heat map of the bits of each pixel `[H, W]`."""
        return explain_pixels(bits, spec)

    @property
    def size_of(self) -> None:
        """Images of one model are of one size."""
        return None

    def bucketed(self, run: Run) -> Run:
        """As they come: images of one model are of one size."""
        return run

    def examples(self, size: int) -> Iterator[list[Array]]:
        """One batch: images of one model are of one size."""
        yield self.sample_batch(size)

    def sample_batch(self, size: int) -> list[Array]:
        """Darkness and noise in turns."""
        probe_pair = self.probe_pair()
        return [probe_pair[index % 2] for index in range(size)]

    def probe_pair(self) -> tuple[Array, Array]:
        """Darkness and noise."""
        noise = np.random.default_rng(0).integers(0, 256, self._shape, dtype=np.uint8)
        return np.zeros(self._shape, np.uint8), noise


def _decode_base64(payload: Base64) -> bytes | InputError:
    try:
        return base64.b64decode(payload.text, validate=True)
    except (binascii.Error, ValueError) as error:
        return InputError("invalid-base64", f"`image` is not base64: {error}")
