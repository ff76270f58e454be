"""Removes outputs from an ONNX graph with all that only they need, without the `onnx` package.

ONNX Runtime computes every node of a graph, whichever outputs a call asks for and whichever the graph has.
"""

from collections.abc import Collection, Iterator

from service.inference.protobuf import Field, fields, message_field

# Field numbers of onnx.proto.
_GRAPH_OF_MODEL = 7
_NODE, _INITIALIZER, _OUTPUT = 1, 5, 12
_INPUT_OF_NODE, _OUTPUT_OF_NODE, _ATTRIBUTE_OF_NODE = 1, 2, 5
_SUBGRAPHS_OF_ATTRIBUTE = (6, 11)
_NAME_OF_OUTPUT, _NAME_OF_TENSOR = 1, 8
_NAMES = {_NODE: _OUTPUT_OF_NODE, _INITIALIZER: _NAME_OF_TENSOR, _OUTPUT: _NAME_OF_OUTPUT}
"""The fields of a graph that may be removed, with the field of their names."""


def without_outputs(model: bytes, names: Collection[str]) -> bytes:
    """A serialised ONNX `model` without the outputs `names` and the nodes and weights that only they need."""
    encoded = bytearray()
    for field in fields(memoryview(model)):
        if field.number == _GRAPH_OF_MODEL and field.content is not None:
            encoded += message_field(_GRAPH_OF_MODEL, _without_outputs(list(fields(field.content)), names))
        else:
            encoded += field.encoded
    return bytes(encoded)


def _without_outputs(graph: list[Field], names: Collection[str]) -> bytes:
    outputs = {name for field in graph if field.number == _OUTPUT for name in _texts(field, _NAME_OF_OUTPUT)}
    needed = outputs.difference(names)
    # ONNX Runtime reads graphs whose nodes are not in the order of their computation.
    producers = {name: field for field in graph if field.number == _NODE for name in _texts(field, _OUTPUT_OF_NODE)}
    pending = list(needed)
    while pending:
        producer = producers.get(pending.pop())
        if producer is not None:
            new = set(_read_by(producer)) - needed
            needed |= new
            pending += new
    return b"".join(
        field.encoded
        for field in graph
        if field.number not in _NAMES or not needed.isdisjoint(_texts(field, _NAMES[field.number]))
    )


def _read_by(node: Field) -> Iterator[str]:
    """The names of the tensors that a node reads, and all those of its subgraphs, which may read outer tensors."""
    yield from _texts(node, _INPUT_OF_NODE)
    for attribute in _children(node, _ATTRIBUTE_OF_NODE):
        for number in _SUBGRAPHS_OF_ATTRIBUTE:
            for subgraph in _children(attribute, number):
                for inner in _children(subgraph, _NODE):
                    yield from _read_by(inner)
                for output in _children(subgraph, _OUTPUT):
                    yield from _texts(output, _NAME_OF_OUTPUT)


def _children(message: Field, number: int) -> Iterator[Field]:
    assert message.content is not None, "the field is a message"
    return (field for field in fields(message.content) if field.number == number and field.content is not None)


def _texts(message: Field, number: int) -> Iterator[str]:
    # The empty text stands for an optional tensor that is left out.
    return (str(field.content, "utf-8") for field in _children(message, number) if field.content)
