"""Structured logs: ours and the libraries' in one stream, each line with its request id."""

import logging
import sys
from collections.abc import Callable
from functools import partial
from typing import TextIO

import orjson
import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from service.settings import Settings

# Local variables stay out of the logs: they hold what clients sent.
_TRACEBACKS = structlog.processors.ExceptionRenderer(structlog.tracebacks.ExceptionDictTransformer(show_locals=False))


class LogHandler(logging.StreamHandler[TextIO]):
    """Writes lines; one that cannot be written (a full disk, a closed pipe) is lost and told to `on_loss`."""

    on_loss: Callable[[], object] = staticmethod(lambda: None)

    def write(self, line: str) -> None:
        """Write a line of ours, which is no record of `logging`."""
        self.acquire()
        try:
            self.stream.write(line + self.terminator)
            self.flush()
        except OSError:
            self.on_loss()
        finally:
            self.release()

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the library's name
        """The library's would try to write a traceback to where nothing can be written."""
        if isinstance(sys.exception(), OSError):
            self.on_loss()
        else:
            super().handleError(record)


class LineLogger:
    """Where structlog's lines end, by the `name` of who writes them.

    Not by way of `logging`, which makes a record of each and formats it a second time: a line of JSON then takes 42
    microseconds instead of 12, and there is one for every request.
    """

    def __init__(self, handler: LogHandler, name: str) -> None:
        self.name = name
        self.debug = self.info = self.warning = self.error = self.critical = handler.write


def configure_logs(settings: Settings, **bound: int) -> LogHandler:
    """Send every log line to stderr, as coloured text or as one JSON object per line; `bound` is in all of them."""

    def mark(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
        event.update(bound)
        return event

    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _without_colour_twin,
        *([mark] if bound else []),
    ]
    render: list[Processor] = (
        [_TRACEBACKS, structlog.processors.JSONRenderer(serializer=_to_json)]
        if settings.log_format == "json"
        else [
            structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback)
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
    # uvicorn announces its own start and stop at info; the banner and our lines already say so.
    logging.getLogger("uvicorn").setLevel(max(_level(settings), logging.WARNING))
    # It warns of every malformed body, which is the client's to know and not the operator's.
    logging.getLogger("python_multipart").setLevel(logging.ERROR)
    return handler


def _level(settings: Settings) -> int:
    return logging.getLevelNamesMapping()[settings.log_level.upper()]


def _to_json(event: EventDict, **_: object) -> str:
    return orjson.dumps(event, default=str).decode()


def _without_colour_twin(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    # uvicorn sends each message a second time, coloured.
    event.pop("color_message", None)
    return event
