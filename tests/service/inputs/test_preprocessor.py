"""Preparing: order, worker threads, and work that nobody waits for any more."""

import asyncio
import threading
from collections.abc import Iterator

import numpy as np
import pytest

from bundle import TextEncoder
from service.errors import InputError
from service.inputs.modality import Limits, Prepared
from service.inputs.payloads import Input, Payload, Text
from service.inputs.preprocessor import Preprocessor
from service.inputs.texts import Texts
from tests.support.tiny_text_bundle import tiny_tokenizer

ENCODER = TextEncoder(tiny_tokenizer(), 8)


class Watched(Texts):
    """Texts that notes which thread prepared each one, and waits at the gate."""

    def __init__(self) -> None:
        super().__init__(ENCODER, 8)
        self.threads: list[str] = []
        self.gate = threading.Event()
        self.gate.set()

    def prepare(self, payload: Payload, limits: Limits) -> Prepared:
        self.threads.append(threading.current_thread().name)
        assert self.gate.wait(10)
        return super().prepare(payload, limits)

    def prepare_inline(self, payload: Payload, limits: Limits) -> Prepared | None:
        prepared = super().prepare_inline(payload, limits)
        if prepared is not None:
            self.threads.append(threading.current_thread().name)
        return prepared


@pytest.fixture
def preprocessor() -> Iterator[Preprocessor]:
    preprocessor = Preprocessor(Limits(max_pixels=100, max_text_chars=5000), threads=2)
    yield preprocessor
    preprocessor.close()


def inputs(*texts: str) -> list[Input]:
    return [Input(Text(text)) for text in texts]


def test_a_text_is_prepared_at_once_unless_much_of_it_must_be_read(preprocessor: Preprocessor) -> None:
    for text, where in (("ball", "MainThread"), ("ball " * 900, "MainThread"), ("x" * 4500, "prepare")):
        watched = Watched()
        asyncio.run(preprocessor.prepare(inputs(text), watched, lambda _: None))
        assert [name.split("_")[0] for name in watched.threads] == [where]


def test_a_text_over_the_limit_is_refused_at_once(preprocessor: Preprocessor) -> None:
    watched = Watched()
    (refused,) = asyncio.run(preprocessor.prepare(inputs("w" * 5001), watched, lambda _: None))
    assert isinstance(refused, InputError)
    assert refused.type == "text-too-long"
    assert "5,001 characters, more than the limit of 5,000" in refused.detail
    assert watched.threads == ["MainThread"]


@pytest.mark.parametrize("count", [2, 7, 8, 9, 64, 257])
def test_many_inputs_come_back_in_order_each_observed_once(preprocessor: Preprocessor, count: int) -> None:
    words = list(tiny_tokenizer().get_vocab())[2:]
    texts = [f"{words[i % len(words)]} {words[i // len(words)]}" if i % 5 else " " for i in range(count)]
    seconds: list[float] = []
    prepared = asyncio.run(preprocessor.prepare(inputs(*texts), Texts(ENCODER, 8), seconds.append))
    assert len(seconds) == count
    for text, each in zip(texts, prepared, strict=True):
        if text == " ":
            assert isinstance(each, InputError)
        else:
            np.testing.assert_array_equal(each, ENCODER.encode(text))


def test_what_nobody_waits_for_is_dropped(preprocessor: Preprocessor) -> None:
    watched = Watched()
    watched.gate.clear()

    async def give_up() -> None:
        async with asyncio.timeout(0.1):
            await preprocessor.prepare(inputs(*["ball"] * 100), watched, lambda _: None)

    with pytest.raises(TimeoutError):
        asyncio.run(give_up())
    watched.gate.set()
    # The pool is still there for others, and has not prepared what was left.
    asyncio.run(preprocessor.prepare(inputs(*["goal"] * 4), Texts(ENCODER, 8), lambda _: None))
    assert len(watched.threads) == 2
