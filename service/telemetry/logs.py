"""Structured logs: the lines of the service and of its libraries in one stream, each with its request id."""

import io
import json
import logging
import sys
from collections.abc import Callable
from functools import partial
from typing import TextIO

import orjson
import structlog
from structlog.typing import EventDict, ExcInfo, Processor, WrappedLogger

from service.settings import Settings

# Without local variables, which hold data that clients sent.
_TRACEBACKS = structlog.processors.ExceptionRenderer(structlog.tracebacks.ExceptionDictTransformer(show_locals=False))


class LogHandler(logging.StreamHandler[TextIO]):
    """Writes log lines to a stream; calls `on_loss` for a line that cannot be written (a full disk, a closed pipe)."""

    on_loss: Callable[[], object] = staticmethod(lambda: None)

    def write(self, line: str) -> None:
        """Write one formatted line."""
        self.acquire()
        try:
            self.stream.write(line + self.terminator)
            self.flush()
        except OSError:
            self.on_loss()
        finally:
            self.release()

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the library's name
        """Call `on_loss` for I/O errors; the base class would try to write a traceback to the same stream."""
        if isinstance(sys.exception(), OSError):
            self.on_loss()
        else:
            super().handleError(record)


class LineLogger:
    """The logger called `name` at the end of structlog's processors: writes their lines to `handler`.

    The lines bypass `logging`, which would create a record and format each line a second time; see docs/performance.md.
    """

    def __init__(self, handler: LogHandler, name: str) -> None:
        self.name = name
        self.debug = self.info = self.warning = self.error = self.critical = handler.write


def configure_logs(settings: Settings, **bound: int) -> LogHandler:
    """Send every log line to stderr, as coloured text or as one JSON object per line.

    Args:
        settings: The level and the format.
        **bound: Values that every line carries.

    Returns:
        The handler that writes the lines.
    """

    def bind(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
        event.update(bound)
        return event

    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _drop_coloured_message,
        *([bind] if bound else []),
    ]
    render: list[Processor] = (
        [_TRACEBACKS, structlog.processors.JSONRenderer(serializer=_to_json)]
        if settings.log_format == "json"
        else [
            _escape_control_characters,
            structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=_traceback),
        ]
    )
    handler = LogHandler(sys.stderr)
    structlog.configure(
        processors=[*shared, *render],
        wrapper_class=structlog.make_filtering_bound_logger(_level(settings)),
        logger_factory=partial(LineLogger, handler),
        cache_logger_on_first_use=True,
    )
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *render],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(_level(settings))
    # uvicorn logs its start and stop at info, which the banner and the service's own lines report already.
    logging.getLogger("uvicorn").setLevel(max(_level(settings), logging.WARNING))
    # It warns of every malformed body; the client gets that error, and operators cannot act on it.
    logging.getLogger("python_multipart").setLevel(logging.ERROR)
    # It logs metadata that are not valid, keys included, with a traceback.
    logging.getLogger("grpc._cython.cygrpc").setLevel(logging.CRITICAL)
    return handler


def _level(settings: Settings) -> int:
    return logging.getLevelNamesMapping()[settings.log_level.upper()]


def _to_json(event: EventDict, **_: object) -> str:
    try:
        return orjson.dumps(event, default=str).decode()
    except TypeError:
        # Such as the name of a file that is not UTF-8: a log line must not fail what it reports.
        return json.dumps(event, default=str)


def _escape_control_characters(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """Escape what a terminal would obey: paths and other texts come from clients."""
    for name, value in event.items():
        if isinstance(value, str) and not value.isprintable() and name not in ("exception", "stack"):
            event[name] = _escaped(value)
    return event


def _escaped(text: str, keep: str = "") -> str:
    return "".join(
        character if character.isprintable() or character in keep else character.encode("unicode_escape").decode()
        for character in text
    )


def _traceback(stream: TextIO, exc_info: ExcInfo) -> None:
    """Write an indented traceback, whose message may repeat what a client sent, and must not look like a log line."""
    buffer = io.StringIO()
    structlog.dev.plain_traceback(buffer, exc_info)
    stream.write(_escaped(buffer.getvalue(), keep="\n").replace("\n", "\n  "))


def _drop_coloured_message(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    # uvicorn adds a second, coloured copy of each message.
    event.pop("color_message", None)
    return event
