"""The preprocessor: order, worker threads, and cancelled work."""

import asyncio
import threading
import time
from collections.abc import Iterator
from io import BytesIO

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from bundle import EncodedText, ImageInput, TextEncoder
from service.errors import InputError, Overloaded, TooManyInputs
from service.inputs.decode_budget import DecodeBudget
from service.inputs.images import Images
from service.inputs.modality import Limits, Prepared
from service.inputs.payloads import Base64, Input, Payload, Text
from service.inputs.preprocessor import Preprocessor
from service.inputs.texts import Texts
from tests.service.support.pictures import encoded, picture
from tests.support.tiny_text_bundle import tiny_tokenizer
from tests.support.waiting import until, until_async

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


IMAGE_SPEC = ImageInput(height=8, width=8, channels=3, mean=(0.5,) * 3, std=(0.5,) * 3)


class GatedImages(Images):
    """Images that records the colour of each image that it prepared, and waits at a gate."""

    def __init__(self) -> None:
        super().__init__(IMAGE_SPEC)
        self.prepared: list[str] = []
        self.gate = threading.Event()

    def prepare(self, payload: Payload, limits: Limits) -> NDArray[np.uint8] | InputError:
        assert self.gate.wait(10)
        pixels = super().prepare(payload, limits)
        self.prepared.append("error" if isinstance(pixels, InputError) else "red" if pixels[0, 0, 0] else "black")
        return pixels


@pytest.fixture
def one_thread() -> Iterator[Preprocessor]:
    preprocessor = Preprocessor(
        Limits(max_pixels=300_000, max_text_chars=5000), 1, max_request_pixels=4_000_000, max_request_chars=6000
    )
    yield preprocessor
    preprocessor.close()


def images_of(colour: str, count: int = 1, side: int = 500) -> list[Input]:
    return [Input(picture(colour, (side, side)))] * count


def test_a_request_of_many_images_does_not_delay_a_request_of_one(one_thread: Preprocessor) -> None:
    images = GatedImages()

    async def both() -> None:
        many = asyncio.create_task(one_thread.prepare(images_of("black", 12), images, lambda _: None))
        await asyncio.sleep(0)
        one = asyncio.create_task(one_thread.prepare(images_of("red"), images, lambda _: None))
        await asyncio.sleep(0)
        images.gate.set()
        await asyncio.gather(many, one)

    asyncio.run(both())
    # A job has at most a quarter of the images, and one job may have begun.
    assert images.prepared.index("red") <= 6
    assert images.prepared.count("black") == 12


def test_the_images_of_a_cancelled_request_are_not_decoded(one_thread: Preprocessor) -> None:
    images = GatedImages()

    async def cancel() -> None:
        many = asyncio.create_task(one_thread.prepare(images_of("black", 12), images, lambda _: None))
        await asyncio.sleep(0.01)
        many.cancel()
        await asyncio.gather(many, return_exceptions=True)
        images.gate.set()
        await one_thread.prepare(images_of("red"), images, lambda _: None)

    asyncio.run(cancel())
    assert images.prepared in (["black", "red"], ["red"])


def test_images_that_others_would_delay_beyond_the_deadline_are_refused_at_once(one_thread: Preprocessor) -> None:
    images = GatedImages()

    async def refused() -> None:
        many = asyncio.create_task(one_thread.prepare(images_of("black", 12), images, lambda _: None))
        await asyncio.sleep(0)
        with pytest.raises(Overloaded, match="inputs of other requests are ahead") as caught:
            await one_thread.prepare(images_of("red", 3), images, lambda _: None, max_wait=0.001)
        assert caught.value.retry_after == 1
        # Small images are decoded on the event loop and do not wait.
        await one_thread.prepare(images_of("red", side=8), images, lambda _: None, max_wait=0.001)
        images.gate.set()
        await many

    asyncio.run(refused())
    assert images.prepared == ["black"] * 12


def test_without_others_a_request_is_decoded_however_long_it_takes(one_thread: Preprocessor) -> None:
    prepared = asyncio.run(one_thread.prepare(images_of("red", 3), Images(IMAGE_SPEC), lambda _: None, max_wait=0.0))
    assert [type(item) for item in prepared] == [np.ndarray] * 3


