"""Request bodies to inputs and options, by content type."""

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
    """A parsed body: the inputs, and the options that came with them, not validated yet."""

    inputs: list[Input]
    options: dict[str, Any] = field(default_factory=dict)


Parser = Callable[[bytes], ParsedBody]


def choose_parser(content_type: str | None, encoding: str, modality: Modality, *, max_inputs: int) -> Parser:
    """How to parse a body of `content_type` and content `encoding` for a model of `modality`.

    The choice needs no body: what cannot be taken is refused (`UnsupportedMediaType`) before it is read.
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
    if media_type in modality.media_types:
        read = modality.body_reader(parameters)
        return lambda body: ParsedBody([Input(read(body))])
    raise UnsupportedMediaType(_refusal(content_type, media_type, modality))


def parse_json(body: bytes, *, max_inputs: int) -> ParsedBody:
    """A JSON body, `{"inputs": [...], "alpha": ...}`. Raises `MalformedBody`, `InvalidParameter` or `TooManyInputs`."""
    if has_too_many_values(body, limit=16 * max_inputs + 1024):
        raise TooManyInputs(f"Far more than {max_inputs} inputs in one request. Split them into several requests.")
    try:
        # NaN is no JSON, but common encoders write it: taken here, it is refused under its parameter's name.
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
    """A form's parts named `file` (images) and `text`. Raises `MalformedBody`, `InvalidParameter`, `TooManyInputs`."""
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
    name = item.get("id")
    if name is not None and (not isinstance(name, str) or len(name) > _MAX_ID_CHARS):
        return Input(InputError("invalid-input", f"`id` must be a string of at most {_MAX_ID_CHARS} characters."))
    kinds = item.keys() - {"id"}
    if kinds == {"image"} and isinstance(item["image"], str):
        return Input(Base64(item["image"]), name)
    if kinds == {"text"} and isinstance(item["text"], str):
        return Input(Text(item["text"]), name)
    return Input(InputError("invalid-input", "An input object has `image` (base64) or `text`, a string."), name)


def _refusal(content_type: str | None, media_type: str, modality: Modality) -> str:
    own = modality.media_types
    description = f"This model takes {', '.join((*own, FORM_TYPE, JSON_TYPE))}."
    if not content_type:
        return f"{description} The body came without a Content-Type."
    if media_type == "application/x-www-form-urlencoded":
        return f"{description} curl says {media_type!r} unless told otherwise: add -H 'Content-Type: {own[0]}'."
    return f"{description} It does not take {media_type[:100]!r}."
