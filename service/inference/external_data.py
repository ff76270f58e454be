"""Lists the external files that hold an ONNX graph's weights, without the `onnx` package.

ONNX Runtime opens any path that a graph names, but a bundle's graph may only name files that the manifest lists.
"""

from collections.abc import Iterator

from service.inference.protobuf import fields

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
        entry = {
            field.number: bytes(field.content).decode("utf-8", "replace") for field in fields(data) if field.content
        }
        if entry.get(1) == "location":
            yield entry.get(2, "")
        return
    children = _CHILDREN[message]
    for field in fields(data):
        if field.content is not None and field.number in children:
            yield from _locations(field.content, children[field.number])
