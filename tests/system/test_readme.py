"""The README's example is true: its commands run as written and its answer is what the service says."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.system.conftest import ROOT, Service, Start

README = (ROOT / "README.md").read_text(encoding="utf-8")


def fenced(kind: str) -> list[str]:
    """The README's code blocks of one kind."""
    return re.findall(rf"```{kind}\n(.*?)```", README, flags=re.DOTALL)


def run(command: str, service: Service) -> dict[str, object]:
    """What a command of the README prints, sent to this test's service."""
    here = command.replace("http://127.0.0.1:8000", service.address)
    done = subprocess.run(["bash", "-c", here], cwd=ROOT, capture_output=True, text=True, timeout=30, check=True)
    answer: dict[str, object] = json.loads(done.stdout)
    return answer


@pytest.fixture
def service(start: Start) -> Service:
    return start(Path("models"), "--grpc-port", "0")


def test_the_example_request_gets_the_example_answer(service: Service) -> None:
    command = next(block for block in fenced("sh") if "sample.png" in block)
    shown = json.loads(fenced("json")[0])
    assert run(command, service) == approximately(shown)


def test_the_request_of_several_scores_the_good_input_and_explains_the_bad_one(service: Service) -> None:
    command = next(block for block in fenced("sh") if "-F file=@README.md" in block)
    answer = run(command, service)
    assert answer["errors"] == 1
    results = answer["results"]
    assert isinstance(results, list)
    assert len(results[0]["scores"]) == 5
    assert results[1]["error"]["type"] == "undecodable-image"


def test_the_requests_of_the_open_inference_protocol_get_what_the_guide_promises(service: Service) -> None:
    command = next(block for block in fenced("sh") if "/v2/" in block)
    answer = run(command, service)
    assert isinstance(answer["outputs"], list)
    assert {output["name"]: output["data"] for output in answer["outputs"]}["flagged"] == [False, True]
    guide = (ROOT / "docs" / "open-inference-protocol.md").read_text(encoding="utf-8")
    scripts = re.findall(r"```python\n(.*?)```", guide, flags=re.DOTALL)
    assert ["tritonclient.http" in script for script in scripts] == [True, False]
    for script in scripts:
        here = script.replace("127.0.0.1:8000", service.address.removeprefix("http://"))
        here = here.replace("127.0.0.1:8001", service.grpc_address)
        done = subprocess.run(
            [sys.executable, "-c", here], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
        )
        assert done.stdout.startswith("[False] [0.3750")
        assert "truck" in done.stdout


def test_the_collection_is_scored_and_read_as_the_example_shows(tmp_path: Path) -> None:
    score = next(block for block in fenced("sh") if "score-dataset" in block).splitlines()[-1]
    read = next(block for block in fenced("sh") if "read_parquet" in block)
    output = str(tmp_path / "scored")
    for command, said in (
        (score.replace(" scored ", f" {output} "), "4 inputs"),
        (read.replace("scored", output), "roc.png"),
    ):
        here = command.replace("python ", f"{sys.executable} ", 1)
        done = subprocess.run(["bash", "-c", here], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
        assert said in done.stdout


def approximately(value: object) -> object:
    """`value` with its floats compared to within rounding: processors differ in the last digits."""
    if isinstance(value, dict):
        return {key: approximately(each) for key, each in value.items()}
    if isinstance(value, list):
        return [approximately(each) for each in value]
    return pytest.approx(value, rel=1e-3, abs=1e-4) if isinstance(value, float) else value
