"""Converts gRPC messages: requests to the form that JSON requests are parsed to, results and metadata to responses."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from google.protobuf.message import DecodeError
from tritonclient.grpc import service_pb2

from service.errors import InvalidParameter, MalformedBody, TooManyInputs
from service.inputs.modality import Modality
from service.protocols.open_inference.outputs import tensor_values
from service.protocols.open_inference.request import Inference, inference_of, validated
from service.protocols.open_inference.response import response_parameters
from service.protocols.open_inference.schemas import InferenceRequest, ModelMetadata, TensorMetadata
from service.protocols.open_inference.tensors import binary, bytes_to_binary
from service.repository.model import Model
from service.scoring.options import OptionLimits
from service.scoring.scored_input import ScoredInput

_CONTENTS = {"BYTES": "bytes_contents", "UINT8": "uint_contents"}
# The wire types of protobuf.
_VARINT, _EIGHT_BYTES, _LENGTH, _FOUR_BYTES = 0, 1, 2, 5
_MAX_VARINT_BYTES = 10
# Packed numbers, of at least a byte each, that together take less memory than any other value.
_NUMBERS_PER_VALUE = 32


def read_message(kind: Any, body: bytes, *, max_inputs: int, pixels: int) -> Any:
    """Parse a message, if it does not have too many values.

    Args:
        kind: The class of the message.
        body: The serialised message.
        max_inputs: The largest number of inputs.
        pixels: The number of pixel values of the largest input of any model.

    Raises:
        MalformedBody: The body is not a message of this kind.
        TooManyInputs: The message has far more values than `max_inputs` inputs need.
    """
    limit = 16 * max_inputs + 1024 + pixels // _NUMBERS_PER_VALUE
    try:
        if _count_values(memoryview(body), kind.DESCRIPTOR, limit) > limit:
            raise TooManyInputs(
                f"The message has far more values than {max_inputs} inputs need. Send pixels in raw_input_contents, or "
                "files as BYTES; or split the request."
            )
        return kind.FromString(body)
    except (IndexError, DecodeError):
        raise MalformedBody(f"The body is not a message {kind.DESCRIPTOR.full_name}.") from None


def parse_message(
    message: Any, modality: Modality, option_limits: OptionLimits, *, classifies: bool, max_inputs: int
) -> Inference:
    """Parse a `ModelInferRequest`.

    Args:
        message: The message.
        modality: The modality of the model.
        option_limits: The options that the model offers.
        classifies: Whether the model predicts classes.
        max_inputs: The largest number of inputs.

    Raises:
        InvalidParameter: The tensor, an output or a parameter is invalid.
        TooManyInputs: The tensor has more than `max_inputs` inputs.
    """
    tensors = [_tensor(tensor) for tensor in message.inputs]
    data = b""
    # The validation below rejects any other number of tensors.
    if len(tensors) == 1:
        # REST's parameter has no meaning here; some clients send it nevertheless.
        tensors[0]["parameters"].pop("binary_data_size", None)
        contents, data = _data(message.inputs[0], message.raw_input_contents)
        if contents is None:
            tensors[0]["parameters"]["binary_data_size"] = len(data)
        else:
            tensors[0]["data"] = contents
    content = {
        "id": message.id or None,
        "parameters": _parameters(message.parameters),
        "inputs": tensors,
        "outputs": [{"name": output.name, "parameters": _parameters(output.parameters)} for output in message.outputs],
    }
    request = validated(InferenceRequest.model_validate, content, modality)
    return inference_of(
        request, memoryview(data), modality, option_limits, classifies=classifies, max_inputs=max_inputs
    )


def inference_message(model: Model, inference: Inference, results: Sequence[ScoredInput]) -> Any:
    """The response, a `ModelInferResponse`: every output is in binary, whatever form the request asks for."""
    response = service_pb2.ModelInferResponse(model_name=model.name, model_version=model.version, id=inference.id or "")
    for output, _ in inference.outputs:
        shape, values = tensor_values(output, results)
        response.outputs.add(name=output.name, datatype=output.datatype, shape=shape)
        response.raw_output_contents.append(binary(output.datatype, values))
    for name, value in response_parameters(model, inference, results).items():
        setattr(response.parameters[name], "bool_param" if isinstance(value, bool) else "string_param", value)
    return response


def metadata_message(metadata: ModelMetadata) -> Any:
    """The metadata of a model, a `ModelMetadataResponse`, which has no field for the parameters of a tensor."""

    def tensors(metadata: Iterable[TensorMetadata]) -> list[dict[str, Any]]:
        return [tensor.model_dump(exclude={"parameters"}) for tensor in metadata]

    return service_pb2.ModelMetadataResponse(
        name=metadata.name,
        versions=metadata.versions,
        platform=metadata.platform,
        inputs=tensors(metadata.inputs),
        outputs=tensors(metadata.outputs),
    )


def _count_values(data: memoryview, descriptor: Any, limit: int) -> int:
    """The number of values in a message, counted without building them, and only until it exceeds `limit`.

    Sixteen megabytes of empty tensors would become seven hundred, and block all other requests for a second.
    """
    count = offset = 0
    while offset < len(data) and count <= limit:
        tag, offset = _varint(data, offset)
        count += 1
        if tag & 7 == _LENGTH:
            size, offset = _varint(data, offset)
            field = descriptor.fields_by_number.get(tag >> 3)
            if field is None or field.type in (field.TYPE_STRING, field.TYPE_BYTES):
                pass
            elif field.type == field.TYPE_MESSAGE:
                count += _count_values(data[offset : offset + size], field.message_type, limit - count)
            else:
                count += size // _NUMBERS_PER_VALUE
            offset += size
        elif tag & 7 == _VARINT:
            _, offset = _varint(data, offset)
        else:
            offset += {_EIGHT_BYTES: 8, _FOUR_BYTES: 4}.get(tag & 7, 0)
    return count


def _varint(data: memoryview, offset: int) -> tuple[int, int]:
    """The number at `offset`, and the offset after it."""
    number = 0
    for index in range(_MAX_VARINT_BYTES):
        byte = data[offset + index]
        number |= (byte & 0x7F) << 7 * index
        if byte < 0x80:
            return number, offset + index + 1
    raise DecodeError


def _tensor(tensor: Any) -> dict[str, Any]:
    return {
        "name": tensor.name,
        "datatype": tensor.datatype,
        "shape": list(tensor.shape),
        "parameters": _parameters(tensor.parameters),
    }


def _data(tensor: Any, raw: Sequence[bytes]) -> tuple[list[Any] | None, bytes]:
    """The data of a tensor: a list of numbers, or None and binary data."""
    parameter = f"input {tensor.name[:64]!r}"
    fields = tensor.contents.ListFields()
    if len(fields) + len(raw) != 1:
        raise InvalidParameter(
            parameter,
            f"its data come {len(fields) + len(raw)} times; give them once, in raw_input_contents or in one field of "
            "its contents",
        )
    if raw:
        return None, raw[0]
    ((field, values),) = fields
    expected = _CONTENTS.get(tensor.datatype, field.name)
    if field.name != expected:
        raise InvalidParameter(parameter, f"{tensor.datatype} is not in {field.name}; put it into {expected}")
    if field.type == field.TYPE_BYTES:
        return None, bytes_to_binary(values)
    return list(values), b""


def _parameters(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The value of each parameter; None for a parameter without a value."""
    return {
        name: getattr(parameter, field) if (field := parameter.WhichOneof("parameter_choice")) else None
        for name, parameter in parameters.items()
    }
