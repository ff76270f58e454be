"""Undoes the content codings of request bodies (`Content-Encoding`: gzip, deflate), within limits."""

import asyncio
import zlib
from collections.abc import Callable, Sequence

from service.errors import MalformedBody, Problem, UnsupportedContentCoding

_GZIP, _DEFLATE = "gzip", "deflate"
_NAMES = {"gzip": _GZIP, "x-gzip": _GZIP, "deflate": _DEFLATE}
_MAX_CODINGS = 3
# A gzip file may consist of many members, each of which costs a new decompressor.
_MAX_MEMBERS = 4096
_INPUT_BYTES = 16_384
# Bodies that are larger compressed or decompressed are decompressed on a thread.
_INLINE_BYTES = 65_536
_ZLIB_WINDOW, _RAW_WINDOW, _GZIP_WINDOW = 15, -15, 31


def content_codings(value: str | None) -> tuple[str, ...]:
    """The codings in the header `Content-Encoding`, in the order in which they were applied, without "identity".

    Raises:
        UnsupportedContentCoding: A coding is unknown, or there are too many.
    """
    if value is None:
        return ()
    names = [name for item in value.split(",") if (name := item.strip().lower()) not in ("", "identity")]
    for name in names:
        if name not in _NAMES:
            raise UnsupportedContentCoding(
                f"Content-Encoding {name[:64]!r} is not supported. Send the body as it is, or as gzip or deflate."
            )
    if len(names) > _MAX_CODINGS:
        raise UnsupportedContentCoding(f"Content-Encoding names {len(names)} codings. Send at most {_MAX_CODINGS}.")
    return tuple(_NAMES[name] for name in names)


async def decode(
    body: bytes,
    codings: Sequence[str],
    max_bytes: int,
    hold: Callable[[int], object],
    too_large: Callable[[int], Problem],
) -> bytes:
    """Undo `codings`, the last one first.

    Args:
        body: The body as it was sent.
        codings: The result of `content_codings`.
        max_bytes: The size of the largest result; a larger one is not computed to its end.
        hold: Is called with the size of each part of a result, and may raise.
        too_large: Makes the problem of a larger result, from `max_bytes`.

    Raises:
        MalformedBody: The body is damaged or truncated.
    """
    for coding in reversed(codings):
        inflater = _Inflater(coding, body)
        parts: list[bytes] = []
        size = 0
        while not inflater.finished:
            # The first part of a small body is the whole; threads release the GIL while they inflate.
            inline = not parts and len(body) <= _INLINE_BYTES
            part = inflater.inflate() if inline else await asyncio.to_thread(inflater.inflate)
            size += len(part)
            if size > max_bytes:
                raise too_large(max_bytes)
            hold(len(part))
            parts.append(part)
        body = parts[0] if len(parts) == 1 else b"".join(parts)
    return body


class _Inflater:
    """Inflates a body part by part.

    Attributes:
        finished: Whether there is no further part.
    """

    def __init__(self, coding: str, body: bytes) -> None:
        self._coding = coding
        self._body = memoryview(body)
        self._position = 0
        self._members = 0
        self._pending = b""
        self._inflate = self._next_member()
        self.finished = False

    def inflate(self) -> bytes:
        """The next part, of about 64 KiB to 1 MiB unless it is the last one.

        Raises:
            MalformedBody: The body is damaged or truncated.
        """
        # Parts grow, so that a small body costs little and a large one takes few steps.
        wanted = _INLINE_BYTES if self._position == 0 else 2**20
        parts: list[bytes] = []
        try:
            while wanted > 0 and not self.finished:
                part = self._step(wanted)
                wanted -= len(part)
                parts.append(part)
        except zlib.error as error:
            raise MalformedBody(f"The body is not valid {self._coding}: {error}") from None
        return b"".join(parts)

    def _step(self, wanted: int) -> bytes:
        data = self._pending or self._read()
        part = self._inflate.decompress(data, wanted)
        if not self._inflate.eof:
            self._pending = self._inflate.unconsumed_tail
            # Without input there may still be output, if the last part was full.
            if not data and not part:
                raise MalformedBody(f"The body ends before its {self._coding} data do. Send all of it.")
            return part
        # Zeros after a member are padding.
        self._pending = self._inflate.unused_data.lstrip(b"\0")
        while not self._pending and self._position < len(self._body):
            self._pending = self._read().lstrip(b"\0")
        if not self._pending:
            self.finished = True
        elif self._coding == _GZIP:
            self._inflate = self._next_member()
        else:
            raise MalformedBody("The body continues after its deflate data. Send these alone.")
        return part

    def _read(self) -> bytes:
        data = bytes(self._body[self._position : self._position + _INPUT_BYTES])
        self._position += len(data)
        return data

    def _next_member(self) -> "zlib._Decompress":
        self._members += 1
        if self._members > _MAX_MEMBERS:
            raise MalformedBody(f"The body has more than {_MAX_MEMBERS} gzip members. Compress it in one.")
        if self._coding == _GZIP:
            return zlib.decompressobj(_GZIP_WINDOW)
        return zlib.decompressobj(_ZLIB_WINDOW if _is_zlib(self._body[:2]) else _RAW_WINDOW)


def _is_zlib(head: memoryview) -> bool:
    """Whether deflate data have the header of zlib; some clients send them without."""
    return len(head) == 2 and head[0] & 15 == 8 and (head[0] << 8 | head[1]) % 31 == 0
