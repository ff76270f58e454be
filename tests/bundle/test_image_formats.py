"""Formats by content: the first picture in its colours, sensible 8-bit samples, orientation, and skipped metadata."""

import io
import struct
import zlib

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin

from bundle import ImageInput, UndecodableImage, decode_image
from tests.bundle.support.encoded import chunk, encode, photo, pixels

HEIGHT, WIDTH = 13, 17
EXIF = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"
XMP = b'<x:xmpmeta><rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6"/></x:xmpmeta>'


def decode(data: bytes, height: int = HEIGHT, width: int = WIDTH, channels: int = 3) -> NDArray[np.uint8]:
    spec = {"height": height, "width": width, "channels": channels, "mean": (0.5,) * channels, "std": (0.5,) * channels}
    return decode_image(data, ImageInput.model_validate(spec))


def grey(data: bytes, height: int, width: int) -> list[list[int]]:
    return decode(data, height, width, 1)[..., 0].tolist()


LOSSLESS = {
    "tiff": encode(photo(), "TIFF"),
    "tiff lzw": encode(photo(), "TIFF", compression="tiff_lzw"),
    "tiff deflate": encode(photo(), "TIFF", compression="tiff_adobe_deflate"),
    "tiff packbits": encode(photo(), "TIFF", compression="packbits"),
    "bigtiff": encode(photo(), "TIFF", big_tiff=True),
    "bigtiff lzw": encode(photo(), "TIFF", big_tiff=True, compression="tiff_lzw"),
    "tiff of two pages": encode(photo(), "TIFF", save_all=True, append_images=[photo(seed=1)]),
    "ppm": encode(photo(), "PPM"),
    "ppm with comments": encode(photo(), "PPM").replace(b"P6\n17 13\n", b"P6 # by hand\n# 1 2 3\n17\t13 #\r\n", 1),
    "animated png": encode(photo(), "PNG", save_all=True, append_images=[photo(seed=1)]),
    "animated webp": encode(photo(), "WEBP", lossless=True, exact=True, save_all=True, append_images=[photo(seed=1)]),
}


@pytest.mark.parametrize("name", list(LOSSLESS))
def test_the_first_picture_of_a_lossless_file_comes_out_pixel_for_pixel(name: str) -> None:
    assert_array_equal(decode(LOSSLESS[name]), pixels(photo()))


@pytest.mark.parametrize("options", [{}, {"save_all": True, "append_images": [photo(seed=1).quantize(16)]}])
@pytest.mark.parametrize("interlace", [0, 1])
def test_the_first_frame_of_a_gif_comes_out_in_its_colours(options: dict[str, object], interlace: int) -> None:
    palette = photo().quantize(16)
    assert_array_equal(
        decode(encode(palette, "GIF", interlace=interlace, comment="x" * 900, **options)), pixels(palette)
    )


def test_the_transparent_colour_of_a_gif_is_white() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.putdata([0, 1])
    assert_array_equal(decode(encode(image, "GIF", transparency=1), 1, 2), [[[10, 20, 30], [255, 255, 255]]])


@pytest.mark.parametrize("options", [{}, {"subsampling": "4:4:4"}])
@pytest.mark.parametrize("frames", [[], [photo(seed=1)]], ids=["still", "sequence"])
@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L"])
def test_an_avif_comes_out_close_to_its_colours(options: dict[str, str], frames: list[Image.Image], mode: str) -> None:
    others = [frame.convert(mode) for frame in frames]
    data = encode(photo().convert(mode), "AVIF", quality=95, save_all=bool(frames), append_images=others, **options)
    difference = np.abs(decode(data).astype(int) - pixels(photo().convert(mode)))
    assert difference.mean() < 12


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "LAB"])
@pytest.mark.parametrize("compression", [None, "tiff_lzw"])
def test_a_tiff_of_any_mode_is_decoded(mode: str, compression: str | None) -> None:
    image = (
        photo().convert("RGB").convert("RGBA" if mode == "PA" else mode)
        if mode != "LAB"
        else Image.new("LAB", (17, 13))
    )
    if mode == "PA":
        image = photo().quantize(16).convert("PA")
    assert decode(encode(image, "TIFF", compression=compression)).shape == (HEIGHT, WIDTH, 3)


@pytest.mark.parametrize("compression", [None, "tiff_lzw", "tiff_adobe_deflate"])
def test_16_bit_grey_does_not_saturate(compression: str | None) -> None:
    ramp = Image.fromarray(np.array([[0x00FF, 0x1234, 0x8000, 0xFFFF]], np.uint16))
    assert grey(encode(ramp, "TIFF", compression=compression), 1, 4) == [[0, 0x12, 0x80, 0xFF]]
    assert grey(encode(ramp, "PNG"), 1, 4) == [[0, 0x12, 0x80, 0xFF]]
    assert grey(b"P5 4 1 65535\n" + np.asarray(ramp).astype(">u2").tobytes(), 1, 4) == [[0, 0x12, 0x80, 0xFF]]


