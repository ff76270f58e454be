"""The text modality: converts UTF-8 texts to the graph's inputs `tokens` int64 `[N, L]` and `lengths` int64 `[N]`."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from bundle import Bundle, EmptyText, EncodedText, LikelihoodSpec, TextEncoder, TextInput, pad_tokens
from service.errors import InputError, UnsupportedMediaType
from service.inputs.examples import SAMPLE_SENTENCE
from service.inputs.explanation import explain_tokens
from service.inputs.length_buckets import padded_length, run_in_length_buckets
from service.inputs.modality import Array, Limits, Prepared, Run
from service.inputs.payloads import Payload, Text, text_of
from service.inputs.text_encoding import CHARSETS, codec_of

# Texts of which the tokenizer reads up to this many characters are encoded on the event loop: a thread hand-over takes
# about as long as encoding them. See docs/performance.md.
_INLINE_CHARS = 2048
_WORK_PER_CHARACTER = 20
_SAMPLE_FILE = "sample.txt"
_EXAMPLE_CHARS = 200

# Most tokens of a warm-up batch: loading a model must not take minutes.
_MAX_WARM_UP_TOKENS = 8_192

_TOKENS, _LENGTHS = "tokens", "lengths"


class Texts:
    """The inputs of a text model (`service.inputs.modality.Modality`)."""

    media_types: ClassVar[Sequence[str]] = ("text/plain",)
    body_schema: ClassVar[Mapping[str, Any]] = {"type": "string"}
    sample_types: ClassVar[Mapping[str, str]] = {".txt": "text/plain; charset=utf-8"}
    tensor_name: ClassVar[str] = "texts"
    pixel_shape: ClassVar[tuple[int, ...] | None] = None
    signature = (
        f"two int64 tensors, {_TOKENS!r} of [N, L] and {_LENGTHS!r} of [N], N and L dynamic, L up to input.max_tokens"
    )

    def __init__(self, encoder: TextEncoder, max_tokens: int, sample: str = SAMPLE_SENTENCE) -> None:
        """A modality.

        Args:
            encoder: The model's tokenizer.
            max_tokens: Most tokens of a text that the model takes; `encoder` drops the others.
            sample: A typical text, for measurements and examples.
        """
        self._encoder = encoder
        self._max_tokens = max_tokens
        self._sample = sample
        self.description = f"texts of up to {max_tokens} tokens"

    @classmethod
    def of(cls, bundle: Bundle) -> Self:
        """The modality of `bundle`, a text model."""
        spec = bundle.manifest.input
        assert isinstance(spec, TextInput), "the manifest's validation ties modality to input"
        assert bundle.text_encoder is not None, "a text bundle loads with its tokenizer"
        if _SAMPLE_FILE not in bundle.manifest.files:
            return cls(bundle.text_encoder, spec.max_tokens)
        sample = (bundle.path / _SAMPLE_FILE).read_text(encoding="utf-8-sig", errors="replace").strip()
        return cls(bundle.text_encoder, spec.max_tokens, sample or SAMPLE_SENTENCE)

    def example(self) -> dict[str, str]:
        """The beginning of the bundle's sample, or a sentence if it has none."""
        return {"text": " ".join(self._sample.split())[:_EXAMPLE_CHARS]}

    def takes(self, media_type: str) -> bool:
        """Whether a body of this content type is a text."""
        return media_type in self.media_types

    def body_reader(self, parameters: Mapping[bytes, bytes]) -> Callable[[bytes], Payload]:
        """The body is the text, by default in UTF-8. Raises `UnsupportedMediaType` for unknown charsets."""
        charset = parameters.get(b"charset", b"utf-8").decode("latin-1")
        codec = codec_of(charset)
        if codec is None:
            raise UnsupportedMediaType(
                f"The charset {charset[:64]!r} is not supported. Send the text in one of {', '.join(CHARSETS)}."
            )
        return partial(text_of, codec=codec)

    def string_payload(self, text: str) -> Payload:
        """The string is the text."""
        return Text(text)

    def work(self, payload: Payload, limits: Limits) -> int:
        """The estimated work of `prepare` in pixels: encoding a character takes about as long as decoding 20."""
        return (
            _WORK_PER_CHARACTER * min(len(payload.text), limits.max_text_chars) + 1 if isinstance(payload, Text) else 1
        )

    def prepare(self, payload: Payload, limits: Limits) -> EncodedText | InputError:
        """The text as token ids, int64 `[L]`, with their count, or the reason why it cannot be scored."""
        prepared = self._prepare(payload, limits, limits.max_text_chars)
        assert prepared is not None, "no text is longer"
        return prepared

    def prepare_inline(self, payload: Payload, limits: Limits) -> Prepared | None:
        """Convert a text of which the tokenizer reads few characters; return None for other texts."""
        return self._prepare(payload, limits, _INLINE_CHARS)

    def _prepare(self, payload: Payload, limits: Limits, max_chars: int) -> EncodedText | InputError | None:
        if isinstance(payload, InputError):
            return payload
        if not isinstance(payload, Text):
            return InputError("unsupported-input", "This model scores texts; the input is an image. Send `text`.")
        if len(payload.text) > limits.max_text_chars:
            return InputError(
                "text-too-long",
                f"The text has {len(payload.text):,} characters, more than the limit of {limits.max_text_chars:,}; "
                "send a shorter one",
            )
        try:
            return self._encoder.encode_within(payload.text, max_chars)
        except EmptyText as error:
            return InputError(error.type, error.detail)

    def matches(self, inputs: Mapping[str, tuple[str, Sequence[int | str | None]]]) -> bool:
        """Whether the graph takes batches of any number of texts of any length, and no other input."""
        if inputs.keys() != {_TOKENS, _LENGTHS}:
            return False
        return all(
            dtype == "tensor(int64)" and len(shape) == axes and not any(isinstance(length, int) for length in shape)
            for (dtype, shape), axes in ((inputs[_TOKENS], 2), (inputs[_LENGTHS], 1))
        )

    def feed(self, items: Sequence[Array]) -> dict[str, Array]:
        """`tokens`, int64 `[N, L]` with L the longest text of the batch, and `lengths`, int64 `[N]`."""
        tokens, lengths = pad_tokens(items)
        return {_TOKENS: tokens, _LENGTHS: lengths}

    def explain(self, item: Array, bits: Array, spec: LikelihoodSpec) -> dict[str, Any]:
        """Each token of the text, as in the tokenizer's vocabulary, with its bits."""
        return explain_tokens(self._encoder.tokens(item), bits, spec)

    @property
    def size_of(self) -> Callable[[Array], int]:
        """A text's length in tokens; all short texts count alike."""
        return padded_length

    def run_in_buckets(self, run: Run, items: Sequence[Array], *, exclusive: bool) -> Mapping[str, Array]:
        """Compute the batch by one call for each group of similar length."""
        return run_in_length_buckets(run, items, exclusive=exclusive)

    def warm_up_batches(self, size: int) -> Iterator[list[Array]]:
        """A batch of texts of one token, of half the model's length, and of all of it; shorter in large batches."""
        longest = max(1, min(self._max_tokens, _MAX_WARM_UP_TOKENS // size))
        for length in sorted({1, -(-longest // 2), longest}):
            yield [self._ids(length)] * size

    def sample_batch(self, size: int) -> list[Array]:
        """The bundle's sample, repeated."""
        (ids,) = self._encoder.encode_batch((self._sample,))
        return [ids if ids.size else self._ids(1)] * size

    def probe_pair(self) -> tuple[Array, Array]:
        """A text of one token, and one of as many as the model takes."""
        return self._ids(1), self._ids(self._max_tokens)

    def _ids(self, length: int) -> NDArray[np.int64]:
        # From the largest id downwards, so that a graph with fewer embeddings than token ids fails.
        return (self._encoder.vocabulary_size - 1 - np.arange(length)) % self._encoder.vocabulary_size
