"""A running Prometheus and Alertmanager with the shipped files, whose intervals are shortened."""

import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import httpx
import yaml
from prometheus_client.parser import text_string_to_metric_families

from tests.system.support.compose import read_compose_file
from tests.system.support.programs import free_port, require_program, running
from tests.system.support.service_process import ROOT, TIMEOUT_SECONDS

DEPLOY = ROOT / "deploy"
PROMETHEUS = DEPLOY / "prometheus" / "prometheus.yml"
ROUTES = DEPLOY / "alertmanager" / "routes.yml"
RECEIVERS = DEPLOY / "alertmanager" / "receivers.yml"
DASHBOARDS = DEPLOY / "grafana" / "dashboards"
FOR_SECONDS = 2
"""How long the condition of every rule with `for` must hold before its alert fires."""
T = TypeVar("T")


@dataclass(frozen=True)
class Monitoring:
    """The URLs of Prometheus and Alertmanager."""

    prometheus: str
    alertmanager: str

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The instant vector of an expression."""
        content = _get(f"{self.prometheus}/api/v1/query", query=expression)
        assert content["status"] == "success", f"{expression}: {content}"
        result: list[dict[str, Any]] = content["data"]["result"]
        return result

    def value(self, expression: str) -> float | None:
        """The only value of an expression; None if there is none."""
        result = self.query(expression)
        assert len(result) <= 1, result
        return float(result[0]["value"][1]) if result else None

    def firing(self) -> set[str]:
        """The names of the firing alerts."""
        return {sample["metric"]["alertname"] for sample in self.query('ALERTS{alertstate="firing"}')}

    def received(self) -> set[str]:
        """The names of the alerts in the Alertmanager."""
        return {alert["labels"]["alertname"] for alert in _get(f"{self.alertmanager}/api/v2/alerts")}

    def now(self) -> float:
        """The time on Prometheus's clock."""
        return float(self.value("vector(time())") or 0)

    def last_evaluation(self) -> float:
        """The time on Prometheus's clock at which every group of rules was last evaluated."""
        metrics = httpx.get(f"{self.prometheus}/metrics", timeout=TIMEOUT_SECONDS).text
        name = "prometheus_rule_group_last_evaluation_timestamp_seconds"
        families = {family.name: family for family in text_string_to_metric_families(metrics)}
        return min(sample.value for sample in families[name].samples)


def _get(url: str, **parameters: str) -> Any:
    return httpx.get(url, params=parameters, timeout=TIMEOUT_SECONDS).json()


def eventually(read: Callable[[], T], condition: Callable[[T], bool], seconds: float = TIMEOUT_SECONDS) -> T:
    """The result of `read` once it meets `condition`, or after `seconds`, so that the caller's assertion shows it."""
    end = time.monotonic() + seconds
    while not condition(result := read()) and time.monotonic() < end:
        time.sleep(0.3)
    return result


@contextmanager
def running_monitoring(target: str, folder: Path) -> Iterator[Monitoring]:
    """Run a Prometheus that scrapes `target` (host:port) every second, and its Alertmanager."""
    prometheus, address = require_program("prometheus"), f"127.0.0.1:{free_port()}"
    with running_alertmanager(alertmanager_config(folder, RECEIVERS), folder) as alertmanager:
        config = _prometheus_config(folder, target, alertmanager.removeprefix("http://"))
        flags = [f"--config.file={config}", "--storage.tsdb.path=data", f"--web.listen-address={address}"]
        with running([prometheus, *flags], f"http://{address}/-/ready", folder):
            yield Monitoring(f"http://{address}", alertmanager)


@contextmanager
def running_alertmanager(config: Path, folder: Path) -> Iterator[str]:
    """Run an Alertmanager with that configuration; yields its URL."""
    program, address = require_program("alertmanager", "prometheus-alertmanager"), f"127.0.0.1:{free_port()}"
    (data := folder / "alertmanager").mkdir()
    command = [
        program,
        f"--config.file={config}",
        "--storage.path=data",
        f"--web.listen-address={address}",
        "--cluster.listen-address=",
    ]
    with running(command, f"http://{address}/-/ready", data):
        yield f"http://{address}"


def alertmanager_config(folder: Path, receivers: Path) -> Path:
    """Run the container's own command to combine the shipped routes with the secret `receivers`."""
    config = folder / "alertmanager.yml"
    shell, flag, script, *_ = read_compose_file()["services"]["alertmanager"]["entrypoint"]
    for in_container, replacement in {
        "/etc/alertmanager/routes.yml": str(ROUTES),
        "/run/secrets/receivers": str(receivers),
        "/tmp/alertmanager.yml": str(config),
        'exec alertmanager "$$@"': "exec true",
    }.items():
        assert in_container in script
        script = script.replace(in_container, replacement)
    subprocess.run([shell, flag, script], timeout=TIMEOUT_SECONDS, check=True)
    return config


def _prometheus_config(folder: Path, target: str, alertmanager: str) -> Path:
    """The shipped configuration with the test's addresses, and with intervals of a second."""
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
            rule["for"] = f"{FOR_SECONDS}s"
        (folder / "rules" / file.name).write_text(yaml.safe_dump(rules))
    path = folder / "prometheus.yml"
    path.write_text(yaml.safe_dump(config))
    return path
