"""Opens WebP files. Of an animation the first frame counts."""

from io import BytesIO

from PIL.WebPImagePlugin import WebPImageFile

from bundle.image_formats.opened_image import DecodeLimits, OpenedImage, loaded
from bundle.orientation import Orientation


def open_webp(data: bytes, limits: DecodeLimits) -> OpenedImage:
    """Open a WebP file. See `bundle.image_formats.open_image`."""
    # libwebp allocates the canvas when it opens the file.
    limits.check(*_size(data))
    image = WebPImageFile(BytesIO(data))
    limits.check(image.width, image.height)
    orientation = Orientation()
    orientation.read_exif(image.info.get("exif", b""))
    orientation.read_xmp(image.info.get("xmp", b""))
    return OpenedImage(image.width, image.height, lambda _: loaded(image), orientation.value)


def _size(data: bytes) -> tuple[int, int]:
    """The size in the header (WebP container specification); 1 x 1 for an unknown header, which Pillow refuses."""
    kind = data[12:16]
    if kind == b"VP8X":
        return int.from_bytes(data[24:27], "little") + 1, int.from_bytes(data[27:30], "little") + 1
    if kind == b"VP8 ":
        return int.from_bytes(data[26:28], "little") & 0x3FFF, int.from_bytes(data[28:30], "little") & 0x3FFF
    if kind == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    return 1, 1
