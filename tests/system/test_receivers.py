"""Alerts reach the receivers that a secret file names, behind the shipped routes."""

import json
import re
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import yaml

from tests.support.waiting import until
from tests.system.conftest import ROOT
from tests.system.support.programs import require_program
from tests.system.support.watching import alerting, alertmanager_config

ALERTS = [
    {"labels": {"alertname": "OodNoReplica", "severity": "page"}},
    {"labels": {"alertname": "OodNoTraffic", "severity": "ticket"}},
    {"labels": {"alertname": "OodLatencyHigh", "severity": "ticket"}},
]


@contextmanager
def webhook() -> Iterator[tuple[str, set[tuple[str, str]]]]:
    """An address, and which alert came to which path of it so far."""
    received: set[tuple[str, str]] = set()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            received.update((self.path, alert["labels"]["alertname"]) for alert in body["alerts"])
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name that it has there
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


def test_the_documented_receivers_are_taken(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "deploy.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```yaml\n# deploy/secrets/receivers.yml\n(.*?)```", page, re.DOTALL)
    (tmp_path / "receivers.yml").write_text(example)
    config = alertmanager_config(tmp_path, tmp_path / "receivers.yml")
    check = [require_program("amtool"), "check-config", str(config)]
    done = subprocess.run(check, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 receivers" in done.stdout


def test_pages_and_tickets_reach_their_receivers_and_consequences_nobody(tmp_path: Path) -> None:
    with webhook() as (address, received):
        kinds = ("pages", "tickets")
        receivers = [{"name": kind, "webhook_configs": [{"url": f"{address}/{kind}"}]} for kind in kinds]
        (tmp_path / "receivers.yml").write_text(yaml.safe_dump({"receivers": receivers}))
        config = alertmanager_config(tmp_path, tmp_path / "receivers.yml")
        config.write_text(config.read_text().replace("group_wait: 30s", "group_wait: 1s"))
        with alerting(config, tmp_path) as alertmanager:
            assert httpx.post(f"{alertmanager}/api/v2/alerts", json=ALERTS, timeout=10).is_success
            until(lambda: len(received) >= 2)
            # What is to come to nobody would have come by now.
            time.sleep(2)
    # No traffic is what is to be expected without a replica.
    assert received == {("/pages", "OodNoReplica"), ("/tickets", "OodLatencyHigh")}
