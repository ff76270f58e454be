"""Tensors between the wire and Python: JSON values, nested or flat, and the binary tensor data extension."""

import math
import struct
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.errors import InvalidParameter
from service.protocols.open_inference.schemas import Datatype

_NUMPY = {"BOOL": "?", "INT64": "<i8", "FP32": "<f4", "FP64": "<f8"}
_LENGTH = struct.Struct("<I")


def bytes_from_binary(name: str, data: memoryview, count: int) -> list[bytes]:
    """The `count` elements of the BYTES tensor `name`, each behind its length. Raises `InvalidParameter`."""
    elements: list[bytes] = []
    offset = 0
    for index in range(count):
        left = len(data) - offset
        if left < _LENGTH.size:
            raise _wrong(
                name,
                f"element {index} has no length: {left} bytes are left of {len(data)}, and a length is 4 bytes, "
                f"little-endian; shape says {count} elements",
            )
        (length,) = _LENGTH.unpack_from(data, offset)
        offset += _LENGTH.size
        if length > len(data) - offset:
            raise _wrong(
                name,
                f"element {index} claims {length} bytes, but {len(data) - offset} are left; put each element's own "
                "length, 4 bytes little-endian, in front of it",
            )
        elements.append(bytes(data[offset : offset + length]))
        offset += length
    if offset != len(data):
        raise _wrong(
            name, f"{len(data) - offset} bytes are left behind its {count} elements; correct shape, or leave them out"
        )
    return elements


def strings_from_json(name: str, data: list[Any], shape: Sequence[int]) -> list[str]:
    """The elements of the BYTES tensor `name`. Raises `InvalidParameter`."""
    values = _flat(name, data, shape)
    for index, value in enumerate(values):
        if not isinstance(value, str):
            raise _wrong(name, f"element {index} is no string; BYTES in JSON are strings, for an image base64")
    return values


def uint8_from_binary(name: str, data: memoryview, shape: Sequence[int]) -> NDArray[np.uint8]:
    """The UINT8 tensor `name`, a read-only view. Raises `InvalidParameter`."""
    if len(data) != math.prod(shape):
        raise _wrong(
            name,
            f"shape {list(shape)} is {math.prod(shape)} bytes, not {len(data)}; correct shape, or send as many",
        )
    return np.frombuffer(data, np.uint8).reshape(shape)


def uint8_from_json(name: str, data: list[Any], shape: Sequence[int]) -> NDArray[np.uint8]:
    """The UINT8 tensor `name`. Raises `InvalidParameter`."""
    values = _flat(name, data, shape)
    try:
        # A bool is an int to `bytes`, and nothing else is that is not meant as one.
        if bool in map(type, values):
            raise ValueError
        return np.frombuffer(bytes(values), np.uint8).reshape(shape)
    except (TypeError, ValueError, OverflowError):
        raise _wrong(name, "a value is no whole number from 0 to 255; send pixels as they are, not scaled") from None


def binary(datatype: Datatype, values: Sequence[Any]) -> bytes:
    """An output's `values` as binary tensor data: BYTES as UTF-8 behind their lengths, numbers little-endian."""
    if datatype == "BYTES":
        return bytes_to_binary(value.encode() for value in values)
    return np.array(values, _NUMPY[datatype]).tobytes()


def bytes_to_binary(elements: Iterable[bytes]) -> bytes:
    """The elements of a BYTES tensor, each behind its length."""
    return b"".join(chain.from_iterable((_LENGTH.pack(len(each)), each) for each in elements))


def _flat(name: str, data: list[Any], shape: Sequence[int]) -> list[Any]:
    """`data` row-major: it may be flat already, or nested as `shape` says."""
    values = data
    if isinstance(data[0] if data else None, list):
        for length in shape[1:]:
            if not all(isinstance(each, list) and len(each) == length for each in values):
                raise _wrong(name, f"data is not nested as its shape {list(shape)} says; nest it so, or send it flat")
            values = list(chain.from_iterable(values))
    if len(values) != math.prod(shape):
        raise _wrong(
            name, f"shape {list(shape)} has {math.prod(shape)} elements, data has {len(values)}; correct one of them"
        )
    return values


def _wrong(name: str, detail: str) -> InvalidParameter:
    return InvalidParameter(f"input {name!r}", detail)
