"""The preprocessor: order, worker threads, and cancelled work."""

import asyncio
import threading
from collections.abc import Iterator

import numpy as np
import pytest

from bundle import EncodedText, TextEncoder
from service.errors import InputError
from service.inputs.modality import Limits, Prepared
from service.inputs.payloads import Input, Payload, Text
from service.inputs.preprocessor import Preprocessor
from service.inputs.texts import Texts
from tests.support.tiny_text_bundle import tiny_tokenizer
from tests.support.waiting import until_async

ENCODER = TextEncoder(tiny_tokenizer(), 8)


class RecordingTexts(Texts):
    """Texts that records which thread prepared each of them, and waits at a gate."""

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


def test_a_text_is_prepared_inline_unless_much_of_it_must_be_read(preprocessor: Preprocessor) -> None:
    for text, thread in (("ball", "MainThread"), ("ball " * 900, "MainThread"), ("x" * 4500, "prepare")):
        texts = RecordingTexts()
        asyncio.run(preprocessor.prepare(inputs(text), texts, lambda _: None))
        assert [name.split("_")[0] for name in texts.threads] == [thread]


def test_a_text_over_the_limit_is_refused_at_once(preprocessor: Preprocessor) -> None:
    texts = RecordingTexts()
    (refused,) = asyncio.run(preprocessor.prepare(inputs("w" * 5001), texts, lambda _: None))
    assert isinstance(refused, InputError)
    assert refused.type == "text-too-long"
    assert "5,001 characters, more than the limit of 5,000" in refused.detail
    assert texts.threads == ["MainThread"]


@pytest.mark.parametrize("count", [2, 7, 8, 9, 64, 257])
def test_many_inputs_come_back_in_order_each_observed_once(preprocessor: Preprocessor, count: int) -> None:
    words = list(tiny_tokenizer().get_vocab())[2:]
    texts = [f"{words[i % len(words)]} {words[i // len(words)]}" if i % 5 else " " for i in range(count)]
    seconds: list[float] = []
    prepared = asyncio.run(preprocessor.prepare(inputs(*texts), Texts(ENCODER, 8), seconds.append))
    assert len(seconds) == count
    for text, item in zip(texts, prepared, strict=True):
        if text == " ":
            assert isinstance(item, InputError)
        else:
            assert isinstance(item, EncodedText)
            np.testing.assert_array_equal(item.ids, ENCODER.encode(text))


def test_the_inputs_of_a_cancelled_request_are_dropped(preprocessor: Preprocessor) -> None:
    texts = RecordingTexts()
    texts.gate.clear()

    async def cancel() -> None:
        task = asyncio.create_task(preprocessor.prepare(inputs(*["ball"] * 100), texts, lambda _: None))
        # Both threads are at work.
        await until_async(lambda: len(texts.threads) == 2)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(cancel())
    texts.gate.set()
    # The pool still serves other requests, and has not prepared the rest of the cancelled one.
    asyncio.run(preprocessor.prepare(inputs(*["goal"] * 4), Texts(ENCODER, 8), lambda _: None))
    assert len(texts.threads) == 2
