"""Bodies to inputs and options: any bytes are parsed or raise a problem."""

import contextlib
import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bundle import ImageInput, TextEncoder
from service.errors import InputError, InvalidParameter, Problem, TooManyInputs, UnsupportedMediaType
from service.inputs.images import Images
from service.inputs.payloads import Base64, Input, Text
from service.inputs.texts import Texts
from service.protocols.native.multipart import Part, parse_multipart
from service.protocols.native.parsing import choose_parser, parse_form, parse_json
from service.scoring.options import OptionLimits, parse_options, query_options
from tests.support.tiny_text_bundle import tiny_tokenizer

IMAGES = Images(ImageInput(height=8, width=8, channels=1, mean=(0.5,), std=(0.5,)))
TEXTS = Texts(TextEncoder(tiny_tokenizer(), 8), 8)
OPTION_LIMITS = OptionLimits(("msp", "energy"), "msp", 1000)
json_values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(st.text(max_size=8), children, max_size=4),
    max_leaves=8,
)
members = st.dictionaries(
    st.sampled_from(["inputs", "alpha", "threshold", "scores", "timeout_ms", "other"]), json_values, max_size=4
)


@given(st.binary(max_size=200))
def test_arbitrary_bytes_as_json_are_a_problem_or_a_body(body: bytes) -> None:
    with contextlib.suppress(Problem):
        parse_json(body, max_inputs=4)


@given(members)
def test_arbitrary_json_is_a_problem_or_inputs_and_options(content: dict[str, object]) -> None:
    with contextlib.suppress(Problem):
        parsed = parse_json(json.dumps(content).encode(), max_inputs=4)
        assert 1 <= len(parsed.inputs) <= 4
        assert all(isinstance(item.payload, Base64 | Text | InputError) for item in parsed.inputs)
        options = parse_options(parsed.options, OPTION_LIMITS)
        assert options.alpha is None or 0 < options.alpha < 1
        assert set(options.scores) <= {"msp", "energy"}
        assert 1 <= options.timeout_ms <= 1000


@given(st.binary(max_size=200))
def test_arbitrary_bytes_as_a_form_are_a_problem_or_a_body(body: bytes) -> None:
    for prefix in (b"", b"--b\r\n", b'--b\r\nContent-Disposition: form-data; name="file"\r\n\r\n'):
        with contextlib.suppress(Problem):
            parse_form(prefix + body, b"b", max_inputs=4)


@given(st.text(max_size=60) | st.sampled_from(["multipart/form-data; boundary=é", 'text/plain; charset="', ";", "/"]))
def test_an_arbitrary_content_type_is_a_problem_or_a_parser(content_type: str) -> None:
    for modality in (IMAGES, TEXTS):
        with contextlib.suppress(Problem):
            choose_parser(content_type.encode("utf-8").decode("latin-1"), modality, max_inputs=4)


@given(st.lists(st.tuples(st.text(max_size=10), st.text(max_size=10)), max_size=4))
def test_arbitrary_query_parameters_are_a_problem_or_options(query: list[tuple[str, str]]) -> None:
    with contextlib.suppress(Problem):
        parse_options(query_options(query), OPTION_LIMITS)


@given(st.lists(st.tuples(st.sampled_from(["file", "text"]), st.binary(max_size=50)), max_size=6))
def test_a_form_is_parsed_to_its_parts(parts: list[tuple[str, bytes]]) -> None:
    boundary = b"------------------------9051914041544843365972754266"
    body = b"".join(
        b"--" + boundary + b'\r\nContent-Disposition: form-data; name="' + name.encode() + b'"\r\n\r\n' + data + b"\r\n"
        for name, data in parts
    )
    parsed = parse_multipart(body + b"--" + boundary + b"--\r\n", boundary, max_parts=6)
    assert parsed == [Part(name, data) for name, data in parts]


def test_surplus_parts_are_refused() -> None:
    part = b'--b\r\nContent-Disposition: form-data; name="file"\r\n\r\nx\r\n'
    with pytest.raises(TooManyInputs):
        parse_multipart(part * 3 + b"--b--\r\n", b"b", max_parts=2)


