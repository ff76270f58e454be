"""The interface of a modality: everything that differs between images and texts."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from numpy.typing import NDArray

from bundle import EncodedText, LikelihoodSpec
from service.errors import InputError
from service.inputs.decode_budget import DecodeBudget, RequestSize
from service.inputs.payloads import Payload

Array = NDArray[Any]
Prepared = Array | EncodedText | InputError
"""One input as an array that the model takes, a text with its token count, or why the input cannot be scored."""


def arrays_of(prepared: Sequence[Prepared]) -> list[Array]:
    """The arrays of the inputs that can be scored."""
    return [
        item.ids if isinstance(item, EncodedText) else item for item in prepared if not isinstance(item, InputError)
    ]


class Run(Protocol):
    """Computes a batch of prepared inputs."""

    def __call__(self, items: Sequence[Array], *, exclusive: bool) -> Mapping[str, Array]:
        """The outputs by name, each with a row per input.

        Args:
            items: The prepared inputs.
            exclusive: Whether no other call runs at the same time, so that this one may use all cores.
        """


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits on the size of one input.

    Attributes:
        max_pixels: Most pixels of an image.
        max_text_chars: Most characters of a text.
        budget: Is shared by all images that are decoded at the same time; None for no bound.
        request: Counts the images of a request; None if they are not counted.
    """

    max_pixels: int
    max_text_chars: int
    budget: DecodeBudget | None = None
    request: RequestSize | None = None


class Modality(Protocol):
    """Converts the inputs of one model, from the body of a request to the input tensors of its graph."""

    @property
    def description(self) -> str:
        """The inputs in words, as in "32x32 images"."""

    @property
    def media_types(self) -> Sequence[str]:
        """Content types of a body that is a single input, the recommended one first."""

    @property
    def sample_types(self) -> Mapping[str, str]:
        """Content types of a bundle's sample file, by the file's suffix."""

    def example(self) -> dict[str, str]:
        """An input of a JSON body, short enough for one line of a terminal."""

    def takes(self, media_type: str) -> bool:
        """Whether a body of this content type, in lower case and without parameters, is a single input."""

    def body_reader(self, parameters: Mapping[bytes, bytes]) -> Callable[[bytes], Payload]:
        """A function from a body whose content type `takes` accepts to its payload.

        Args:
            parameters: The parameters of the Content-Type, such as `charset`.

        Raises:
            UnsupportedMediaType: The modality does not support the parameters.
        """

    @property
    def tensor_name(self) -> str:
        """The name of the tensor that holds the inputs in the Open Inference Protocol, as in "images"."""

    @property
    def pixel_shape(self) -> tuple[int, ...] | None:
        """The shape of the `service.inputs.payloads.Pixels` that the model takes; None if it takes none."""

    def string_payload(self, text: str) -> Payload:
        """The payload of an input that is a string in JSON."""

    def work(self, payload: Payload, limits: Limits) -> int:
        """The estimated work of `prepare`, positive, in pixels of an image."""

    def prepare(self, payload: Payload, limits: Limits) -> Prepared:
        """Convert one payload. Thread-safe; may take long."""

    def prepare_inline(self, payload: Payload, limits: Limits) -> Prepared | None:
        """Convert one payload if that is faster than handing it to another thread, else return None."""

    @property
    def signature(self) -> str:
        """The expected input tensors in words, for error messages about a graph."""

    def matches(self, inputs: Mapping[str, tuple[str, Sequence[int | str | None]]]) -> bool:
        """Whether a graph takes the tensors of `feed`; `inputs` are its ONNX Runtime types and shapes by name."""

    def feed(self, items: Sequence[Array]) -> dict[str, Array]:
        """The graph's input tensors for a batch of prepared inputs, padded to the largest of them."""

    def explain(self, item: Array, bits: Array, spec: LikelihoodSpec) -> dict[str, Any]:
        """The `explanation` of a result: the bits of each part of a prepared input, as a JSON object."""

    @property
    def size_of(self) -> Callable[[Array], int] | None:
        """The size of a prepared input, positive; None if all inputs of the model have the same size."""

    def run_in_buckets(self, run: Run, items: Sequence[Array], *, exclusive: bool) -> Mapping[str, Array]:
        """Compute a batch by as many calls of `run` as cost least; the rows keep the order of `items`."""

    def warm_up_batches(self, size: int) -> Iterator[list[Array]]:
        """Batches of `size` prepared inputs that cover all input sizes a graph could fail on."""

    def sample_batch(self, size: int) -> list[Array]:
        """A batch of `size` prepared inputs of typical cost."""

    def probe_pair(self) -> tuple[Array, Array]:
        """Two prepared inputs that differ as much as possible, the larger one last."""
