"""Lists the external files that hold an ONNX graph's weights, without the `onnx` package.

ONNX Runtime opens any path that a graph names, but a bundle's graph may only name files that the manifest lists.
"""

from collections.abc import Iterator

# Message fields of onnx.proto that lead to tensors, as {message: {field number: message}}.
_CHILDREN = {
    "model": {7: "graph", 25: "function"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {13: "entry"},
}
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


def external_files(model: bytes) -> set[str]:
    """The `location` of every tensor stored outside of a serialised ONNX `model`.

    Raises:
        ValueError: `model` is not an ONNX graph.
    """
    try:
        return set(_locations(memoryview(model), "model"))
    except (IndexError, RecursionError) as error:
        raise ValueError("it is not an ONNX graph: the protobuf is truncated or too deep") from error


def _locations(data: memoryview, message: str) -> Iterator[str]:
    if message == "entry":
        fields = {number: bytes(value).decode("utf-8", "replace") for number, value in _fields(data)}
        if fields.get(1) == "location":
            yield fields.get(2, "")
        return
    children = _CHILDREN[message]
    for number, value in _fields(data):
        if number in children:
            yield from _locations(value, children[number])


def _fields(data: memoryview) -> Iterator[tuple[int, memoryview]]:
    """The number and content of each length-delimited field of a protobuf message; other fields are skipped."""
    position = 0
    while position < len(data):
        tag, position = _varint(data, position)
        wire_type = tag & 7
        if wire_type == _VARINT:
            _, position = _varint(data, position)
        elif wire_type == _BYTES:
            length, position = _varint(data, position)
            if position + length > len(data):
                raise ValueError("it is not an ONNX graph: the protobuf is truncated")
            yield tag >> 3, data[position : position + length]
            position += length
        elif wire_type in (_FIXED64, _FIXED32):
            position += 8 if wire_type == _FIXED64 else 4
        else:
            raise ValueError(f"it is not an ONNX graph: protobuf wire type {wire_type}")


def _varint(data: memoryview, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
