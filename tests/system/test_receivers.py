"""Alerts reach the receivers of a secret file by the shipped routes."""

import json
import re
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import yaml

from tests.support.waiting import until
from tests.system.support.programs import require_program
from tests.system.support.prometheus import alertmanager_config, running_alertmanager
from tests.system.support.service_process import ROOT, TIMEOUT_SECONDS


@contextmanager
def webhook() -> Iterator[tuple[str, set[tuple[str, str]]]]:
    """A URL, and the alerts that it has received: the path of each request, and the alert's name."""
    received: set[tuple[str, str]] = set()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            received.update((self.path, alert["labels"]["alertname"]) for alert in body["alerts"])
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", received
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def send_alert(alertmanager: str, name: str, severity: str) -> None:
    alert = {"labels": {"alertname": name, "severity": severity}}
    response = httpx.post(f"{alertmanager}/api/v2/alerts", json=[alert], timeout=TIMEOUT_SECONDS)
    assert response.is_success, response.text


def inhibited(alertmanager: str) -> set[str]:
    """The names of the alerts that another one inhibits."""
    alerts = httpx.get(f"{alertmanager}/api/v2/alerts", timeout=TIMEOUT_SECONDS).json()
    return {alert["labels"]["alertname"] for alert in alerts if alert["status"]["inhibitedBy"]}


def test_the_documented_receivers_are_valid(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "deploy.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```yaml\n# deploy/secrets/receivers.yml\n(.*?)```", page, re.DOTALL)
    (tmp_path / "receivers.yml").write_text(example)
    config = alertmanager_config(tmp_path, tmp_path / "receivers.yml")
    command = [require_program("amtool"), "check-config", str(config)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_SECONDS, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "2 receivers" in result.stdout


def test_pages_and_tickets_reach_their_receivers_and_inhibited_alerts_reach_none(tmp_path: Path) -> None:
    with webhook() as (url, received):
        kinds = ("pages", "tickets")
        receivers = [{"name": kind, "webhook_configs": [{"url": f"{url}/{kind}"}]} for kind in kinds]
        (tmp_path / "receivers.yml").write_text(yaml.safe_dump({"receivers": receivers}))
        config = alertmanager_config(tmp_path, tmp_path / "receivers.yml")
        config.write_text(config.read_text().replace("group_wait: 30s", "group_wait: 1s"))
        with running_alertmanager(config, tmp_path) as alertmanager:
            send_alert(alertmanager, "OodNoReplica", "page")
            until(lambda: received == {("/pages", "OodNoReplica")})
            # Without a replica there is no traffic.
            send_alert(alertmanager, "OodNoTraffic", "ticket")
            until(lambda: inhibited(alertmanager) == {"OodNoTraffic"})
            # Sent later, and so received later than a notification of the inhibited alert would be.
            send_alert(alertmanager, "OodLatencyHigh", "ticket")
            until(lambda: ("/tickets", "OodLatencyHigh") in received)
    assert received == {("/pages", "OodNoReplica"), ("/tickets", "OodLatencyHigh")}
