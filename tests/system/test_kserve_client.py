"""KServe's own clients, over REST and gRPC, get the scores of the native route."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.service.conftest import make_image_models, make_text_models, running_service
from tests.service.support.pictures import encoded, picture
from tests.system.support.kserve import install_kserve

PROGRAM = Path(__file__).parent / "support" / "kserve_client.py"
TEXTS = ["the goal of the match", "a vote in parliament"]
FORMS = {"tiny": ("files binary", "files json", "pixels binary", "pixels json")}
FORMS |= {"topics": ("texts binary", "texts json", "texts plain")}


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The answers of KServe's clients.

    `rest` and `grpc` are those that the program prints, `native` the results of the native route, and `example` is the
    output of the documentation's example.
    """
    python = install_kserve(tmp_path_factory.mktemp("kserve"))
    folder = tmp_path_factory.mktemp("models")
    make_image_models(folder)
    make_text_models(folder)
    file = tmp_path_factory.mktemp("files") / "image.png"
    file.write_bytes(picture())
    with running_service(folder, grpc_port=0, timeout_ms=120_000) as live:
        addresses = (f"http://127.0.0.1:{live.port}", str(live.app.state.grpc_port.address))
        # `-P`: without it the folder of the program, which has a module `kserve`, would be searched for imports.
        command = [str(python), "-P", str(PROGRAM), *addresses, str(file)]
        result = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
        assert result.returncode == 0, result.stderr
        inputs: dict[str, list[dict[str, str]]] = {
            "tiny": [{"image": encoded(picture())}] * 2,
            "topics": [{"text": text} for text in TEXTS],
        }
        native = {
            model: live.score(model=model, json={"inputs": items, "alpha": 0.2}).json()["results"]
            for model, items in inputs.items()
        }
        page = Path("docs/open-inference-protocol.md").read_text(encoding="utf-8")
        (documented,) = re.findall(r"<!-- example:kserve -->\n```py\n(.*?)```", page, flags=re.DOTALL)
        local = documented.replace("http://127.0.0.1:8000", addresses[0]).replace("trec-gru", "topics")
        example = subprocess.run([str(python), "-c", local], capture_output=True, text=True, timeout=240, check=True)
    return {**json.loads(result.stdout), "native": native, "example": json.loads(example.stdout.lower())}


# Installing the client takes longer than any other test.
pytestmark = pytest.mark.timeout(1200)


@pytest.mark.parametrize("transport", ["rest", "grpc"])
def test_every_form_of_the_inputs_is_scored_as_natively(answers: dict[str, Any], transport: str) -> None:
    for model, forms in FORMS.items():
        results = answers["native"][model]
        expected = {
            "flagged": [result["flagged"] for result in results],
            "p_value": [result["p_value"] for result in results],
            "label": [result["prediction"]["label"] for result in results],
            "msp": [result["scores"]["msp"]["value"] for result in results],
        }
        for form in forms:
            # Over gRPC, files are not in base64.
            if (transport, form) != ("grpc", "files json"):
                answer = answers[transport][f"{model} {form}"]
                assert answer == {"model": model, "id": f"{model} {form}", "outputs": expected}


def test_a_request_for_no_outputs_gets_all(answers: dict[str, Any]) -> None:
    results = answers["native"]["topics"]
    assert answers["rest"]["whole"]["p_value"] == [result["p_value"] for result in results]
    assert answers["rest"]["whole"]["label"] == [result["prediction"]["label"] for result in results]


@pytest.mark.parametrize("transport", ["rest", "grpc"])
def test_health_and_errors_are_what_the_clients_expect(answers: dict[str, Any], transport: str) -> None:
    answer = answers[transport]
    assert (answer["live"], answer["ready"], answer["model"]) == (True, True, True)
    status, message = answer["error"]
    assert status == {"rest": 404, "grpc": "NOT_FOUND"}[transport]
    assert message.startswith("unknown-model: No model 'none' is served")
    if transport == "rest":
        assert answer["unknown"] is False


def test_the_example_of_the_documentation_runs(answers: dict[str, Any]) -> None:
    assert len(answers["example"]) == 2
    assert all(isinstance(flagged, bool) for flagged in answers["example"])