def test_the_pixels_of_a_request_are_limited_together(one_thread: Preprocessor) -> None:
    images = GatedImages()
    images.gate.set()
    with pytest.raises(TooManyInputs, match="more than 4,000,000 pixels together"):
        asyncio.run(one_thread.prepare(images_of("black", 40), images, lambda _: None))
    assert len(asyncio.run(one_thread.prepare(images_of("red", 16), images, lambda _: None))) == 16
    assert images.prepared.count("black") <= 16


def test_the_characters_of_a_request_are_limited_together(one_thread: Preprocessor) -> None:
    with pytest.raises(TooManyInputs, match="more than 6,000 characters together"):
        asyncio.run(one_thread.prepare(inputs("w" * 3001, "w" * 3000), Texts(ENCODER, 8), lambda _: None))


def test_images_that_are_decoded_at_once_share_the_limit_of_pixels() -> None:
    budget = DecodeBudget(100)
    entered: list[int] = []
    leave = threading.Event()

    def decode(pixels: int) -> None:
        with budget.decoding(pixels):
            entered.append(pixels)
            assert leave.wait(10)

    threads = [threading.Thread(target=decode, args=(pixels,)) for pixels in (60, 40, 1)]
    for count, thread in enumerate(threads[:2], 1):
        thread.start()
        until(lambda: len(entered) == count)  # noqa: B023 - called at once
    threads[2].start()
    threads[2].join(0.05)
    assert entered == [60, 40]
    leave.set()
    for thread in threads:
        thread.join(10)
    assert entered == [60, 40, 1]


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


def photograph(*, thumbnail: bool) -> bytes:
    """A JPEG of 1,200 x 800 pixels with noise, optionally with a thumbnail before its frame header."""
    noise = np.random.default_rng(0).integers(0, 256, (800, 1200, 3), dtype=np.uint8)
    file, small = BytesIO(), BytesIO()
    Image.new("RGB", (160, 120)).save(small, "JPEG")
    exif = b"Exif\0\0" + small.getvalue() if thumbnail else b""
    Image.fromarray(noise).save(file, "JPEG", quality=30, exif=exif)
    return file.getvalue()


@pytest.mark.parametrize("thumbnail", [False, True])
@pytest.mark.parametrize("prefix", ["raw", "", "data:image/jpeg;base64,", "data:image/jpg;x=1;base64,", " \n"])
def test_the_work_of_a_photograph_is_estimated_by_its_pixels_in_every_form(thumbnail: bool, prefix: str) -> None:
    file = photograph(thumbnail=thumbnail)
    payload = file if prefix == "raw" else Base64(prefix + encoded(file))
    work = Images(IMAGE_SPEC).work(payload, Limits(max_pixels=10**8, max_text_chars=1))
    assert 1200 * 800 <= work <= 1200 * 800 + 20_000


@pytest.mark.parametrize("name", ["PNG", "GIF", "BMP", "WEBP", "TIFF"])
def test_the_work_of_other_formats_is_estimated_too(name: str) -> None:
    file = BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (200, 300, 3), dtype=np.uint8)
    Image.fromarray(noise).save(file, name)
    work = Images(IMAGE_SPEC).work(Base64(encoded(file.getvalue())), Limits(max_pixels=10**8, max_text_chars=1))
    assert 200 * 300 / 2 <= work <= 200 * 300 * 40


def test_work_that_was_underestimated_does_not_reject_the_inputs_of_others(one_thread: Preprocessor) -> None:
    class SlowImages(Images):
        def prepare(self, payload: Payload, limits: Limits) -> NDArray[np.uint8] | InputError:
            time.sleep(0.05)
            return super().prepare(payload, limits)

        def work(self, payload: Payload, limits: Limits) -> int:  # noqa: ARG002
            return 1

    async def prepare() -> None:
        for _ in range(5):
            await one_thread.prepare(images_of("black"), SlowImages(IMAGE_SPEC), lambda _: None)
        requests = (
            one_thread.prepare(images_of("red"), Images(IMAGE_SPEC), lambda _: None, max_wait=1) for _ in range(3)
        )
        await asyncio.gather(*requests)

    asyncio.run(prepare())


@pytest.mark.parametrize("texts", [1, 2])
def test_the_limit_of_all_characters_of_a_request_holds_for_one_text_too(texts: int) -> None:
    preprocessor = Preprocessor(Limits(max_pixels=100, max_text_chars=5000), 1, max_request_chars=100)
    inputs = [Input(Text("a " * (60 // texts)))] * texts
    with pytest.raises(TooManyInputs):
        asyncio.run(preprocessor.prepare(inputs, Texts(ENCODER, 8), lambda _: None))
    preprocessor.close()
