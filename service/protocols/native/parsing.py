"""Parses request bodies to inputs and options, by content type."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from pydantic_core import from_json
from python_multipart.multipart import parse_options_header

from service.errors import InputError, InvalidParameter, MalformedBody, TooManyInputs, UnsupportedMediaType
from service.http.body import has_too_many_values, require_identity
from service.inputs.modality import Modality
from service.inputs.payloads import Base64, Input, Text, text_of
from service.protocols.native.multipart import parse_multipart
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


def choose_parser(content_type: str | None, encoding: str, modality: Modality, *, max_inputs: int) -> Parser:
    """Choose the parser of a body from its headers, before the body is read.

    Args:
        content_type: The value of the header `Content-Type`; None without that header.
        encoding: The value of the header `Content-Encoding`.
        modality: The modality of the model.
        max_inputs: The largest number of inputs in one body.

    Raises:
        UnsupportedMediaType: The model does not take the content type, or the body is compressed.
        MalformedBody: The content type of a form has no boundary.
    """
    require_identity(encoding)
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
    if has_too_many_values(body, limit=16 * max_inputs + 1024):
        raise TooManyInputs(f"Far more than {max_inputs} inputs in one request. Split them into several requests.")
    try:
        # NaN is not JSON, but common encoders write it: the validation of the parameter rejects it by name.
        content = from_json(body, allow_inf_nan=True)
    except ValueError as error:
        raise MalformedBody(f"The body is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise MalformedBody(
            'The body must be a JSON object: {"inputs": [{"image": "<base64>"}]} or {"inputs": ["text"]}.'
        )
    for name in content:
        if name not in ("inputs", *OPTION_NAMES):
            raise InvalidParameter(name[:64], f"no such key; the keys are inputs, {', '.join(OPTION_NAMES)}")
    inputs = content.pop("inputs", None)
    if not isinstance(inputs, list) or not inputs:
        raise InvalidParameter("inputs", "give a list of at least one input")
    if len(inputs) > max_inputs:
        raise TooManyInputs(
            f"{len(inputs)} inputs, more than {max_inputs} in one request. Split them into several requests."
        )
    return ParsedBody([_json_input(item) for item in inputs], content)


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
        inputs.append(Input(part.data if part.name == "file" else text_of(part.data)))
    if not inputs:
        raise InvalidParameter("file", "the form has no part; give at least one `file` or `text`")
    return ParsedBody(inputs)


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


def _unsupported(content_type: str | None, media_type: str, modality: Modality) -> str:
    supported = modality.media_types
    description = f"This model takes {', '.join((*supported, FORM_TYPE, JSON_TYPE))}."
    if not content_type:
        return f"{description} The body came without a Content-Type."
    if media_type == "application/x-www-form-urlencoded":
        return f"{description} curl sends {media_type!r} by default: add -H 'Content-Type: {supported[0]}'."
    return f"{description} It does not take {media_type[:100]!r}."
