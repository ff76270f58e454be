"""The documentation's examples run as written, and their answers are the ones shown."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from service import load_settings
from tests.system.support.service_process import ROOT, ServiceProcess


def page(name: str) -> str:
    """The text of a page, by its path in the repository."""
    return (ROOT / name).read_text(encoding="utf-8")


def example(name: str, marker: str) -> str:
    """The code block below `<!-- example:MARKER -->` on a page."""
    match = re.search(rf"<!-- example:{marker} -->\n```\w+\n(.*?)```", page(name), flags=re.DOTALL)
    assert match, f"{name} has no example {marker}"
    return match[1]


def run(command: str, service: ServiceProcess) -> dict[str, object]:
    """The JSON that a command of the documentation prints, sent to this test's service."""
    local = command.replace("http://127.0.0.1:8000", service.address)
    done = subprocess.run(["bash", "-c", local], cwd=ROOT, capture_output=True, text=True, timeout=30, check=True)
    answer: dict[str, object] = json.loads(done.stdout)
    return answer


@pytest.fixture(scope="module")
def service() -> Iterator[ServiceProcess]:
    """A service with the shipped models; no example changes its state."""
    process = ServiceProcess(Path("models"), "--grpc-port", "0")
    yield process
    process.close()


def test_the_readme_has_at_most_a_thousand_words() -> None:
    assert len(page("README.md").split()) <= 1000


def test_every_local_link_of_the_documentation_exists() -> None:
    broken = []
    for file in (*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")):
        for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", file.read_text(encoding="utf-8")):
            if "://" not in target and not (file.parent / target).exists():
                broken.append(f"{file.name}: {target}")
    assert broken == []


def test_every_link_to_a_heading_of_the_documentation_exists() -> None:
    broken = []
    for file in (*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")):
        for target, anchor in re.findall(r"\]\(([^)#\s]*)#([^)\s]+)\)", file.read_text(encoding="utf-8")):
            if "://" in target:
                continue
            headings = re.findall(
                r"^#+ (.*)$", (file.parent / target if target else file).read_text(), flags=re.MULTILINE
            )
            slugs = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
            if anchor not in slugs:
                broken.append(f"{file.name}: {target}#{anchor}")
    assert broken == []


def test_every_function_that_the_architecture_page_names_exists() -> None:
    named = re.findall(r"`((?:service|training|bundle)/[\w/]+\.py):(\w+)`", page("docs/architecture.md"))
    assert len(named) > 40
    missing = [
        f"{file}:{name}"
        for file, name in named
        if not re.search(rf"^\s*(?:async def|def|class) {name}\b", page(file), flags=re.MULTILINE)
    ]
    assert missing == []


def test_every_file_that_the_architecture_page_names_exists() -> None:
    paths = re.findall(r"`((?:service|training|bundle|benchmarks)/[\w/]+(?:\.py|/))`", page("docs/architecture.md"))
    assert [path for path in paths if not (ROOT / path).exists()] == []


def test_the_generated_tables_are_current() -> None:
    command = [sys.executable, "docs/generate.py", "--check"]
    done = subprocess.run(
        command,
        check=False,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": "."},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr


def test_the_example_request_gets_the_example_answer(service: ServiceProcess) -> None:
    shown = json.loads(example("README.md", "answer"))
    assert run(example("README.md", "request"), service) == approximately(shown)


def test_the_request_of_several_scores_the_good_input_and_explains_the_bad_one(service: ServiceProcess) -> None:
    answer = run(example("README.md", "several"), service)
    assert answer["errors"] == 1
    results = answer["results"]
    assert isinstance(results, list)
    assert len(results[0]["scores"]) == 5
    assert results[1]["error"]["type"] == "undecodable-image"


def test_the_example_text_is_flagged(service: ServiceProcess) -> None:
    answer = run(example("README.md", "text"), service)
    assert isinstance(answer["results"], list)
    assert answer["results"][0]["flagged"] is True


def test_the_explained_text_has_the_bits_that_the_page_states(service: ServiceProcess) -> None:
    answer = run(example("docs/likelihoods.md", "explain"), service)
    assert isinstance(answer["results"], list)
    bits = {entry["token"]: entry["bits"] for entry in answer["results"][0]["explanation"]["tokens"]}
    stated = f'"because" costs {bits["because"]:.0f} bits and "said" {bits["said"]:.0f}.'
    assert stated in (ROOT / "docs/likelihoods.md").read_text(encoding="utf-8")
    assert "dragon" not in bits


def test_the_requests_of_the_open_inference_protocol_get_the_answers_that_the_page_states(
    service: ServiceProcess,
) -> None:
    guide = "docs/open-inference-protocol.md"
    answer = run(example(guide, "v2"), service)
    assert isinstance(answer["outputs"], list)
    assert {output["name"]: output["data"] for output in answer["outputs"]}["flagged"] == [False, True]
    scripts = re.findall(r"```python\n(.*?)```", page(guide), flags=re.DOTALL)
    assert ["tritonclient.http" in script for script in scripts] == [True, False]
    for script in scripts:
        local = script.replace("127.0.0.1:8000", service.address.removeprefix("http://"))
        local = local.replace("127.0.0.1:8001", service.grpc_address)
        done = subprocess.run(
            [sys.executable, "-c", local], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
        )
        assert done.stdout.startswith("[False] [0.3750")
        assert "truck" in done.stdout


def test_the_collection_is_scored_and_read_as_the_example_shows(tmp_path: Path) -> None:
    score = example("docs/score-dataset.md", "score-dataset").splitlines()[-1]
    read = example("docs/score-dataset.md", "read-scores")
    output = str(tmp_path / "scored")
    for command, printed in (
        (score.replace(" scored ", f" {output} "), "4 inputs"),
        (read.replace("scored", output), "roc.png"),
    ):
        local = command.replace("python ", f"{sys.executable} ", 1)
        done = subprocess.run(["bash", "-c", local], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
        assert printed in done.stdout


def test_the_settings_file_of_the_operating_page_is_valid(tmp_path: Path) -> None:
    (shown,) = re.findall(r"```yaml\n# service.yaml\n(.*?)```", page("docs/operating.md"), flags=re.DOTALL)
    file = tmp_path / "service.yaml"
    file.write_text(shown)
    assert load_settings(file=file).port == 9000


def approximately(value: object) -> object:
    """`value` with floats that compare equal within rounding, because processors differ in the last digits."""
    if isinstance(value, dict):
        return {key: approximately(item) for key, item in value.items()}
    if isinstance(value, list):
        return [approximately(item) for item in value]
    return pytest.approx(value, rel=1e-3, abs=1e-4) if isinstance(value, float) else value