@pytest.mark.parametrize(
    "values", [b"{}," * 10_000, b"1," * 10_000, b"[" * 10_000, b'"x",' * 10_000, b'"\\",{",{},' * 9_999]
)
def test_too_many_json_values_are_rejected_before_they_are_built(values: bytes) -> None:
    with pytest.raises(TooManyInputs, match="Far more than 4"):
        parse_json(b'{"inputs": [' + values + b"1]}", max_inputs=4)


@pytest.mark.parametrize("text", [",{[" * 10_000, '",{[' * 10_000, '\\",{[' * 10_000])
def test_punctuation_in_a_text_does_not_count_as_values(text: str) -> None:
    assert parse_json(json.dumps({"inputs": [text]}).encode(), max_inputs=4).inputs == [Input(Text(text))]


@pytest.mark.parametrize(
    "body", [b'"' + b'\\"' * 1_000_000 + b",{[" * 10_000, b'"' * 2_000_001 + b"," * 9_999, b'\\"' * 999_999]
)
def test_counting_values_takes_linear_time(body: bytes) -> None:
    started = time.process_time()
    with pytest.raises(Problem):
        parse_json(body, max_inputs=4)
    assert time.process_time() - started < 5


def test_a_text_model_takes_text_and_no_image() -> None:
    parse = choose_parser("text/plain; charset=UTF-8", TEXTS, max_inputs=4)
    assert parse("naïve".encode()).inputs == [Input(Text("naïve"))]
    (bad,) = parse(b"\xff").inputs
    assert isinstance(bad.payload, InputError)
    assert bad.payload.type == "undecodable-text"
    for content_type in ("image/png", None, "text/plain; charset=ebcdic"):
        with pytest.raises(UnsupportedMediaType):
            choose_parser(content_type, TEXTS, max_inputs=4)


def test_json_texts_and_images_keep_their_ids() -> None:
    body = b'{"inputs": ["a", {"text": "b", "id": "1"}, {"image": "AA==", "id": "2"}], "alpha": 0.1}'
    parsed = parse_json(body, max_inputs=4)
    assert parsed.inputs == [Input(Text("a")), Input(Text("b"), "1"), Input(Base64("AA=="), "2")]
    assert parsed.options == {"alpha": 0.1}


def test_a_client_can_shorten_the_deadline_but_not_extend_it() -> None:
    for timeout, milliseconds in (("20", 20), (1, 1), ("1", 1), (1000, 1000), (99_999, 1000), (None, 1000)):
        assert parse_options({"timeout_ms": timeout}, OPTION_LIMITS).timeout_ms == milliseconds


def test_a_form_without_parts_is_invalid() -> None:
    with pytest.raises(InvalidParameter, match="file: the form has no part"):
        parse_form(b"--b--\r\n", b"b", max_inputs=4)


@pytest.mark.parametrize("parts", [1, 2])
def test_as_many_parts_as_allowed_are_parsed(parts: int) -> None:
    part = b'--b\r\nContent-Disposition: form-data; name="file"\r\n\r\nx\r\n'
    assert len(parse_multipart(part * parts + b"--b--\r\n", b"b", max_parts=2)) == parts


@pytest.mark.parametrize(
    ("content_type", "hint"),
    [
        (None, "The body came without a Content-Type."),
        ("application/x-www-form-urlencoded", "add -H 'Content-Type: text/plain'."),
        ("image/png; x=1", "It does not take 'image/png'."),
    ],
)
def test_an_unsupported_content_type_is_rejected_with_a_hint(content_type: str | None, hint: str) -> None:
    with pytest.raises(UnsupportedMediaType) as raised:
        choose_parser(content_type, TEXTS, max_inputs=4)
    assert raised.value.detail.startswith("This model takes text/plain, multipart/form-data, application/json.")
    assert raised.value.detail.endswith(hint)


def test_ids_have_a_largest_length() -> None:
    for length, accepted in ((256, True), (257, False)):
        body = json.dumps({"inputs": [{"text": "a", "id": "x" * length}]}).encode()
        (item,) = parse_json(body, max_inputs=4).inputs
        assert isinstance(item.payload, Text) is accepted


def test_as_many_json_inputs_as_allowed_are_parsed() -> None:
    assert len(parse_json(b'{"inputs": ["a", "b"]}', max_inputs=2).inputs) == 2
    with pytest.raises(TooManyInputs, match="3 inputs, more than 2 in one request"):
        parse_json(b'{"inputs": ["a", "b", "c"]}', max_inputs=2)
