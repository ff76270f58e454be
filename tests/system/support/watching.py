"""A real Prometheus and a real Alertmanager with the shipped files, their intervals shortened for tests."""

import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import httpx
import yaml

from tests.system.conftest import ROOT
from tests.system.support.compose import composed
from tests.system.support.programs import free_port, require_program, running

DEPLOY = ROOT / "deploy"
PROMETHEUS = DEPLOY / "prometheus" / "prometheus.yml"
ROUTES = DEPLOY / "alertmanager" / "routes.yml"
RECEIVERS = DEPLOY / "alertmanager" / "receivers.yml"
DASHBOARDS = DEPLOY / "grafana" / "dashboards"
T = TypeVar("T")


@dataclass(frozen=True)
class Watch:
    """The two programs, by their addresses."""

    prometheus: str
    alertmanager: str

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The instant vector of an expression."""
        answer = httpx.get(f"{self.prometheus}/api/v1/query", params={"query": expression}, timeout=10).json()
        assert answer["status"] == "success", f"{expression}: {answer}"
        result: list[dict[str, Any]] = answer["data"]["result"]
        return result

    def value(self, expression: str) -> float | None:
        """The only value of an expression; None where there is none."""
        result = self.query(expression)
        assert len(result) <= 1, result
        return float(result[0]["value"][1]) if result else None

    def firing(self) -> set[str]:
        """The names of the alerts that fire."""
        return {each["metric"]["alertname"] for each in self.query('ALERTS{alertstate="firing"}')}

    def received(self) -> set[str]:
        """The names of the alerts that the Alertmanager holds."""
        alerts = httpx.get(f"{self.alertmanager}/api/v2/alerts", timeout=10).json()
        return {alert["labels"]["alertname"] for alert in alerts}


def eventually(look: Callable[[], T], good: Callable[[T], bool], seconds: float = 40) -> T:
    """What `look` returns once it is `good`, or after `seconds`: the caller asserts, and sees what it was."""
    until = time.monotonic() + seconds
    while not good(seen := look()) and time.monotonic() < until:
        time.sleep(0.3)
    return seen


@contextmanager
def watching(target: str, folder: Path) -> Iterator[Watch]:
    """Prometheus scraping `target` (host:port) every second, and its Alertmanager."""
    prometheus, listen = require_program("prometheus"), f"127.0.0.1:{free_port()}"
    with alerting(alertmanager_config(folder, RECEIVERS), folder) as alertmanager:
        config = _render(folder, target, alertmanager.removeprefix("http://"))
        scrape = [prometheus, f"--config.file={config}", "--storage.tsdb.path=data", f"--web.listen-address={listen}"]
        with running(scrape, f"http://{listen}/-/ready", folder):
            yield Watch(f"http://{listen}", alertmanager)


@contextmanager
def alerting(config: Path, folder: Path) -> Iterator[str]:
    """The address of an Alertmanager with that configuration."""
    program, listen = require_program("alertmanager", "prometheus-alertmanager"), f"127.0.0.1:{free_port()}"
    (work := folder / "alertmanager").mkdir()
    manage = [
        program,
        f"--config.file={config}",
        "--storage.path=data",
        f"--web.listen-address={listen}",
        "--cluster.listen-address=",
    ]
    with running(manage, f"http://{listen}/-/ready", work):
        yield f"http://{listen}"


def alertmanager_config(folder: Path, receivers: Path) -> Path:
    """What the container's own command makes of the shipped routes and the secret `receivers`."""
    made = folder / "alertmanager.yml"
    shell, flag, script, *_ = composed()["services"]["alertmanager"]["entrypoint"]
    for inside, here in {
        "/etc/alertmanager/routes.yml": str(ROUTES),
        "/run/secrets/receivers": str(receivers),
        "/tmp/alertmanager.yml": str(made),
        'exec alertmanager "$$@"': "exec true",
    }.items():
        assert inside in script
        script = script.replace(inside, here)
    subprocess.run([shell, flag, script], timeout=30, check=True)
    return made


def _render(folder: Path, target: str, alertmanager: str) -> Path:
    """The shipped configuration with this test's addresses, scraping and judging every second."""
    config = yaml.safe_load(PROMETHEUS.read_text())
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    config["alerting"]["alertmanagers"][0]["static_configs"][0]["targets"] = [alertmanager]
    job = next(job for job in config["scrape_configs"] if job["job_name"] == "ood-scoring")
    del job["dns_sd_configs"]
    job["static_configs"] = [{"targets": [target]}]
    config["scrape_configs"] = [job]
    (folder / "rules").mkdir(parents=True)
    for file in (DEPLOY / "prometheus" / "rules").glob("*.yml"):
        rules = yaml.safe_load(file.read_text())
        for rule in (rule for group in rules["groups"] for rule in group["rules"] if "for" in rule):
            rule["for"] = "2s"
        (folder / "rules" / file.name).write_text(yaml.safe_dump(rules))
    path = folder / "prometheus.yml"
    path.write_text(yaml.safe_dump(config))
    return path
