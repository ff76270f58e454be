"""Names the format of a file by its first bytes."""

import re
from collections.abc import Mapping
from types import MappingProxyType

_TEXT_BYTES = 1024
_TEXTS = tuple(
    (re.compile(pattern, re.IGNORECASE | re.DOTALL), name)
    for pattern, name in (
        (r"<.*<svg|<svg", "an SVG drawing"),
        (r"<!doctype html|<.*<html|<html", "an HTML page"),
        (r"<\?xml|<[a-z]+[\s>/]", "an XML document"),
        (r"data:image/|iVBORw0KGgo|/9j/|UklGR|R0lGOD|SUkq[A-Z]|TU0AK", "base64 text, not the image itself"),
        (r"[{\[]", "JSON text"),
    )
)

# The first entry that matches counts. The names of formats that are not decoded are for messages: "the bytes are ...".
_SIGNATURES: tuple[tuple[bytes, str], ...] = (
    (rb"\x89PNG\r\n\x1a\n", "PNG"),
    (rb"\xff\xd8\xff", "JPEG"),
    (rb"RIFF....WEBP", "WebP"),
    (rb"GIF8[79]a", "GIF"),
    (rb"II[*]\0\x10\0\0\0CR\x02", "a Canon raw photograph (CR2)"),
    (rb"II\xbc\x01", "a JPEG XR image"),
    (rb"II[*]\0|MM\0[*]|II[+]\0\x08\0\0\0|MM\0[+]\0\x08\0\0", "TIFF"),
    (rb"BM", "BMP"),
    (rb"P[1-6][\s#]", "PNM"),
    (rb"P7\n", "a PAM image"),
    (rb"P[fF]\s", "a PFM image"),
    (rb"\xff\x0a|\0\0\0\x0cJXL \r\n\x87\n", "a JPEG XL image"),
    (rb"\0\0\0\x0cjP  \r\n\x87\n|\xff\x4f\xff\x51", "a JPEG 2000 image"),
    (rb"8BPS", "a Photoshop document (PSD)"),
    (rb"%PDF-", "a PDF document"),
    (rb"%!PS|\xc5\xd0\xd3\xc6", "a PostScript document (EPS)"),
    (rb"\0\0\x01\0[^\0]\0", "an icon (ICO)"),
    (rb"\0\0\x02\0[^\0]\0", "a cursor (CUR)"),
    (rb"icns", "an icon (ICNS)"),
    (rb"qoif", "a QOI image"),
    (rb"DDS ", "a DDS texture"),
    (rb"gimp xcf", "a GIMP document (XCF)"),
    (rb"\x76\x2f\x31\x01", "an OpenEXR image"),
    (rb"#\?RADIANCE|#\?RGBE", "a Radiance HDR image"),
    (rb"SIMPLE  =", "a FITS file"),
    (rb"\x0a[\x00-\x05]\x01[\x01\x02\x04\x08]", "a PCX image"),
    (rb"\x01\xda[\0\x01][\x01\x02]\0[\x01-\x03]", "an SGI image"),
    (rb"\x59\xa6\x6a\x95", "a Sun raster image"),
    (rb"/\* XPM \*/", "an XPM image"),
    (rb"\xd7\xcd\xc6\x9a|\x01\0\0\0.{36} EMF", "a Windows metafile (WMF, EMF)"),
    (rb"AT&TFORM", "a DjVu document"),
    (rb"BPG\xfb", "a BPG image"),
    (rb"FLIF", "a FLIF image"),
    (rb"\x8aMNG\r\n\x1a\n", "an MNG animation"),
    (rb"RIFF....AVI ", "an AVI video"),
    (rb"RIFF....WAVE", "a WAV recording"),
    (rb"\x1aE\xdf\xa3", "a Matroska or WebM video"),
    (rb"OggS", "an Ogg recording"),
    (rb"FLV\x01", "a Flash video"),
    (rb"\0\0\x01[\xb3\xba]", "an MPEG video"),
    (rb"ID3|\xff[\xfb\xf3\xf2]", "an MP3 recording"),
    (rb"PK\x03\x04|PK\x05\x06", "a ZIP archive (or an Office document)"),
    (rb"\x1f\x8b", "a gzip file"),
    (rb"BZh[1-9]", "a bzip2 file"),
    (rb"\xfd7zXZ\0", "an xz file"),
    (rb"\x28\xb5\x2f\xfd", "a Zstandard file"),
    (rb"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (rb"Rar!\x1a\x07", "a RAR archive"),
    (rb"\xd0\xcf\x11\xe0", "an Office document"),
    (rb"\x93NUMPY", "a NumPy array"),
    (rb"\x89HDF", "an HDF5 file"),
    (rb"PAR1", "a Parquet file"),
    (rb"SQLite format 3", "an SQLite database"),
    (rb"\x7fELF|MZ", "a program"),
    (rb"Obj\x01", "an Avro file"),
    (rb"version https://git-lfs", "a Git LFS pointer, not the file itself"),
)
_SIGNATURE = re.compile(
    b"|".join(b"(?P<n%d>%s)" % (index, pattern) for index, (pattern, _) in enumerate(_SIGNATURES)), re.DOTALL
)

_BRANDS: Mapping[bytes, str] = MappingProxyType(
    {
        **dict.fromkeys((b"avif", b"avis"), "AVIF"),
        **dict.fromkeys((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"heif"), "a HEIC image"),
        b"crx ": "a Canon raw photograph (CR3)",
        b"jxl ": "a JPEG XL image",
        b"qt  ": "a QuickTime video",
        **dict.fromkeys((b"isom", b"iso2", b"iso4", b"iso5", b"iso6", b"mp41", b"mp42", b"avc1"), "an MP4 video"),
        **dict.fromkeys((b"M4V ", b"M4VH", b"MSNV", b"dash"), "an MP4 video"),
        **dict.fromkeys((b"M4A ", b"M4B "), "an MP4 recording"),
        **dict.fromkeys((b"3gp4", b"3gp5", b"3gp6", b"3g2a"), "a 3GP video"),
    }
)


def format_name(data: bytes) -> str | None:
    """The name of a file's format, that of one that is not decoded with its article; None if it is unknown."""
    match = _SIGNATURE.match(data)
    if match is not None and match.lastgroup is not None:
        return _SIGNATURES[int(match.lastgroup[1:])][1]
    if data[4:8] == b"ftyp":
        return _brand_name(data)
    if data[128:132] == b"DICM":
        return "a DICOM image"
    if data[257:262] == b"ustar":
        return "a tar archive"
    return _text_name(data[:_TEXT_BYTES])


def _brand_name(data: bytes) -> str:
    """The format of a file in ISO's base media file format, by its brands: the major one, then the compatible ones."""
    end = min(int.from_bytes(data[:4], "big"), 256)
    brands = [data[8:12], *(data[start : start + 4] for start in range(16, end, 4))]
    if brands[0] in (b"mif1", b"msf1") and b"avif" in brands:
        return "AVIF"
    return next((_BRANDS[brand] for brand in brands if brand in _BRANDS), "a HEIF image or a video")


def _text_name(start: bytes) -> str | None:
    """The kind of text that a file begins with; None if it is no text."""
    is_utf16 = start[:2] in (b"\xff\xfe", b"\xfe\xff")
    text = start[: len(start) // 2 * 2].decode("utf-16" if is_utf16 else "utf-8-sig", "replace").lstrip()
    if not text or not all(character.isprintable() or character.isspace() for character in text[:-4]):
        return None
    return next((name for pattern, name in _TEXTS if pattern.match(text)), "text" if len(text) > 4 else None)
