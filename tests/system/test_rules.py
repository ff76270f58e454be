"""The shipped Prometheus and Alertmanager files: valid, each alert shown to fire and to stay silent, with a runbook."""

import subprocess
from collections import defaultdict
from pathlib import Path

import pytest
import yaml

from tests.system.conftest import ROOT
from tests.system.support.programs import require_program
from tests.system.support.watching import DEPLOY, PROMETHEUS, RECEIVERS, alertmanager_config

RULE_TESTS = sorted((DEPLOY / "prometheus" / "tests").glob("*.yml"))
ALERTS = {
    rule["alert"]: rule
    for group in yaml.safe_load((DEPLOY / "prometheus" / "rules" / "alerts.yml").read_text())["groups"]
    for rule in group["rules"]
}


def succeeds(*command: str) -> None:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_prometheus_takes_its_configuration_and_rules() -> None:
    succeeds(require_program("promtool"), "check", "config", str(PROMETHEUS))


def test_alertmanager_takes_its_configuration(tmp_path: Path) -> None:
    succeeds(require_program("amtool"), "check-config", str(alertmanager_config(tmp_path, RECEIVERS)))


@pytest.mark.parametrize("file", RULE_TESTS, ids=lambda file: file.stem)
def test_rules_do_what_their_unit_tests_say(file: object) -> None:
    succeeds(require_program("promtool"), "test", "rules", str(file))


def test_every_alert_has_a_unit_test_that_fires_and_one_that_stays_silent() -> None:
    seen: dict[str, set[bool]] = defaultdict(set)
    for file in RULE_TESTS:
        for story in yaml.safe_load(file.read_text())["tests"]:
            for check in story["alert_rule_test"]:
                # Silent for some series of a story is silent, too: exp_alerts lists all that fire.
                seen[check["alertname"]].add(bool(check["exp_alerts"]))
    assert {alert: {True, False} for alert in ALERTS} == seen


@pytest.mark.parametrize("alert", ALERTS)
def test_every_alert_leads_to_its_entry_in_the_runbook(alert: str) -> None:
    page, anchor = ALERTS[alert]["annotations"]["runbook_url"].split("#")
    headings = [line[3:].strip() for line in (ROOT / page).read_text().splitlines() if line.startswith("## ")]
    assert alert in headings
    assert anchor == alert.lower()
    assert ALERTS[alert]["labels"]["severity"] in {"page", "ticket"}
