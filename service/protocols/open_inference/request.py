"""Parses the body of a request to inputs, options and the requested outputs, and scores them."""

import asyncio
import base64
import binascii
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pydantic import ValidationError

from service.errors import InvalidInput, InvalidParameter, MalformedBody, TooManyInputs
from service.http.json_text import has_too_many_values, to_utf8
from service.inputs.modality import Modality
from service.inputs.payloads import Input, Payload, Pixels
from service.pipeline import Pipeline
from service.protocols.open_inference.annotations import BINARY_OUTPUT, PARAMETERS, PARAMETERS_LOCATION, Annotations
from service.protocols.open_inference.outputs import Output, choose_outputs, outputs_of, scores_of
from service.protocols.open_inference.schemas import InferenceRequest, InputTensor, RequestedOutput
from service.protocols.open_inference.tensors import (
    bytes_from_binary,
    strings_from_json,
    uint8_from_binary,
    uint8_from_json,
)
from service.repository.model import Model
from service.scoring.options import OptionLimits, Options, parse_options
from service.scoring.scored_input import ScoredInput

HEADER_LENGTH = "inference-header-content-length"
"""The HTTP header with the length of the JSON, if binary tensors follow it."""

# The most pixels in JSON, unless one image has more. They become objects one by one, on the event loop; binary data are
# used as they are.
_JSON_PIXELS = 2**17


@dataclass(frozen=True, slots=True)
class Inference:
    """A parsed request.

    Attributes:
        inputs: The inputs to score.
        options: The options of the request.
        outputs: The outputs in the order of the response, each with whether its data are requested in binary.
        tensor: The name of the input tensor.
        id: The client's id of the request.
    """

    inputs: list[Input]
    options: Options
    outputs: list[tuple[Output, bool]]
    tensor: str
    id: str | None


def parse_header_length(value: str | None) -> int | None:
    """Parse the value of the header `HEADER_LENGTH`, None without that header. Raises `MalformedBody`."""
    if value is None:
        return None
    if not (value.isascii() and value.isdecimal() and len(value) < 16):
        raise MalformedBody(f"Inference-Header-Content-Length {value[:64]!r} is not a number of bytes.")
    return int(value)


def parse_inference(
    body: bytes,
    header_length: int | None,
    modality: Modality,
    option_limits: OptionLimits,
    *,
    classifies: bool,
    max_inputs: int,
) -> Inference:
    """Parse a body.

    Args:
        body: JSON, and after it the binary data of the tensor.
        header_length: The length of the JSON in bytes; None if the body is JSON only.
        modality: The modality of the model.
        option_limits: The options that the model offers.
        classifies: Whether the model predicts classes.
        max_inputs: The largest number of inputs.

    Raises:
        MalformedBody: The body is not the JSON of a request, or shorter than `header_length`.
        InvalidParameter: The tensor, an output or a parameter is invalid.
        TooManyInputs: The tensor has more than `max_inputs` inputs.
    """
    if header_length is not None and header_length > len(body):
        raise MalformedBody(
            f"Inference-Header-Content-Length says {header_length} bytes of JSON, but the body has {len(body)}. "
            "Give the length of the JSON alone, in bytes."
        )
    request = _read(body if header_length is None else body[:header_length], modality, max_inputs)
    binary_tail = None if header_length is None else memoryview(body)[header_length:]
    return inference_of(request, binary_tail, modality, option_limits, classifies=classifies, max_inputs=max_inputs)


