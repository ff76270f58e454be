"""A headless Chromium, controlled by the Chrome DevTools Protocol."""

import json
import re
import subprocess
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from websockets.sync.client import ClientConnection, connect

from tests.support.waiting import until
from tests.system.support.programs import require_program
from tests.system.support.service_process import TIMEOUT_SECONDS


class Browser:
    """A context manager of a browser with one page.

    Attributes:
        requested: The URLs that the page has requested so far.
        complaints: Errors of its scripts, failed requests, and violations of its policy so far.
    """

    def __init__(self, folder: Path) -> None:
        """Start the browser with the empty `folder` for its profile."""
        self._process = subprocess.Popen(
            [
                *(require_program("chromium"), "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run"),
                *("--disable-dev-shm-usage", "--disable-background-networking", "--disable-component-update"),
                *("--remote-debugging-port=0", f"--user-data-dir={folder}", "about:blank"),
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self._port_file = folder / "DevToolsActivePort"
        self._stack = ExitStack()
        self._last_id = 0
        self.requested: list[str] = []
        self.complaints: list[str] = []

    def __enter__(self) -> Self:
        until(lambda: self._port_file.exists() and self._port_file.read_text().count("\n") == 1)
        port, path = self._port_file.read_text().split("\n")
        self._connection: ClientConnection = self._stack.enter_context(
            connect(f"ws://127.0.0.1:{port}{path}", max_size=None)
        )
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        self._session: str | None = self._call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Network", "Page", "Runtime", "Log"):
            self._call(f"{domain}.enable")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.close()
        self._process.kill()
        self._process.wait(TIMEOUT_SECONDS)

    def open(self, url: str) -> None:
        """Open `url` in the page."""
        self._call("Page.navigate", url=url)

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression in the page."""
        result = self._call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def until(self, expression: str) -> None:
        """Wait until a JavaScript expression is true in the page."""
        until(lambda: bool(self.evaluate(f"Boolean({expression})")))

    def _call(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._last_id += 1
        request = {"id": self._last_id, "method": method, "params": parameters}
        if getattr(self, "_session", None) is not None:
            request["sessionId"] = self._session
        self._connection.send(json.dumps(request))
        while True:
            message = json.loads(self._connection.recv(TIMEOUT_SECONDS))
            if message.get("id") == self._last_id:
                assert "error" not in message, message
                result: dict[str, Any] = message["result"]
                return result
            self._note(message)

    def _note(self, event: dict[str, Any]) -> None:
        parameters = event.get("params", {})
        match event.get("method"):
            case "Network.requestWillBeSent":
                self.requested.append(parameters["request"]["url"])
            case "Network.loadingFailed":
                self.complaints.append(f"{parameters['errorText']} {parameters.get('blockedReason', '')}")
            case "Runtime.exceptionThrown":
                self.complaints.append(str(parameters["exceptionDetails"]))
            case "Log.entryAdded" if parameters["entry"]["level"] in ("warning", "error"):
                self.complaints.append(re.sub(r"\s+", " ", parameters["entry"]["text"]))
