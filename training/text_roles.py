"""The meaning of each input of an ONNX model of texts, from its name, axes and type."""

from typing import Literal

from onnx import TensorProto

Role = Literal["tokens", "mask", "lengths", "types"]
"""The meaning of an input: token ids, attention mask, lengths, or token type ids."""

_INTEGERS = (TensorProto.INT64, TensorProto.INT32)


def role_of(name: str, axes: int, elem_type: int) -> Role | None:
    """The meaning of an input; None if it is none that a text gives.

    Args:
        name: The input's name.
        axes: The number of its axes.
        elem_type: Its element type, a value of `TensorProto.DataType`.
    """
    name, is_integer = name.lower(), elem_type in _INTEGERS
    if axes == 1 and is_integer:
        return "lengths"
    if axes == 2 and "mask" in name:
        return "mask"
    if axes == 2 and is_integer and "position" not in name:
        return "types" if "type" in name or "segment" in name else "tokens"
    return None


def is_of_token_ids(axes: int, elem_type: int) -> bool:
    """Whether an input of `axes` axes with `elem_type` can hold the token ids of texts `[N, L]`."""
    return axes == 2 and elem_type in _INTEGERS
