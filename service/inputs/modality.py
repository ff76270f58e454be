"""The interface between the service and a kind of input: everything that differs between images and texts."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from numpy.typing import NDArray

from bundle import LikelihoodSpec
from service.errors import InputError
from service.inputs.payloads import Payload

Array = NDArray[Any]
Prepared = Array | InputError
"""One input as the model takes it, or what is wrong with it."""


class Run(Protocol):
    """From a batch of prepared inputs to named outputs with a row for each."""

    def __call__(self, items: Sequence[Array], *, exclusive: bool) -> Mapping[str, Array]:
        """`exclusive`: no other call runs beside this one, it may take the whole machine."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How large one input may be."""

    max_pixels: int
    max_text_chars: int


class Modality(Protocol):
    """What one model takes, from the body of a request to the inputs of its graph."""

    @property
    def description(self) -> str:
        """The inputs in words, as in "32x32 images"."""

    @property
    def media_types(self) -> Sequence[str]:
        """Content types of a body that is a single input, the one to recommend first."""

    @property
    def sample_types(self) -> Mapping[str, str]:
        """Content types of a bundle's own sample file, by the file's suffix."""

    def example(self) -> dict[str, str]:
        """An input of a JSON body that the model scores, short enough for one line of a terminal."""

    def body_reader(self, parameters: Mapping[bytes, bytes]) -> Callable[[bytes], Payload]:
        """From a body of one of `media_types` to its payload. Raises `UnsupportedMediaType` for some `parameters`."""

    @property
    def tensor(self) -> str:
        """The tensor of the Open Inference Protocol that holds the inputs, as in "images"."""

    @property
    def pixels(self) -> tuple[int, ...] | None:
        """The shape of `service.inputs.payloads.Pixels` that the model takes; None where it takes none."""

    def string_payload(self, text: str) -> Payload:
        """The payload of an input that JSON carries as a string."""

    def prepare(self, payload: Payload, limits: Limits) -> Prepared:
        """One payload as the model takes it. Thread-safe; may take long."""

    def prepare_inline(self, payload: Payload, limits: Limits) -> Prepared | None:
        """Like `prepare` where that is quicker than to hand over to another thread, else None."""

    @property
    def signature(self) -> str:
        """The graph's inputs in words, for whoever exported another graph."""

    def matches(self, inputs: Mapping[str, tuple[str, Sequence[int | str | None]]]) -> bool:
        """Whether a graph with `inputs`, ONNX Runtime's types and shapes by name, can be fed."""

    def feed(self, items: Sequence[Array]) -> dict[str, Array]:
        """The graph's inputs for a batch of prepared inputs."""

    def explain(self, item: Array, bits: Array, spec: LikelihoodSpec) -> dict[str, Any]:
        """What a prepared input's likelihood is made of, for an answer, from the bits of its parts."""

    @property
    def size_of(self) -> Callable[[Array], int] | None:
        """The size of a prepared input, where those of a batch are padded to the largest of them."""

    def bucketed(self, run: Run) -> Run:
        """`run` for batches as they come: the same rows, from whatever order and calls cost least."""

    def examples(self, size: int) -> Iterator[list[Array]]:
        """Batches of `size` prepared inputs that differ in whatever a graph could depend on."""

    def sample_batch(self, size: int) -> list[Array]:
        """A batch of `size` prepared inputs that cost what most do."""

    def probe_pair(self) -> tuple[Array, Array]:
        """Two prepared inputs that could hardly differ more, the larger one last."""
