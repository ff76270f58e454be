"""Parses `multipart/form-data` bodies that are complete and bounded in memory."""

from dataclasses import dataclass, field

from python_multipart import MultipartParser
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header

from service.errors import MalformedBody, TooManyInputs


@dataclass(slots=True)
class Part:
    """One part of a form.

    Attributes:
        name: The name of its field.
        data: Its bytes as they were sent.
        transfer_encoding: Its `Content-Transfer-Encoding` in lower case.
        charset: The charset of its `Content-Type`.
    """

    name: str
    data: bytes
    transfer_encoding: str = "binary"
    charset: str = "utf-8"


@dataclass(slots=True)
class _Collector:
    """Receives the callbacks of the parser, which passes slices: each part is copied once."""

    max_parts: int
    parts: list[Part] = field(default_factory=list)
    _name: str | None = None
    _transfer_encoding: str = "binary"
    _charset: str = "utf-8"
    _header: bytearray = field(default_factory=bytearray)
    _value: bytearray = field(default_factory=bytearray)
    _data: bytearray = field(default_factory=bytearray)
    finished: bool = False

    def on_part_begin(self) -> None:
        if len(self.parts) == self.max_parts:
            raise TooManyInputs(f"More than {self.max_parts} parts in one request. Split them into several requests.")
        self._name, self._data = None, bytearray()
        self._transfer_encoding, self._charset = "binary", "utf-8"

    def on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def on_header_end(self) -> None:
        match self._header.lower():
            case b"content-disposition":
                _, options = parse_options_header(bytes(self._value))
                name = options.get(b"name")
                self._name = None if name is None else name.decode("utf-8", "replace")
            case b"content-transfer-encoding":
                self._transfer_encoding = self._value.decode("latin-1").strip().lower()
            case b"content-type":
                _, options = parse_options_header(bytes(self._value))
                self._charset = options.get(b"charset", b"utf-8").decode("latin-1")
        self._header.clear()
        self._value.clear()

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        self._data += data[start:end]

    def on_part_end(self) -> None:
        if self._name is None:
            raise MalformedBody(f"Part {len(self.parts)} of the form has no name; name it `file` or `text`.")
        self.parts.append(Part(self._name, bytes(self._data), self._transfer_encoding, self._charset))

    def on_end(self) -> None:
        self.finished = True


def parse_multipart(body: bytes, boundary: bytes, *, max_parts: int) -> list[Part]:
    """Parse a form.

    `python_multipart.FormParser` is not used: it writes large parts to files.

    Args:
        body: The body.
        boundary: The boundary that the content type declares.
        max_parts: The largest number of parts.

    Returns:
        The parts in their order.

    Raises:
        MalformedBody: The body is not a form, ends early, or has a part without a name.
        TooManyInputs: The form has more parts; raised before the surplus is copied.
    """
    collector = _Collector(max_parts)
    try:
        parser = MultipartParser(
            boundary,
            {
                "on_part_begin": collector.on_part_begin,
                "on_header_field": collector.on_header_field,
                "on_header_value": collector.on_header_value,
                "on_header_end": collector.on_header_end,
                "on_part_data": collector.on_part_data,
                "on_part_end": collector.on_part_end,
                "on_end": collector.on_end,
            },
        )
        parser.write(body)
        parser.finalize()
    except FormParserError as error:
        raise MalformedBody(f"The body is not multipart/form-data: {error}") from error
    if not collector.finished:
        raise MalformedBody("The multipart body ends before its closing boundary.")
    return collector.parts