def inference_of(
    request: InferenceRequest,
    binary_tail: memoryview | None,
    modality: Modality,
    option_limits: OptionLimits,
    *,
    classifies: bool,
    max_inputs: int,
) -> Inference:
    """Interpret a validated request.

    Args:
        request: The JSON of the request.
        binary_tail: The bytes after the JSON; None if the request declares no binary data.
        modality: The modality of the model.
        option_limits: The options that the model offers.
        classifies: Whether the model predicts classes.
        max_inputs: The largest number of inputs.

    Raises:
        InvalidParameter: The tensor, an output or a parameter is invalid.
        TooManyInputs: The tensor has more than `max_inputs` inputs.
    """
    (tensor,) = request.inputs
    _check_unknown_keys(request, tensor)
    inputs = _inputs(tensor, binary_tail, modality, max_inputs)
    parameters = {name: value for name, value in (request.parameters or {}).items() if name in PARAMETERS}
    in_binary = parameters.pop(BINARY_OUTPUT, False)
    if not isinstance(in_binary, bool):
        raise InvalidParameter(f"parameters.{BINARY_OUTPUT}", "give true or false")
    requested = request.outputs or []
    text_input = modality.pixel_shape is None
    offered = outputs_of(option_limits.scores, classifies, text_input, option_limits.model_outputs)
    options, outputs = _options_and_outputs(parameters, requested, option_limits, offered)
    return Inference(inputs, options, _with_form(outputs, requested, in_binary), tensor.name, request.id)


async def score(
    pipeline: Pipeline,
    model: Model,
    inference: Inference,
    *,
    disconnected: asyncio.Future[None] | None,
    shadowed: bool,
) -> Sequence[ScoredInput]:
    """Score the inputs of a request, all or none of them.

    It raises the same problems as `Pipeline.score`; `InvalidInput` names the element of the tensor.
    """
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
    text = to_utf8(text)
    # A nested pixel of a single channel counts as two values.
    if has_too_many_values(text, limit=16 * max_inputs + 1024 + 2 * pixels):
        remedy = "Send pixels as binary tensor data, or files as BYTES; or split" if pixels else "Split"
        raise TooManyInputs(f"The JSON has far more values than {max_inputs} inputs need. {remedy} the request.")
    return validated(InferenceRequest.model_validate_json, text, modality)


def validated(validate: Callable[[Any], InferenceRequest], content: Any, modality: Modality) -> InferenceRequest:
    """Validate a request by pydantic, and turn its first error into a problem.

    Args:
        validate: Validates `content`, for example `InferenceRequest.model_validate_json`.
        content: The request, as `validate` takes it.
        modality: The modality of the model, whose tensor the message names.

    Raises:
        MalformedBody: The content is not the JSON object of a request.
        InvalidParameter: A member is wrong; the problem names it.
    """
    try:
        return validate(content)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        location, reason = first["loc"], first["msg"]
        if not location:
            raise MalformedBody(f"The body is not an inference request in JSON: {reason}") from None
        if location == ("inputs",):
            reason = f"give a list of one tensor, {modality.tensor_name!r}, that holds every input"
        raise InvalidParameter(".".join(map(str, location))[:128], reason) from None


def _check_unknown_keys(request: InferenceRequest, tensor: InputTensor) -> None:
    annotations = Annotations()
    annotations.check("", request.model_extra or ())
    annotations.check(PARAMETERS_LOCATION, (name for name in request.parameters or () if name not in PARAMETERS))
    objects: list[tuple[str, InputTensor | RequestedOutput]] = [("inputs.0.", tensor)]
    objects += [(f"outputs.{index}.", output) for index, output in enumerate(request.outputs or ())]
    for location, item in objects:
        annotations.check(location, item.model_extra or ())
        if item.parameters is not None:
            annotations.check(f"{location}{PARAMETERS_LOCATION}", item.parameters.model_extra or ())


def _inputs(tensor: InputTensor, binary_tail: memoryview | None, modality: Modality, max_inputs: int) -> list[Input]:
    if tensor.name != modality.tensor_name:
        raise InvalidParameter(f"input {tensor.name[:64]!r}", f"this model's input is {modality.tensor_name!r}")
    parameter = f"input {tensor.name!r}"
    data = _binary_data(parameter, tensor, binary_tail)
    count = _count(parameter, tensor, modality)
    if count > max_inputs:
        raise TooManyInputs(
            f"{parameter}: {count} inputs, more than {max_inputs} in one request. Split it into several."
        )
    if tensor.datatype == "BYTES":
        return [Input(payload) for payload in _payloads(tensor, data, count, modality)]
    if data is None:
        pixels = uint8_from_json(tensor.name, tensor.data or [], tensor.shape)
    else:
        pixels = uint8_from_binary(tensor.name, data, tensor.shape)
    return [Input(Pixels(image)) for image in pixels]


