"""An opened image: its size and orientation are known, its pixels are not decoded yet."""

from collections.abc import Callable
from dataclasses import dataclass

from PIL import Image

from bundle.errors import ImageTooLarge

MAX_PASSES = 32
"""How often a decoder may pass over the pixels of the largest image; smaller images may need more passes."""


@dataclass(frozen=True, slots=True)
class DecodeLimits:
    """Limits on the size of one image and on the work of decoding it.

    The work is pixels times passes. A pass is one scan of a JPEG or one frame of an AVIF, and everything that the
    other formats need. The limit is `MAX_PASSES` passes over an image of `max_pixels`.
    """

    max_pixels: int

    def check(self, width: int, height: int, *, passes: int = 1) -> None:
        """Raise the error of an image of this size that needs `passes` passes, if it has one.

        Raises:
            ValueError: The image has no pixels.
            ImageTooLarge: The image has too many pixels, or needs too many passes for its size.
        """
        if width <= 0 or height <= 0:
            raise ValueError(f"the size is {width} x {height}")
        if width * height > self.max_pixels:
            raise ImageTooLarge(
                f"the image is {width} x {height} pixels, more than the limit of {self.max_pixels:,}; "
                "send a smaller one"
            )
        self.check_work(width * height, passes)

    def check_work(self, pixels: int, passes: int) -> None:
        """Raise `ImageTooLarge` if decoding `pixels` in `passes` passes is more work than the limit."""
        if pixels * passes > MAX_PASSES * self.max_pixels:
            raise ImageTooLarge(
                f"decoding the image takes {passes:,} passes over {pixels:,} pixels, more work than the limit of "
                f"{MAX_PASSES} passes over {self.max_pixels:,} pixels; save it again as a JPEG or PNG with the usual "
                "settings"
            )


@dataclass(frozen=True, slots=True)
class OpenedImage:
    """An image whose headers are checked.

    Attributes:
        width: The stored width, before the image is turned upright.
        height: The stored height.
        decode: Decodes the pixels. Its argument is the smallest side in pixels that is large enough; a decoder that
            cannot scale ignores it. Raises any exception for corrupt pixels. To be called once.
        orientation: The orientation as in EXIF, 1 (upright) to 8.
    """

    width: int
    height: int
    decode: Callable[[int], Image.Image]
    orientation: int = 1

    @property
    def pixels(self) -> int:
        """The number of pixels that the headers declare."""
        return self.width * self.height


def loaded(image: Image.Image) -> Image.Image:
    """`image` with its pixels decoded."""
    image.load()
    return image