def test_a_pnm_of_any_depth_is_scaled_to_8_bits() -> None:
    assert grey(b"P5 3 1 15\n" + bytes([0, 5, 15]), 1, 3) == [[0, 85, 255]]
    assert grey(b"P5 2 1 4095\n" + struct.pack(">2H", 2048, 4095), 1, 2) == [[127, 255]]
    assert grey(b"P4\n9 1\n" + bytes([0b10000000, 0]), 1, 9) == [[0] + [255] * 8]


@pytest.mark.parametrize(
    ("samples", "expected"), [([0.0, 0.5, 1.0], [0, 127, 255]), ([-3.0, 100.5, 900.0], [0, 100, 255])]
)
def test_floats_of_a_tiff_are_0_to_1_or_0_to_255(samples: list[float], expected: list[int]) -> None:
    image = Image.fromarray(np.array([samples], np.float32))
    assert grey(encode(image, "TIFF"), 1, 3) == [expected]


def test_a_tiff_whose_white_is_zero_is_inverted() -> None:
    data = encode(Image.fromarray(np.array([[0x0000, 0xFFFF, 0x1200]], np.uint16)), "TIFF")
    entry = struct.pack("<HHI", 262, 3, 1)
    at = data.index(entry) + 8
    assert grey(data[:at] + struct.pack("<H", 0) + data[at + 2 :], 1, 3) == [[255, 0, 0xED]]


def png_with(*chunks: bytes) -> bytes:
    data = encode(photo())
    return data[:33] + b"".join(chunks) + data[33:]


def raw_profile(keyword: bytes, kind: bytes) -> bytes:
    digits = EXIF.hex().encode()
    text = b"\nexif\n%8d\n" % len(EXIF) + b"\n".join(digits[at : at + 72] for at in range(0, len(digits), 72)) + b"\n"
    content = {
        b"tEXt": text,
        b"zTXt": b"\0" + zlib.compress(text),
        b"iTXt": b"\1\0\0\0" + zlib.compress(text),
    }[kind]
    return chunk(kind, keyword + b"\0" + content)


TURNED = {
    "PNG eXIf": png_with(chunk(b"eXIf", EXIF[6:])),
    "PNG raw profile": png_with(raw_profile(b"Raw profile type exif", b"zTXt")),
    "PNG raw profile, plain": png_with(raw_profile(b"Raw profile type exif", b"tEXt")),
    "PNG raw profile APP1": png_with(raw_profile(b"Raw profile type APP1", b"iTXt")),
    "PNG XMP": png_with(chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP)),
    "PNG XMP, compressed": png_with(chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(XMP))),
    "PNG XMP, element": png_with(chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0<tiff:Orientation>6</tiff:Orientation>")),
    "WebP EXIF": encode(photo(), "WEBP", lossless=True, exif=EXIF),
    "WebP XMP": encode(photo(), "WEBP", lossless=True, xmp=XMP),
    "TIFF tag": encode(photo(), "TIFF", tiffinfo={274: 6}),
    "TIFF tag, compressed": encode(photo(), "TIFF", tiffinfo={274: 6}, compression="tiff_lzw"),
    "TIFF XMP": encode(photo(), "TIFF", tiffinfo={700: XMP}),
    "EXIF before XMP": png_with(
        chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0<tiff:Orientation>3</tiff:Orientation>"), chunk(b"eXIf", EXIF[6:])
    ),
}


@pytest.mark.parametrize("name", list(TURNED))
def test_the_orientation_is_found_wherever_it_is_stored(name: str) -> None:
    assert_array_equal(decode(TURNED[name], WIDTH, HEIGHT), np.rot90(pixels(photo()), -1))


@pytest.mark.parametrize("image_format", ["JPEG", "AVIF"])
@pytest.mark.parametrize("option", ["exif", "xmp"])
def test_the_orientation_of_a_lossy_image_is_found(image_format: str, option: str) -> None:
    upright = decode(encode(photo(), image_format))
    turned = decode(encode(photo(), image_format, **{option: EXIF if option == "exif" else XMP}), WIDTH, HEIGHT)
    assert_array_equal(turned, np.rot90(upright, -1))


def large_metadata() -> dict[str, bytes]:
    noise = np.random.default_rng(0).bytes(3_000_000)
    icc, text = noise[:2_000_000], "word " * 300_000
    texts = PngImagePlugin.PngInfo()
    texts.add_text("a", text)
    texts.add_text("b", text, zip=True)
    texts.add_itxt("c", text, zip=True)
    return {
        "png": encode(photo(), icc_profile=icc, pnginfo=texts, exif=EXIF + noise),
        "png of many texts": png_with(*[chunk(b"tEXt", b"k%d\0" % index + bytes(9)) for index in range(900)]),
        "png of broken texts": png_with(
            chunk(b"iCCP", b"p\0\7" + bytes(99)),
            chunk(b"zTXt", b"k\0\0junk"),
            chunk(b"iTXt", b"k"),
            chunk(b"tRNs", b""),
        ),
        "webp": encode(photo(), "WEBP", lossless=True, exact=True, icc_profile=icc, exif=EXIF + noise, xmp=noise),
        "tiff": encode(photo(), "TIFF", icc_profile=icc, tiffinfo={270: text, 700: noise}),
        "gif": encode(photo().quantize(256), "GIF", comment=text.encode()),
    }