def _payloads(tensor: InputTensor, data: memoryview | None, count: int, modality: Modality) -> Iterator[Payload]:
    """The payload of each element of a BYTES tensor."""
    read = modality.body_reader({})
    in_base64 = tensor.parameters is not None and tensor.parameters.content_type == "base64"
    if data is not None:
        for element in bytes_from_binary(tensor.name, data, count):
            yield read(_from_base64(element) if in_base64 else element)
        return
    for text in strings_from_json(tensor.name, tensor.data or [], tensor.shape):
        # In JSON, images are in base64 anyway.
        if in_base64 and modality.pixel_shape is None:
            yield read(_from_base64(text.encode()))
        else:
            yield modality.string_payload(text)


def _from_base64(element: bytes) -> bytes:
    """Decode an element; as MLServer does, return one that is not base64 as it is."""
    try:
        return base64.b64decode(element, validate=True)
    except binascii.Error:
        return element


def _binary_data(parameter: str, tensor: InputTensor, binary_tail: memoryview | None) -> memoryview | None:
    """The binary data of the tensor; None if its data are in the JSON. `parameter` names the tensor in errors."""
    size = None if tensor.parameters is None else tensor.parameters.binary_data_size
    if (size is None) == (tensor.data is None):
        raise InvalidParameter(parameter, "give either `data` or the parameter `binary_data_size`")
    if size is None:
        if binary_tail:
            raise InvalidParameter(
                parameter,
                f"{len(binary_tail)} bytes follow the JSON, but its data are in the JSON; send one of the two",
            )
        return None
    if binary_tail is None:
        raise InvalidParameter(
            parameter,
            "has binary_data_size, but the HTTP header Inference-Header-Content-Length, which tells where the JSON "
            "ends, is missing; send it",
        )
    if len(binary_tail) != size:
        raise InvalidParameter(
            parameter, f"binary_data_size is {size}, but {len(binary_tail)} bytes follow the JSON; correct it"
        )
    return binary_tail


def _count(parameter: str, tensor: InputTensor, modality: Modality) -> int:
    """The number of inputs in the tensor, whose datatype and shape must be those that the model takes."""
    shape = tensor.shape
    shapes = {"BYTES": ["[N]", "[N, 1]"]}
    fits = len(shape) == 1 or (len(shape) == 2 and shape[1] == 1)
    if modality.pixel_shape is not None:
        shapes["UINT8"] = [f"[N, {', '.join(map(str, modality.pixel_shape))}]"]
        if tensor.datatype == "UINT8":
            fits = tuple(shape[1:]) == modality.pixel_shape
    if tensor.datatype not in shapes:
        forms = "; ".join(f"{datatype} of shape {' or '.join(forms)}" for datatype, forms in shapes.items())
        raise InvalidParameter(parameter, f"datatype {tensor.datatype[:64]!r} is not taken; send {forms}")
    if not fits or not shape[0]:
        forms = " or ".join(shapes[tensor.datatype])
        raise InvalidParameter(parameter, f"shape {shape} does not fit; {tensor.datatype} has {forms}, N at least 1")
    return shape[0]


def _options_and_outputs(
    parameters: dict[str, Any],
    requested: Sequence[RequestedOutput],
    option_limits: OptionLimits,
    offered: Mapping[str, Output],
) -> tuple[Options, list[Output]]:
    names = [output.name for output in requested] or None
    scores = scores_of(names or (), offered)
    # The requested outputs imply their scores, unless the parameter `scores` names others.
    options = parse_options({"scores": scores, **parameters} if scores else parameters, option_limits)
    outputs = choose_outputs(names, offered, options)
    own = tuple(output.name for output in outputs if output.is_own)
    return (replace(options, model_outputs=own) if own else options), outputs


def _with_form(
    outputs: Sequence[Output], requested: Sequence[RequestedOutput], in_binary: bool
) -> list[tuple[Output, bool]]:
    """Each output with whether its data are requested in binary: by its own parameter, else by `in_binary`."""
    forms = {
        output.name: output.parameters.binary_data
        for output in requested
        if output.parameters is not None and output.parameters.binary_data is not None
    }
    return [(output, forms.get(output.name, in_binary)) for output in outputs]
