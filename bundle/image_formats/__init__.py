"""Opens encoded images of each accepted format and checks their headers before any pixel is decoded.

Each module passes only the parts of a file that determine its pixels to Pillow. Metadata is skipped without being
expanded, so that neither its size nor its number of parts matters.
"""

from bundle.image_formats.open_image import DECODED_FORMATS, IMAGE_SUFFIXES, open_image
from bundle.image_formats.opened_image import DecodeLimits, OpenedImage
from bundle.image_formats.signature import format_name

__all__ = ["DECODED_FORMATS", "IMAGE_SUFFIXES", "DecodeLimits", "OpenedImage", "format_name", "open_image"]
