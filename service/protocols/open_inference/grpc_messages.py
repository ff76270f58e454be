"""The protocol's gRPC messages: a request to what the parser makes of JSON, results and metadata to answers."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from google.protobuf.message import DecodeError
from tritonclient.grpc import service_pb2

from service.errors import InvalidParameter, MalformedBody, TooManyInputs
from service.inputs.modality import Modality
from service.protocols.open_inference.request import Inference, inference_of, validated
from service.protocols.open_inference.schemas import InferenceRequest, ModelMetadata, TensorMetadata
from service.protocols.open_inference.tensors import binary, bytes_to_binary
from service.repository.model import Model
from service.scoring.options import OptionLimits
from service.scoring.scored_input import ScoredInput

_CONTENTS = {"BYTES": "bytes_contents", "UINT8": "uint_contents"}
# How a value lies in a message: protobuf's wire types.
_VARINT, _EIGHT_BYTES, _LENGTH, _FOUR_BYTES = 0, 1, 2, 5
_LONGEST_VARINT = 10
# Numbers lie side by side, of a byte or more each: so many weigh less than any other value.
_NUMBERS = 32


def read_message(kind: Any, body: bytes, *, max_inputs: int, pixels: int) -> Any:
    """The message of this `kind`; `pixels` has the largest input. Raises `MalformedBody` or `TooManyInputs`."""
    most = 16 * max_inputs + 1024 + pixels // _NUMBERS
    try:
        if _values(memoryview(body), kind.DESCRIPTOR, most) > most:
            raise TooManyInputs(
                f"The message has far more values than {max_inputs} inputs need. Send pixels in raw_input_contents, or "
                "files as BYTES; or split the request."
            )
        return kind.FromString(body)
    except (IndexError, DecodeError):
        raise MalformedBody(f"The body is not a message {kind.DESCRIPTOR.full_name}.") from None


def parse_message(
    message: Any, modality: Modality, choices: OptionLimits, *, classifies: bool, max_inputs: int
) -> Inference:
    """A `ModelInferRequest`. Raises `InvalidParameter` (which names the tensor) or `TooManyInputs`."""
    tensors = [_tensor(tensor) for tensor in message.inputs]
    data = b""
    # Any other number of them is refused by its validation.
    if len(tensors) == 1:
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
    return inference_of(request, memoryview(data), modality, choices, classifies=classifies, max_inputs=max_inputs)


def inference_message(model: Model, inference: Inference, results: Sequence[ScoredInput]) -> Any:
    """The answer, a `ModelInferResponse`: every output in binary, whatever form was asked for."""
    answer = service_pb2.ModelInferResponse(model_name=model.name, model_version=model.version, id=inference.id or "")
    for output, _ in inference.outputs:
        values = [output.read(result) for result in results]
        answer.outputs.add(name=output.name, datatype=output.datatype, shape=[len(values)])
        answer.raw_output_contents.append(binary(output.datatype, values))
    if warnings := model.scorer.warnings(inference.options):
        answer.parameters["warnings"].string_param = "; ".join(warnings)
    return answer


def metadata_message(metadata: ModelMetadata) -> Any:
    """A model by its tensors, a `ModelMetadataResponse`, which has no place for an input's other form."""

    def tensors(described: Iterable[TensorMetadata]) -> list[dict[str, Any]]:
        return [each.model_dump(exclude={"parameters"}) for each in described]

    return service_pb2.ModelMetadataResponse(
        name=metadata.name,
        versions=metadata.versions,
        platform=metadata.platform,
        inputs=tensors(metadata.inputs),
        outputs=tensors(metadata.outputs),
    )


def _values(data: memoryview, descriptor: Any, most: int) -> int:
    """How many values `data`, a message of this kind, would become, counted only until they are more than `most`.

    Sixteen megabytes of empty tensors would become seven hundred, and hold up all other requests for a second.
    """
    count = offset = 0
    while offset < len(data) and count <= most:
        tag, offset = _varint(data, offset)
        count += 1
        if tag & 7 == _LENGTH:
            size, offset = _varint(data, offset)
            field = descriptor.fields_by_number.get(tag >> 3)
            if field is None or field.type in (field.TYPE_STRING, field.TYPE_BYTES):
                pass
            elif field.type == field.TYPE_MESSAGE:
                count += _values(data[offset : offset + size], field.message_type, most - count)
            else:
                count += size // _NUMBERS
            offset += size
        elif tag & 7 == _VARINT:
            _, offset = _varint(data, offset)
        else:
            offset += {_EIGHT_BYTES: 8, _FOUR_BYTES: 4}.get(tag & 7, 0)
    return count


def _varint(data: memoryview, offset: int) -> tuple[int, int]:
    """The number at `offset`, and the offset behind it."""
    number = 0
    for index in range(_LONGEST_VARINT):
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
    """A tensor's numbers, or else its data in binary."""
    here = f"input {tensor.name[:64]!r}"
    fields = tensor.contents.ListFields()
    if len(fields) + len(raw) != 1:
        raise InvalidParameter(
            here,
            f"its data come {len(fields) + len(raw)} times; give them once, in raw_input_contents or in one field of "
            "its contents",
        )
    if raw:
        return None, raw[0]
    ((field, values),) = fields
    wanted = _CONTENTS.get(tensor.datatype, field.name)
    if field.name != wanted:
        raise InvalidParameter(here, f"{tensor.datatype} is not in {field.name}; put it into {wanted}")
    if field.type == field.TYPE_BYTES:
        return None, bytes_to_binary(values)
    return list(values), b""


def _parameters(given: Mapping[str, Any]) -> dict[str, Any]:
    """Each parameter's value; None for one that has none."""
    return {
        name: getattr(choice, which) if (which := choice.WhichOneof("parameter_choice")) else None
        for name, choice in given.items()
    }
