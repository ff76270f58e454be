"""A request's body to inputs, options and the outputs that are wanted."""

import asyncio
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pydantic import ValidationError

from service.errors import InvalidInput, InvalidParameter, MalformedBody, TooManyInputs
from service.http.body import has_too_many_values
from service.inputs.modality import Modality
from service.inputs.payloads import Input, Pixels
from service.pipeline import Pipeline
from service.protocols.open_inference.outputs import Output, choose_outputs, outputs_of, scores_of
from service.protocols.open_inference.schemas import UNKNOWN_KEY, InferenceRequest, InputTensor, RequestedOutput
from service.protocols.open_inference.tensors import (
    bytes_from_binary,
    strings_from_json,
    uint8_from_binary,
    uint8_from_json,
)
from service.repository.model import Model
from service.scoring.options import OPTION_NAMES, OptionLimits, Options, parse_options
from service.scoring.scored_input import ScoredInput

HEADER_LENGTH = "inference-header-content-length"
"""The HTTP header with the JSON's length, where tensors follow it in binary."""

BINARY_OUTPUT = "binary_data_output"
PARAMETERS = (*(name for name in OPTION_NAMES if name != "explain"), BINARY_OUTPUT)
"""The names in a request's `parameters`. Explanations are no tensors."""

# Numbers are built one by one from JSON, on the event loop; binary data cost nothing. At least one image always fits.
_JSON_PIXELS = 2**17


@dataclass(frozen=True, slots=True)
class Inference:
    """A parsed request. `outputs` are in the order of the answer, each with whether its data are wanted in binary."""

    inputs: list[Input]
    options: Options
    outputs: list[tuple[Output, bool]]
    tensor: str
    id: str | None


def parse_header_length(value: str | None) -> int | None:
    """The header `HEADER_LENGTH`; None where there is none. Raises `MalformedBody`."""
    if value is None:
        return None
    if not (value.isascii() and value.isdecimal() and len(value) < 16):
        raise MalformedBody(f"Inference-Header-Content-Length {value[:64]!r} is not a number of bytes.")
    return int(value)


def parse_inference(
    body: bytes,
    header_length: int | None,
    modality: Modality,
    choices: OptionLimits,
    *,
    classifies: bool,
    max_inputs: int,
) -> Inference:
    """A body whose JSON is all of it, or its first `header_length` bytes.

    Raises `MalformedBody`, `InvalidParameter` (which names the tensor) or `TooManyInputs`.
    """
    if header_length is not None and header_length > len(body):
        raise MalformedBody(
            f"Inference-Header-Content-Length says {header_length} bytes of JSON, but the body has {len(body)}. "
            "Give the length of the JSON alone, in bytes."
        )
    request = _read(body if header_length is None else body[:header_length], modality, max_inputs)
    binary_tail = None if header_length is None else memoryview(body)[header_length:]
    return inference_of(request, binary_tail, modality, choices, classifies=classifies, max_inputs=max_inputs)


def inference_of(
    request: InferenceRequest,
    binary_tail: memoryview | None,
    modality: Modality,
    choices: OptionLimits,
    *,
    classifies: bool,
    max_inputs: int,
) -> Inference:
    """A request that is read, with the binary data `binary_tail` it. Raises `InvalidParameter` or `TooManyInputs`."""
    (tensor,) = request.inputs
    inputs = _inputs(tensor, binary_tail, modality, max_inputs)
    given = dict(request.parameters or {})
    for name in given:
        if name not in PARAMETERS:
            raise InvalidParameter(f"parameters.{name[:64]}", f"no such parameter; there are {', '.join(PARAMETERS)}")
    in_binary = given.pop(BINARY_OUTPUT, False)
    if not isinstance(in_binary, bool):
        raise InvalidParameter(f"parameters.{BINARY_OUTPUT}", "give true or false")
    options, outputs = _wanted(given, request.outputs, choices, classifies)
    return Inference(inputs, options, _in_form(outputs, request.outputs or [], in_binary), tensor.name, request.id)


async def score(
    pipeline: Pipeline,
    model: Model,
    inference: Inference,
    *,
    disconnected: asyncio.Future[None] | None,
    shadowed: bool,
) -> Sequence[ScoredInput]:
    """Score the inputs of `inference` by `Pipeline.score`, all or none; `InvalidInput` names the tensor's element."""
    try:
        results = await pipeline.score(
            model,
            inference.inputs,
            inference.options,
            disconnected=disconnected,
            shadowed=shadowed,
            all_or_nothing=True,
        )
    except InvalidInput as invalid:
        element = f"input {inference.tensor!r}, element {invalid.index}"
        error = replace(invalid.error, detail=f"{element}: {invalid.detail}")
        raise InvalidInput(error, invalid.index, None) from None
    return [result for result in results if isinstance(result, ScoredInput)]


def _read(text: bytes, modality: Modality, max_inputs: int) -> InferenceRequest:
    pixels = 0 if modality.pixel_shape is None else max(_JSON_PIXELS, math.prod(modality.pixel_shape))
    # A pixel of a single channel, nested, has two marks.
    if has_too_many_values(text, limit=16 * max_inputs + 1024 + 2 * pixels):
        remedy = "Send pixels as binary tensor data, or files as BYTES; or split" if pixels else "Split"
        raise TooManyInputs(f"The JSON has far more values than {max_inputs} inputs need. {remedy} the request.")
    return validated(InferenceRequest.model_validate_json, text, modality)


