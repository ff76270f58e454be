"""Reads the fields of serialised protobuf messages, without the `protobuf` and `onnx` packages."""

from collections.abc import Iterator
from typing import NamedTuple

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_NO_GRAPH = "it is not an ONNX graph: "


class Field(NamedTuple):
    """One field of a message.

    Attributes:
        number: The field's number in the schema.
        content: The bytes of a message, string or array; None for numbers.
        encoded: The field with its tag and length, as it stands in the message.
    """

    number: int
    content: memoryview | None
    encoded: memoryview


def fields(data: memoryview) -> Iterator[Field]:
    """The fields of the message `data` in their order.

    Raises:
        ValueError, IndexError: `data` is not a protobuf message.
    """
    position = 0
    while position < len(data):
        start = position
        tag, position = _varint(data, position)
        wire_type = tag & 7
        content = None
        if wire_type == _VARINT:
            _, position = _varint(data, position)
        elif wire_type == _BYTES:
            length, position = _varint(data, position)
            if position + length > len(data):
                raise ValueError(f"{_NO_GRAPH}the protobuf is truncated")
            content = data[position : position + length]
            position += length
        elif wire_type in (_FIXED64, _FIXED32):
            position += 8 if wire_type == _FIXED64 else 4
        else:
            raise ValueError(f"{_NO_GRAPH}protobuf wire type {wire_type}")
        yield Field(tag >> 3, content, data[start:position])


def message_field(number: int, content: bytes) -> bytes:
    """The encoded field `number` with the message `content`."""
    return _encoded_varint(number << 3 | _BYTES) + _encoded_varint(len(content)) + content


def _varint(data: memoryview, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7


def _encoded_varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
