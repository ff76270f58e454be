"""Keys that clients of KServe, Triton and MLServer add are ignored; mistyped and misplaced options are refused."""

import base64
import json
import tracemalloc
from typing import Any

import httpx
import pytest

from service.protocols.open_inference.annotations import PARAMETERS, Annotations
from tests.service.conftest import Live
from tests.service.support.pictures import encoded, picture
from tests.service.support.texts import SPORTS

FILE = encoded(picture())
IMAGE = {"name": "images", "datatype": "BYTES", "shape": [1], "data": [FILE]}
ANNOTATIONS: dict[str, Any] = {
    # MLServer's codecs and its other parameters.
    "content_type": "str",
    "headers": {"x-forwarded-for": "10.0.0.1"},
    # Triton's.
    "priority": 3,
    "timeout": 5000,
    "sequence_id": 42,
    "sequence_start": True,
    "sequence_end": False,
    "triton_enable_empty_final_response": True,
    "classification": 3,
    # Those of users.
    "trace_id": "abc",
    "tenant": None,
    "feature_names": ["a", "b"],
}


def infer(live: Live, body: dict[str, Any], model: str = "tiny") -> httpx.Response:
    return live.client.post(f"/v2/models/{model}/infer", json=body)


def outputs_of(answer: httpx.Response) -> Any:
    assert answer.status_code == 200, answer.text
    return answer.json()["outputs"]


@pytest.mark.parametrize("name", ANNOTATIONS)
def test_annotations_change_nothing_wherever_they_are(live: Live, name: str) -> None:
    annotation = {name: ANNOTATIONS[name]}
    outputs = [{"name": "flagged"}, {"name": "msp"}]
    expected = outputs_of(infer(live, {"inputs": [IMAGE], "outputs": outputs}))
    for body in (
        {"inputs": [IMAGE], "outputs": outputs, **annotation},
        {"inputs": [IMAGE], "outputs": outputs, "parameters": annotation},
        {"inputs": [IMAGE | annotation], "outputs": outputs},
        {"inputs": [IMAGE | {"parameters": annotation}], "outputs": outputs},
        {"inputs": [IMAGE], "outputs": [outputs[0] | annotation, outputs[1] | {"parameters": annotation}]},
    ):
        assert outputs_of(infer(live, body)) == expected


def test_names_of_the_model_in_the_body_do_not_choose_it(live: Live) -> None:
    answer = infer(live, {"id": "1", "model_name": "grey", "model_version": "1", "inputs": [IMAGE]})
    assert (answer.json()["model_name"], answer.json()["model_version"]) == ("tiny", "2")


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        *((name, "alpha") for name in ("alhpa", "Alpha", "alpa", "alphas", "alpha_level", "maxAlpha")),
        *((name, "threshold") for name in ("treshold", "thresholds", "Threshold", "score_threshold")),
        *((name, "scores") for name in ("score", "Scores", "scors", "returnScores")),
        *((name, "timeout_ms") for name in ("timeoutMs", "timeout_s", "timeout-ms", "request_timeout", "TIMEOUT_MS")),
        *((name, "binary_data_output") for name in ("binary_output", "binary_data_outputs", "binaryDataOutput")),
    ],
)
def test_a_key_that_resembles_an_option_is_refused_wherever_it_is(live: Live, name: str, meant: str) -> None:
    wrong = {name: 1}
    for location, body in {
        "": {"inputs": [IMAGE], **wrong},
        "parameters.": {"inputs": [IMAGE], "parameters": wrong},
        "inputs.0.": {"inputs": [IMAGE | wrong]},
        "inputs.0.parameters.": {"inputs": [IMAGE | {"parameters": wrong}]},
        "outputs.0.parameters.": {"inputs": [IMAGE], "outputs": [{"name": "msp", "parameters": wrong}]},
    }.items():
        answer = infer(live, body)
        assert answer.status_code == 422
        message = answer.json()["error"]
        assert message.startswith(f"invalid-parameter: {location}{name}: no such ")
        assert f"`{meant}`" in message or (location == "parameters." and meant in message)


@pytest.mark.parametrize("name", PARAMETERS)
def test_an_option_outside_of_the_parameters_is_refused(live: Live, name: str) -> None:
    for body in ({"inputs": [IMAGE], name: 1}, {"inputs": [IMAGE | {"parameters": {name: 1}}]}):
        message = infer(live, body).json()["error"]
        assert f"{name}: no such key; leave it out, or put `{name}` into the `parameters` of the request" in message


def test_more_unknown_keys_than_clients_send_are_refused_before_they_are_compared(live: Live) -> None:
    keys = {f"k{index}": index for index in range(200)}
    for body in ({"inputs": [IMAGE], "parameters": keys}, {"inputs": [IMAGE | keys]}, {"inputs": [IMAGE], **keys}):
        assert "the request has more than 128 keys that are not known here" in infer(live, body).json()["error"]
    spread = [{"name": "msp", f"k{index}": 1} for index in range(200)]
    assert "the request has more than 128 keys" in infer(live, {"inputs": [IMAGE], "outputs": spread}).json()["error"]


def test_elements_in_base64_are_decoded_as_mlservers_codec_says(live: Live, text_live: Live) -> None:
    expected = outputs_of(infer(live, {"inputs": [IMAGE]}))
    declared = {"parameters": {"content_type": "base64"}}
    assert outputs_of(infer(live, {"inputs": [IMAGE | declared]})) == expected
    text = {"name": "texts", "datatype": "BYTES", "shape": [1], "data": [SPORTS]}
    of_text = outputs_of(infer(text_live, {"inputs": [text]}, "topics"))
    in_base64 = text | {"data": [base64.b64encode(SPORTS.encode()).decode()]} | declared
    assert outputs_of(infer(text_live, {"inputs": [in_base64]}, "topics")) == of_text
    # As MLServer does, an element that is not base64 is taken as it is.
    assert outputs_of(infer(text_live, {"inputs": [text | declared]}, "topics")) == of_text
    for file in (picture(), base64.b64encode(picture())):
        data = len(file).to_bytes(4, "little") + file
        tensor = IMAGE | {"data": None, "parameters": {"binary_data_size": len(data), "content_type": "base64"}}
        head = json.dumps({"inputs": [tensor]}).encode()
        headers = {"inference-header-content-length": str(len(head))}
        answer = live.client.post("/v2/models/tiny/infer", content=head + data, headers=headers)
        assert outputs_of(answer) == expected


def test_long_keys_of_clients_are_not_kept_in_memory() -> None:
    def check_keys(count: int) -> None:
        for number in range(count):
            Annotations().check("parameters.", [f"{number}-" + "x" * 1_000_000])

    check_keys(1)
    tracemalloc.start()
    try:
        check_keys(20)
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 1_000_000
