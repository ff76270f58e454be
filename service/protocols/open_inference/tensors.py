"""Converts tensors from and to JSON values and the binary tensor data extension."""

import math
import struct
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.errors import InvalidParameter
from service.protocols.open_inference.schemas import Datatype

_NUMPY = {
    **{"BOOL": "?", "FP16": "<f2", "FP32": "<f4", "FP64": "<f8"},
    **{"UINT8": "<u1", "UINT16": "<u2", "UINT32": "<u4", "UINT64": "<u8"},
    **{"INT8": "<i1", "INT16": "<i2", "INT32": "<i4", "INT64": "<i8"},
}
_LENGTH = struct.Struct("<I")


def bytes_from_binary(name: str, data: memoryview, count: int) -> list[bytes]:
    """Split binary data into the elements of a BYTES tensor.

    Args:
        name: The name of the tensor.
        data: The elements, each after its length (4 bytes, little-endian).
        count: The number of elements that the shape declares.

    Raises:
        InvalidParameter: The data are not `count` elements.
    """
    elements: list[bytes] = []
    offset = 0
    for index in range(count):
        remaining = len(data) - offset
        if remaining < _LENGTH.size:
            raise _invalid(
                name,
                f"element {index} has no length: {remaining} bytes are left of {len(data)}, and a length is 4 bytes, "
                f"little-endian; shape says {count} elements",
            )
        (length,) = _LENGTH.unpack_from(data, offset)
        offset += _LENGTH.size
        if length > len(data) - offset:
            raise _invalid(
                name,
                f"element {index} claims {length} bytes, but {len(data) - offset} are left; put each element's own "
                "length, 4 bytes little-endian, in front of it",
            )
        elements.append(bytes(data[offset : offset + length]))
        offset += length
    if offset != len(data):
        raise _invalid(
            name, f"{len(data) - offset} bytes are left behind its {count} elements; correct shape, or leave them out"
        )
    return elements


def strings_from_json(name: str, data: list[Any], shape: Sequence[int]) -> list[str]:
    """The strings of the BYTES tensor `name`, whose `data` are nested as `shape` or flat. Raises `InvalidParameter`."""
    values = _flat(name, data, shape)
    for index, value in enumerate(values):
        if not isinstance(value, str):
            raise _invalid(name, f"element {index} is no string; BYTES in JSON are strings, for an image base64")
    return values


def uint8_from_binary(name: str, data: memoryview, shape: Sequence[int]) -> NDArray[np.uint8]:
    """The UINT8 tensor `name` of `shape`, a read-only view of `data`. Raises `InvalidParameter`."""
    if len(data) != math.prod(shape):
        raise _invalid(
            name,
            f"shape {list(shape)} is {math.prod(shape)} bytes, not {len(data)}; correct shape, or send as many",
        )
    return np.frombuffer(data, np.uint8).reshape(shape)


def uint8_from_json(name: str, data: list[Any], shape: Sequence[int]) -> NDArray[np.uint8]:
    """The UINT8 tensor `name` of `shape`, whose `data` are nested as `shape` or flat. Raises `InvalidParameter`."""
    values = _flat(name, data, shape)
    try:
        # `bytes` takes a bool as an integer, and refuses every other type that is no integer.
        if bool in map(type, values):
            raise ValueError
        return np.frombuffer(bytes(values), np.uint8).reshape(shape)
    except (TypeError, ValueError, OverflowError):
        raise _invalid(name, "a value is no whole number from 0 to 255; send pixels as they are, not scaled") from None


def binary(datatype: Datatype, values: Sequence[Any]) -> bytes:
    """The `values` of an output as binary tensor data: BYTES as UTF-8 after their lengths, numbers little-endian."""
    if datatype == "BYTES":
        return bytes_to_binary(value.encode() for value in values)
    return np.array(values, _NUMPY[datatype]).tobytes()


def bytes_to_binary(elements: Iterable[bytes]) -> bytes:
    """The elements of a BYTES tensor, each after its length."""
    return b"".join(chain.from_iterable((_LENGTH.pack(len(element)), element) for element in elements))


def _flat(name: str, data: list[Any], shape: Sequence[int]) -> list[Any]:
    """The values of `data`, nested as `shape` or flat, in row-major order."""
    values = data
    if isinstance(data[0] if data else None, list):
        for length in shape[1:]:
            if not all(isinstance(row, list) and len(row) == length for row in values):
                raise _invalid(name, f"data is not nested as its shape {list(shape)} says; nest it so, or send it flat")
            values = list(chain.from_iterable(values))
    if len(values) != math.prod(shape):
        raise _invalid(
            name, f"shape {list(shape)} has {math.prod(shape)} elements, data has {len(values)}; correct one of them"
        )
    return values


def _invalid(name: str, detail: str) -> InvalidParameter:
    return InvalidParameter(f"input {name!r}", detail)
