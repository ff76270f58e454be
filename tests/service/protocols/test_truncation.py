"""A text that the model reads only in part: its result says so over every protocol, and a metric counts it."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from tritonclient import grpc as over_grpc
from tritonclient import http as over_http

from tests.service.conftest import Live, Serve, make_text_models, running_service
from tests.service.support.exposition import value
from tests.service.support.pictures import encoded, picture

# The models of these tests read 32 tokens.
SHORT, FULL, LONG, LONGER = "ball", "ball " * 32, "ball " * 50, "ball " * 800
NAMES = ("truncated", "tokens_read", "tokens_total")


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    root = tmp_path_factory.mktemp("texts")
    make_text_models(root)
    with running_service(root, grpc_port=0) as service:
        yield service


def results(live: Live, *texts: str, model: str = "topics", **options: Any) -> list[dict[str, Any]]:
    answer = live.score(model=model, json={"inputs": list(texts), **options})
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["results"]
    return found


@pytest.mark.parametrize("model", ["topics", "words"])
def test_a_result_says_that_the_text_was_read_in_part(live: Live, model: str) -> None:
    short, full, long, longer = results(live, SHORT, FULL, LONG, LONGER, model=model)
    assert not set(short) & {*NAMES, "tokens_total_exact"}
    assert not set(full) & {*NAMES, "tokens_total_exact"}
    expected = {"truncated": True, "tokens_read": 32, "tokens_total": 50, "tokens_total_exact": True}
    assert expected.items() <= long.items()
    # The words after the first 192 characters are counted, not encoded.
    assert longer["tokens_total"] == 800
    assert longer["tokens_total_exact"] is False
    # The beginning alone has the same scores, and is not truncated.
    assert long["scores"] == full["scores"]


def test_other_forms_of_a_request_say_the_same(live: Live) -> None:
    body = live.client.post("/v1/models/topics/score", content=LONG, headers={"content-type": "text/plain"})
    form = live.client.post("/v1/models/topics/score", files={"text": (None, LONG)})
    for answer in (body, form):
        (result,) = answer.json()["results"]
        assert (result["truncated"], result["tokens_read"], result["tokens_total"]) == (True, 32, 50)


def test_an_explanation_stands_beside_the_number_of_tokens_that_it_leaves_out(live: Live) -> None:
    (result,) = results(live, LONG, model="words", explain=True)
    assert len(result["explanation"]["tokens"]) == result["tokens_read"] == 32
    assert result["tokens_total"] == 50


def test_truncated_texts_are_counted_by_model(live: Live) -> None:
    before = value(live.client, "ood_truncated_inputs_total", model="topics", version="1")
    results(live, SHORT, LONG, LONGER, FULL)
    assert value(live.client, "ood_truncated_inputs_total", model="topics", version="1") == before + 2


def test_texts_of_the_open_inference_protocol_say_so_in_parameters_and_outputs(live: Live) -> None:
    tensor = {"name": "texts", "datatype": "BYTES", "shape": [3], "data": [SHORT, LONG, LONGER]}
    plain = live.client.post("/v2/models/topics/infer", json={"inputs": [tensor]}).json()
    assert plain["parameters"] == {
        "truncated": True,
        "warnings": "element 1: the model read 32 of 50 tokens; element 2: the model read 32 of at least 800 tokens",
    }
    # Clients that ask for nothing get the outputs that they are used to.
    assert not {output["name"] for output in plain["outputs"]} & set(NAMES)
    short = live.client.post("/v2/models/topics/infer", json={"inputs": [tensor | {"shape": [1], "data": [SHORT]}]})
    assert "parameters" not in short.json()
    asked = {"inputs": [tensor], "outputs": [{"name": name} for name in NAMES]}
    outputs = live.client.post("/v2/models/topics/infer", json=asked).json()["outputs"]
    assert {output["name"]: output["data"] for output in outputs} == {
        "truncated": [False, True, True],
        "tokens_read": [1, 32, 32],
        "tokens_total": [1, 50, 800],
    }
    many = tensor | {"shape": [20], "data": [LONG] * 20}
    warnings = live.client.post("/v2/models/topics/infer", json={"inputs": [many]}).json()["parameters"]["warnings"]
    assert warnings.count("element ") == 8
    assert warnings.endswith("20 elements are truncated in all; the output `truncated` tells which")


@pytest.mark.parametrize("module", [over_http, over_grpc], ids=["http", "grpc"])
def test_tritons_clients_read_parameters_and_outputs(live: Live, module: Any) -> None:
    address = f"127.0.0.1:{live.port}" if module is over_http else live.app.state.grpc_port.address
    with module.InferenceServerClient(str(address)) as client:
        metadata = client.get_model_metadata("topics")
        listed = metadata["outputs"] if module is over_http else metadata.outputs
        assert set(NAMES) <= {item["name"] if module is over_http else item.name for item in listed}
        texts = module.InferInput("texts", [2], "BYTES").set_data_from_numpy(np.array([SHORT, LONG], dtype=object))
        answer = client.infer("topics", [texts], outputs=[module.InferRequestedOutput(name) for name in NAMES])
        assert [answer.as_numpy(name).tolist() for name in NAMES] == [[False, True], [1, 32], [1, 50]]
        response = answer.get_response()
        truncated = (
            response["parameters"]["truncated"]
            if module is over_http
            else (response.parameters["truncated"].bool_param)
        )
        assert truncated is True


def test_images_have_no_tokens(serve: Serve, tiny_bundle: Any) -> None:
    with serve(tiny_bundle.parents[1]) as live:
        (result,) = live.score(model="tiny", json={"inputs": [{"image": encoded(picture())}]}).json()["results"]
        assert not set(result) & set(NAMES)
        tensor = {"name": "images", "datatype": "BYTES", "shape": [1], "data": [encoded(picture())]}
        answer = live.client.post(
            "/v2/models/tiny/infer", json={"inputs": [tensor], "outputs": [{"name": "truncated"}]}
        )
        assert "there is no output 'truncated'" in answer.json()["error"]
