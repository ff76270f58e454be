import struct

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bundle.orientation import Orientation


def exif_orientation(exif: bytes) -> int:
    orientation = Orientation()
    orientation.read_exif(exif)
    return orientation.value


def exif(order: str, orientation: int, kind: int = 3, prefix: bytes = b"Exif\0\0") -> bytes:
    """EXIF data with two tags, the second the orientation."""
    start = {"<": b"II*\0", ">": b"MM\0*"}[order] + struct.pack(f"{order}IH", 8, 2)
    other = struct.pack(f"{order}HHII", 0x0100, 4, 1, 640)
    return prefix + start + other + struct.pack(f"{order}HHIHH", 0x0112, kind, 1, orientation, 0) + b"\0" * 4


@pytest.mark.parametrize("prefix", [b"Exif\0\0", b""], ids=["JPEG", "WebP"])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_orientation_is_read_in_either_byte_order(order: str, orientation: int, prefix: bytes) -> None:
    assert exif_orientation(exif(order, orientation, prefix=prefix)) == orientation


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_an_orientation_that_does_not_exist_is_upright(orientation: int) -> None:
    assert exif_orientation(exif("<", orientation)) == 1


def test_an_orientation_of_another_type_is_upright() -> None:
    assert exif_orientation(exif("<", 6, kind=2)) == 1


def test_exif_without_an_orientation_is_upright() -> None:
    assert exif_orientation(b"MM\0*" + struct.pack(">IH", 8, 0)) == 1


@given(st.binary(max_size=60).map(lambda data: b"II*\0" + data) | st.binary(max_size=60))
@example(b"II*\0\xff\xff\xff\xff")
@example(b"MM\0*\0\0\0\x08\xff\xff")
def test_any_bytes_give_an_orientation(data: bytes) -> None:
    assert 1 <= exif_orientation(data) <= 8


@given(cut=st.integers(0, 40), order=st.sampled_from(["<", ">"]))
def test_truncated_exif_is_upright_or_right(cut: int, order: str) -> None:
    assert exif_orientation(exif(order, 6)[:cut]) in (1, 6)