def validated(validate: Callable[[Any], InferenceRequest], given: Any, modality: Modality) -> InferenceRequest:
    """What `validate` makes of `given`. Raises `MalformedBody` or `InvalidParameter`."""
    try:
        return validate(given)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where, reason = first["loc"], first["msg"]
        if first["type"] == UNKNOWN_KEY:
            where, reason = (*where, first["ctx"]["key"]), "no such key; leave it out"
        elif not where:
            raise MalformedBody(f"The body is not an inference request in JSON: {reason}") from None
        elif where == ("inputs",):
            reason = f"give a list of one tensor, {modality.tensor_name!r}, that holds every input"
        raise InvalidParameter(".".join(map(str, where))[:128], reason) from None


def _inputs(tensor: InputTensor, binary_tail: memoryview | None, modality: Modality, max_inputs: int) -> list[Input]:
    if tensor.name != modality.tensor_name:
        raise InvalidParameter(f"input {tensor.name[:64]!r}", f"this model's input is {modality.tensor_name!r}")
    here = f"input {tensor.name!r}"
    data = _binary_data(here, tensor, binary_tail)
    count = _count(here, tensor, modality)
    if count > max_inputs:
        raise TooManyInputs(f"{here}: {count} inputs, more than {max_inputs} in one request. Split it into several.")
    if tensor.datatype == "BYTES":
        if data is None:
            strings = strings_from_json(tensor.name, tensor.data or [], tensor.shape)
            return [Input(modality.string_payload(text)) for text in strings]
        read = modality.body_reader({})
        return [Input(read(element)) for element in bytes_from_binary(tensor.name, data, count)]
    if data is None:
        pixels = uint8_from_json(tensor.name, tensor.data or [], tensor.shape)
    else:
        pixels = uint8_from_binary(tensor.name, data, tensor.shape)
    return [Input(Pixels(image)) for image in pixels]


def _binary_data(here: str, tensor: InputTensor, binary_tail: memoryview | None) -> memoryview | None:
    """The tensor's binary data; None where they are in the JSON."""
    size = None if tensor.parameters is None else tensor.parameters.binary_data_size
    if (size is None) == (tensor.data is None):
        raise InvalidParameter(here, "give either `data` or the parameter `binary_data_size`")
    if size is None:
        if binary_tail:
            raise InvalidParameter(
                here, f"{len(binary_tail)} bytes follow the JSON, but its data are in the JSON; send one of the two"
            )
        return None
    if binary_tail is None:
        raise InvalidParameter(
            here,
            "has binary_data_size, but the HTTP header Inference-Header-Content-Length, which tells where the JSON "
            "ends, is missing; send it",
        )
    if len(binary_tail) != size:
        raise InvalidParameter(
            here, f"binary_data_size is {size}, but {len(binary_tail)} bytes follow the JSON; correct it"
        )
    return binary_tail


def _count(here: str, tensor: InputTensor, modality: Modality) -> int:
    """N, of a datatype and shape that the model takes."""
    shape = tensor.shape
    taken = {"BYTES": ["[N]", "[N, 1]"]}
    fits = len(shape) == 1 or (len(shape) == 2 and shape[1] == 1)
    if modality.pixel_shape is not None:
        taken["UINT8"] = [f"[N, {', '.join(map(str, modality.pixel_shape))}]"]
        if tensor.datatype == "UINT8":
            fits = tuple(shape[1:]) == modality.pixel_shape
    if tensor.datatype not in taken:
        forms = "; ".join(f"{datatype} of shape {' or '.join(shapes)}" for datatype, shapes in taken.items())
        raise InvalidParameter(here, f"datatype {tensor.datatype[:64]!r} is not taken; send {forms}")
    if not fits or not shape[0]:
        forms = " or ".join(taken[tensor.datatype])
        raise InvalidParameter(here, f"shape {shape} does not fit; {tensor.datatype} has {forms}, N at least 1")
    return shape[0]


def _wanted(
    given: dict[str, Any], requested: Sequence[RequestedOutput] | None, choices: OptionLimits, classifies: bool
) -> tuple[Options, list[Output]]:
    offered = outputs_of(choices.scores, classifies)
    names = [each.name for each in requested] if requested else None
    scores = scores_of(names or (), offered)
    # Whoever asks for the outputs of some scores need not name the scores once more.
    options = parse_options({"scores": scores, **given} if scores else given, choices)
    return options, choose_outputs(names, offered, options)


def _in_form(
    outputs: Sequence[Output], requested: Sequence[RequestedOutput], in_binary: bool
) -> list[tuple[Output, bool]]:
    """Each output with whether its data are wanted in binary: its own parameter, else the request's."""
    own = {
        each.name: each.parameters.binary_data
        for each in requested
        if each.parameters is not None and each.parameters.binary_data is not None
    }
    return [(output, own.get(output.name, in_binary)) for output in outputs]
