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
