"""Log lines are structured, carry their request id, and hold no data that clients sent."""

import json
import logging
from typing import Literal

import pytest
import structlog

from service.settings import Settings
from service.telemetry.logs import configure_logs


@pytest.mark.parametrize("log_format", ["json", "console"])
@pytest.mark.usefixtures("restored_logging")
def test_a_logged_traceback_holds_no_local_variables(
    capsys: pytest.CaptureFixture[str], log_format: Literal["json", "console"]
) -> None:
    configure_logs(Settings(log_format=log_format))
    body = "private".upper()
    try:
        raise ArithmeticError(len(body))
    except ArithmeticError:
        structlog.stdlib.get_logger("service.test").exception("failed")
    logged = capsys.readouterr().err
    assert "ArithmeticError" in logged
    assert "PRIVATE" not in logged


@pytest.mark.usefixtures("restored_logging")
def test_json_logs_carry_the_request_id(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs(Settings(log_format="json"))
    with structlog.contextvars.bound_contextvars(request_id="abc"):
        structlog.stdlib.get_logger("service.test").info("hello", n=1)
        logging.getLogger("uvicorn.error").error("theirs %d", 2)
    ours, theirs = (json.loads(line) for line in capsys.readouterr().err.splitlines())
    assert (ours["event"], ours["n"], ours["request_id"], ours["level"]) == ("hello", 1, "abc", "info")
    assert (theirs["event"], theirs["request_id"], theirs["logger"]) == ("theirs 2", "abc", "uvicorn.error")


HOSTILE = "/\x1b[2J\x1b]0;owned\x07\r\n2026 [info] forged\x9b31m\u202e\ud800"


@pytest.mark.usefixtures("restored_logging")
def test_control_characters_do_not_reach_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs(Settings(log_format="console"))
    log = structlog.stdlib.get_logger("service.test")
    log.info("request", path=HOSTILE, words="naïve – 😀")
    log.warning(HOSTILE)
    logging.getLogger("theirs").warning("%s", HOSTILE)
    try:
        raise ValueError(HOSTILE)
    except ValueError:
        log.exception("failed")
    logged = capsys.readouterr().err
    assert "naïve – 😀" in logged
    assert "\\x1b[2J" in logged
    assert [character for character in logged if not character.isprintable() and character != "\n"] == []
    assert not [line for line in logged.splitlines() if line.startswith("2026 [info] forged")]


@pytest.mark.usefixtures("restored_logging")
def test_a_text_that_json_cannot_hold_is_logged_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs(Settings(log_format="json"))
    structlog.stdlib.get_logger("service.test").info("request", path=HOSTILE)
    assert json.loads(capsys.readouterr().err)["path"] == HOSTILE
