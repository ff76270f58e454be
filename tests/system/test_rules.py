"""The shipped Prometheus and Alertmanager files: they are valid, and every alert has unit tests and a runbook entry."""

import subprocess
from collections import defaultdict
from pathlib import Path

import pytest
import yaml

from tests.system.support.programs import require_program
from tests.system.support.prometheus import DEPLOY, PROMETHEUS, RECEIVERS, alertmanager_config
from tests.system.support.service_process import ROOT, TIMEOUT_SECONDS

RULE_TESTS = sorted((DEPLOY / "prometheus" / "tests").glob("*.yml"))
ALERTS = {
    rule["alert"]: rule
    for group in yaml.safe_load((DEPLOY / "prometheus" / "rules" / "alerts.yml").read_text())["groups"]
    for rule in group["rules"]
}


def run_successfully(*command: str) -> None:
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=TIMEOUT_SECONDS, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


def test_the_configuration_and_rules_of_prometheus_are_valid() -> None:
    run_successfully(require_program("promtool"), "check", "config", str(PROMETHEUS))


def test_the_configuration_of_alertmanager_is_valid(tmp_path: Path) -> None:
    run_successfully(require_program("amtool"), "check-config", str(alertmanager_config(tmp_path, RECEIVERS)))


@pytest.mark.parametrize("file", RULE_TESTS, ids=lambda file: file.stem)
def test_the_unit_tests_of_the_rules_pass(file: Path) -> None:
    run_successfully(require_program("promtool"), "test", "rules", str(file))


def test_every_alert_has_a_unit_test_in_which_it_fires_and_one_in_which_it_does_not() -> None:
    outcomes: dict[str, set[bool]] = defaultdict(set)
    for file in RULE_TESTS:
        for test in yaml.safe_load(file.read_text())["tests"]:
            for check in test["alert_rule_test"]:
                outcomes[check["alertname"]].add(bool(check["exp_alerts"]))
    assert outcomes == {alert: {True, False} for alert in ALERTS}


@pytest.mark.parametrize("alert", ALERTS)
def test_every_alert_links_to_its_entry_in_the_runbook(alert: str) -> None:
    page, anchor = ALERTS[alert]["annotations"]["runbook_url"].split("#")
    headings = [line[3:].strip() for line in (ROOT / page).read_text().splitlines() if line.startswith("## ")]
    assert alert in headings
    assert anchor == alert.lower()
    assert ALERTS[alert]["labels"]["severity"] in {"page", "ticket"}
