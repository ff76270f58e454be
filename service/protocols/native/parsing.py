"""Parses request bodies to inputs and options, by content type."""

import binascii
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from python_multipart.multipart import parse_options_header

from service.errors import InputError, InvalidParameter, MalformedBody, TooManyInputs, UnsupportedMediaType
from service.http.json_text import has_too_many_values, is_unicode, parse_json_text, to_utf8, without_surrogates
from service.inputs.base64_text import decode_base64
from service.inputs.modality import Modality
from service.inputs.payloads import Base64, Input, Payload, Text, text_of
from service.inputs.text_encoding import CHARSETS, codec_of
from service.protocols.native.multipart import Part, parse_multipart
from service.scoring.options import OPTION_NAMES

JSON_TYPE = "application/json"
FORM_TYPE = "multipart/form-data"
_MAX_ID_CHARS = 256


@dataclass(frozen=True, slots=True)
class ParsedBody:
    """The inputs of a body, and the options in it, which are not validated yet."""

    inputs: list[Input]
    options: dict[str, Any] = field(default_factory=dict)


Parser = Callable[[bytes], ParsedBody]


def choose_parser(content_type: str | None, modality: Modality, *, max_inputs: int) -> Parser:
    """Choose the parser of a body from its headers, before the body is read.

    Args:
        content_type: The value of the header `Content-Type`; None without that header.
        modality: The modality of the model.
        max_inputs: The largest number of inputs in one body.

    Raises:
        UnsupportedMediaType: The model does not take the content type.
        MalformedBody: The content type of a form has no boundary.
    """
    kind, parameters = parse_options_header(content_type or "application/octet-stream")
    media_type = kind.decode("latin-1").lower()
    if media_type == JSON_TYPE:
        return lambda body: parse_json(body, max_inputs=max_inputs)
    if media_type == FORM_TYPE:
        boundary = parameters.get(b"boundary", b"")
        if not boundary:
            raise MalformedBody("The content type multipart/form-data needs a boundary; let the HTTP client set it.")
        return lambda body: parse_form(body, boundary, max_inputs=max_inputs)
    if modality.takes(media_type):
        read = modality.body_reader(parameters)
        return lambda body: ParsedBody([Input(read(body))])
    raise UnsupportedMediaType(_unsupported(content_type, media_type, modality))


def parse_json(body: bytes, *, max_inputs: int) -> ParsedBody:
    """Parse a JSON body, `{"inputs": [...], "alpha": ...}`.

    Raises:
        MalformedBody: The body is not a JSON object.
        InvalidParameter: A key is unknown, or `inputs` is not a list of at least one input.
        TooManyInputs: The body has more than `max_inputs` inputs.
    """
    body = to_utf8(body)
    if has_too_many_values(body, limit=16 * max_inputs + 1024):
        raise TooManyInputs(f"Far more than {max_inputs} inputs in one request. Split them into several requests.")
    try:
        content, has_surrogates = parse_json_text(body)
    except ValueError as error:
        raise MalformedBody(f"The body is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise MalformedBody(
            'The body must be a JSON object: {"inputs": [{"image": "<base64>"}]} or {"inputs": ["text"]}.'
        )
    inputs = content.pop("inputs", None)
    if has_surrogates:
        # Other errors could not repeat halves of surrogate pairs, because no response can encode them.
        try:
            content = without_surrogates(content)
        except RecursionError:
            raise MalformedBody("The body is not JSON: it is nested too deeply.") from None
    for name in content:
        if name not in OPTION_NAMES:
            raise InvalidParameter(name[:64], f"no such key; the keys are inputs, {', '.join(OPTION_NAMES)}")
    if not isinstance(inputs, list) or not inputs:
        raise InvalidParameter("inputs", "give a list of at least one input")
    if len(inputs) > max_inputs:
        raise TooManyInputs(
            f"{len(inputs)} inputs, more than {max_inputs} in one request. Split them into several requests."
        )
    read = _json_input_with_surrogates if has_surrogates else _json_input
    return ParsedBody([read(item) for item in inputs], content)