@pytest.mark.parametrize("name", list(large_metadata()))
def test_large_or_broken_metadata_are_skipped(name: str) -> None:
    expected = pixels(photo().quantize(256)) if name == "gif" else pixels(photo())
    data = large_metadata()[name]
    assert_array_equal(decode(data) if name not in ("png", "webp") else np.rot90(decode(data, WIDTH, HEIGHT)), expected)


def test_large_metadata_of_a_jpeg_are_skipped() -> None:
    segments = b"".join(
        b"\xff%c\xff\xff" % kind + bytes(65_533) for kind in (0xE1, 0xE2, 0xED, 0xFE) for _ in range(60)
    )
    plain = encode(photo(), "JPEG")
    assert_array_equal(decode(plain[:2] + segments + plain[2:]), decode(plain))


OTHERS = {
    "HEIC": b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(50),
    "HEIF brand first": b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic" + bytes(50),
    "MP4 video": b"\0\0\0\x18ftypisom\0\0\0\0isomavc1" + bytes(50),
    "QuickTime": b"\0\0\0\x14ftypqt  \0\0\0\0qt  " + bytes(50),
    "JPEG XL": b"\xff\x0a" + bytes(50),
    "JPEG 2000": b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(50),
    "SVG": b'<?xml version="1.0"?>\n<!-- drawn -->\n<svg xmlns="http://www.w3.org/2000/svg"/>',
    "HTML": b"\n<!DOCTYPE html><html><body>404</body></html>",
    "XML": b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>",
    "JSON": b'{"error": "not found"}',
    "PDF": b"%PDF-1.7\n" + bytes(50),
    "PSD": b"8BPS\0\x01" + bytes(50),
    "ICO": b"\0\0\x01\0\x01\0" + bytes(50),
    "ZIP": b"PK\x03\x04" + bytes(50),
    "gzip": b"\x1f\x8b\x08" + bytes(50),
    "QOI": b"qoif" + bytes(50),
    "DICOM": bytes(128) + b"DICM" + bytes(50),
    "WebM": b"\x1aE\xdf\xa3" + bytes(50),
    "Git LFS": b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n",
    "base64": b"iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1Pe",
    "base64 text": b"data:image/png;base64,iVBORw0KGgo=",
    "plain (text) PNM": b"P3 1 1 255\n1 2 3\n",
    "PFM": b"Pf\n1 1\n-1.0\n\0\0\0\0",
    "text": "just a text".encode("utf-16"),
    "run-length encoded BMP": encode(Image.new("P", (4, 4)), "BMP")[:30] + struct.pack("<I", 1) + bytes(500),
    "TIFF image of compression 50000": encode(photo(), "TIFF", compression="zstd"),
}


@pytest.mark.parametrize("name", list(OTHERS))
def test_a_format_that_is_not_decoded_is_named_with_a_remedy(name: str) -> None:
    with pytest.raises(UndecodableImage) as caught:
        decode(OTHERS[name])
    assert name.split(" brand", maxsplit=1)[0].replace("HEIF", "HEIC") in caught.value.detail
    assert "not decoded" in caught.value.detail
    assert any(remedy in caught.value.detail for remedy in ("convert the image to PNG", "save it"))


@pytest.mark.parametrize("name", ["tiff", "tiff lzw", "tiff deflate", "bigtiff", "ppm", "animated webp"])
@pytest.mark.parametrize("share", [0.2, 0.6, 0.95])
def test_a_truncated_file_of_any_format_is_refused(name: str, share: float) -> None:
    data = LOSSLESS[name]
    with pytest.raises(UndecodableImage, match="truncated, corrupt"):
        decode(data[: int(len(data) * share)])


@pytest.mark.parametrize("image_format", ["GIF", "AVIF"])
def test_a_truncated_gif_or_avif_is_refused(image_format: str) -> None:
    data = encode(photo(60, 80).quantize(64) if image_format == "GIF" else photo(60, 80), image_format)
    for share in (0.1, 0.5, 0.8):
        with pytest.raises(UndecodableImage, match="truncated, corrupt"):
            decode(data[: int(len(data) * share)])


def test_a_jpeg_with_a_second_picture_and_a_video_behind_it_is_its_first_picture() -> None:
    first, second = (encode(photo(seed=seed), "JPEG") for seed in (0, 1))
    assert_array_equal(decode(first + second + b"\0\0\0\x18ftypmp42" + b"\xff\xda\xff\xd8" * 9000), decode(first))


def test_the_thumbnail_in_the_exif_data_of_a_jpeg_is_no_scan_of_it() -> None:
    thumbnail = encode(photo(), "JPEG", progressive=True)
    file = io.BytesIO(encode(photo(), "JPEG", exif=EXIF[:-4] + bytes(4) + thumbnail))
    assert decode(file.getvalue(), WIDTH, HEIGHT).shape == (WIDTH, HEIGHT, 3)
