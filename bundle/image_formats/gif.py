"""Opens GIF files (GIF89a specification). Of an animation the first frame counts."""

from io import BytesIO

from PIL.GifImagePlugin import GifImageFile

from bundle.errors import ImageTooLarge
from bundle.image_formats.opened_image import DecodeLimits, OpenedImage, loaded

_MAX_BLOCKS = 65_536
_EXTENSION, _IMAGE = 0x21, 0x2C
_GRAPHIC_CONTROL = 0xF9


def open_gif(data: bytes, limits: DecodeLimits) -> OpenedImage:
    """Open a GIF file. See `bundle.image_formats.open_image`."""
    palette_length = 3 << (data[10] & 7) + 1 if data[10] & 0x80 else 0
    head = 13 + palette_length
    frame, control = _first_frame(data, head)
    canvas = (int.from_bytes(data[6:8], "little"), int.from_bytes(data[8:10], "little"))
    left, top, frame_width, frame_height = (
        int.from_bytes(data[at : at + 2], "little") for at in range(frame + 1, frame + 9, 2)
    )
    # Pillow enlarges the canvas for a frame that exceeds it.
    limits.check(max(canvas[0], left + frame_width), max(canvas[1], top + frame_height))
    limits.check(frame_width, frame_height)
    view = memoryview(data)
    image = GifImageFile(BytesIO(b"".join((view[:head], control, view[frame:]))))
    limits.check(image.width, image.height)
    return OpenedImage(image.width, image.height, lambda _: loaded(image))


def _first_frame(data: bytes, position: int) -> tuple[int, bytes]:
    """The position of the first image descriptor, and the graphic control extension before it, if there is one."""
    control = b""
    blocks = 0
    while data[position] != _IMAGE:
        if data[position] != _EXTENSION:
            raise ValueError("the GIF has no image, or its blocks are broken")
        begin, kind = position, data[position + 1]
        position += 2
        while data[position]:
            position += data[position] + 1
            blocks += 1
            if blocks > _MAX_BLOCKS:
                raise ImageTooLarge("the GIF has too many comments before its image; save it again without them")
        position += 1
        if kind == _GRAPHIC_CONTROL:
            control = data[begin:position]
    return position, control