def parse_form(body: bytes, boundary: bytes, *, max_inputs: int) -> ParsedBody:
    """Parse a form, whose parts are named `file` (images) or `text`.

    Raises:
        MalformedBody: The body is not a form.
        InvalidParameter: A part has another name, or there is no part.
        TooManyInputs: The form has more than `max_inputs` parts.
    """
    inputs = []
    for part in parse_multipart(body, boundary, max_parts=max_inputs):
        if part.name not in ("file", "text"):
            raise InvalidParameter(part.name[:64], "name each part `file` or `text`; options go into the query")
        inputs.append(Input(_file_payload(part) if part.name == "file" else _text_payload(part)))
    if not inputs:
        raise InvalidParameter("file", "the form has no part; give at least one `file` or `text`")
    return ParsedBody(inputs)


def _file_payload(part: Part) -> Payload:
    # Base64 is decoded later, on a thread.
    return Base64(part.data.decode("latin-1")) if part.transfer_encoding == "base64" else _part_data(part)


def _text_payload(part: Part) -> Payload:
    data = _part_data(part)
    if isinstance(data, InputError):
        return data
    codec = codec_of(part.charset)
    if codec is None:
        return InputError(
            "undecodable-text",
            f"The charset {part.charset[:64]!r} of the part is not supported. Send one of {', '.join(CHARSETS)}.",
        )
    return text_of(data, codec)


def _part_data(part: Part) -> bytes | InputError:
    """The bytes of the part without its transfer encoding (RFC 2045)."""
    match part.transfer_encoding:
        case "" | "binary" | "8bit" | "7bit":
            return part.data
        case "quoted-printable":
            return binascii.a2b_qp(part.data)
        case "base64":
            try:
                return decode_base64(part.data.decode("latin-1"))
            except ValueError as error:
                return InputError("invalid-base64", f"The part is not base64: {error}")
    return InputError(
        "unsupported-input",
        f"The Content-Transfer-Encoding {part.transfer_encoding[:64]!r} of the part is not supported. Send its "
        "bytes as they are, or in base64 or quoted-printable.",
    )


def _json_input(item: Any) -> Input:
    if isinstance(item, str):
        return Input(Text(item))
    if not isinstance(item, dict):
        return Input(InputError("invalid-input", f"An input is a string or an object, not {type(item).__name__}."))
    input_id = item.get("id")
    if input_id is not None and (not isinstance(input_id, str) or len(input_id) > _MAX_ID_CHARS):
        return Input(InputError("invalid-input", f"`id` must be a string of at most {_MAX_ID_CHARS} characters."))
    kinds = item.keys() - {"id"}
    if kinds == {"image"} and isinstance(item["image"], str):
        return Input(Base64(item["image"]), input_id)
    if kinds == {"text"} and isinstance(item["text"], str):
        return Input(Text(item["text"]), input_id)
    return Input(InputError("invalid-input", "An input object has `image` (base64) or `text`, a string."), input_id)


def _json_input_with_surrogates(item: Any) -> Input:
    parsed = _json_input(item)
    if isinstance(parsed.payload, Text) and not is_unicode(parsed.payload.text):
        error = InputError(
            "undecodable-text", "The text has half of a surrogate pair, such as \\ud83d. Send both halves."
        )
        parsed = Input(error, parsed.id)
    if parsed.id is not None and not is_unicode(parsed.id):
        parsed = Input(InputError("invalid-input", "`id` has half of a surrogate pair, such as \\ud83d."))
    return parsed


def _unsupported(content_type: str | None, media_type: str, modality: Modality) -> str:
    supported = modality.media_types
    description = f"This model takes {', '.join((*supported, FORM_TYPE, JSON_TYPE))}."
    if not content_type:
        return f"{description} The body came without a Content-Type."
    if media_type == "application/x-www-form-urlencoded":
        return f"{description} curl sends {media_type!r} by default: add -H 'Content-Type: {supported[0]}'."
    return f"{description} It does not take {media_type[:100]!r}."
