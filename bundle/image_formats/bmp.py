"""Opens BMP files. Run-length encoded ones are refused: Pillow decodes them byte by byte in Python."""

from io import BytesIO

from PIL.BmpImagePlugin import BmpImageFile

from bundle.errors import UndecodableImage
from bundle.image_formats.opened_image import DecodeLimits, OpenedImage, loaded


def open_bmp(data: bytes, limits: DecodeLimits) -> OpenedImage:
    """Open a BMP file. See `bundle.image_formats.open_image`."""
    image = BmpImageFile(BytesIO(data))
    limits.check(image.width, image.height)
    if any(tile.codec_name != "raw" for tile in image.tile):
        raise UndecodableImage(
            "the bytes are a run-length encoded BMP image (RLE), which is not decoded; save it without compression or "
            "as a PNG"
        )
    return OpenedImage(image.width, image.height, lambda _: loaded(image))
