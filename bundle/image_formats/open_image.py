"""Opens an image of any accepted format, which its first bytes determine."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

from bundle.errors import EmptyImage, UndecodableImage
from bundle.image_formats.avif import open_avif
from bundle.image_formats.bmp import open_bmp
from bundle.image_formats.gif import open_gif
from bundle.image_formats.jpeg import open_jpeg
from bundle.image_formats.opened_image import DecodeLimits, OpenedImage
from bundle.image_formats.png import open_png
from bundle.image_formats.pnm import open_pnm
from bundle.image_formats.signature import format_name
from bundle.image_formats.tiff import open_tiff
from bundle.image_formats.webp import open_webp

DECODED_FORMATS = "PNG, JPEG, WebP, AVIF, GIF, TIFF, BMP or PNM (PBM, PGM, PPM)"
"""The accepted formats in words."""

IMAGE_SUFFIXES = (
    *(".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".avif", ".gif", ".tif", ".tiff", ".bmp", ".dib"),
    *(".pbm", ".pgm", ".ppm", ".pnm"),
)
"""The usual file suffixes of the accepted formats, in lower case; decoding decides what a file really holds."""

_OPEN: Mapping[str, Callable[[bytes, DecodeLimits], OpenedImage]] = MappingProxyType(
    {
        "PNG": open_png,
        "JPEG": open_jpeg,
        "WebP": open_webp,
        "AVIF": open_avif,
        "GIF": open_gif,
        "TIFF": open_tiff,
        "BMP": open_bmp,
        "PNM": open_pnm,
    }
)


def open_image(data: bytes, limits: DecodeLimits) -> OpenedImage:
    """Read the headers of an encoded image and check them against `limits`.

    Raises:
        EmptyImage: There are no bytes.
        ImageTooLarge: The image has too many pixels, or decoding it takes too much work.
        UndecodableImage: The format is not accepted.
        Exception: Any other exception for corrupt headers.
    """
    if not data:
        raise EmptyImage(f"the image is empty (0 bytes); send the bytes of a {DECODED_FORMATS} file")
    name = format_name(data)
    if name is None:
        raise UndecodableImage(f"the bytes are no image of a known format; send a {DECODED_FORMATS} file")
    if name in _OPEN:
        return _OPEN[name](data, limits)
    raise UndecodableImage(f"the bytes are {name}, which is not decoded; convert the image to {DECODED_FORMATS}")
