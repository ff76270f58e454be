"""The Open Inference Protocol over REST: Triton's client gets the scores of the native route for the same inputs."""

import sys
from collections.abc import Iterator, Sequence
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from tritonclient.http import InferenceServerClient, InferInput, InferRequestedOutput
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from tests.service.conftest import Live
from tests.service.support.exposition import value
from tests.service.support.pictures import encoded, picture
from tests.service.support.texts import POLITICS, SCIENCE, SPORTS
from tests.support.tiny_bundle import tiny_images

PICTURES = [picture("red"), picture("lime", (20, 30), "JPEG"), picture("gray", file_format="WEBP")]
TEXTS = [SPORTS, POLITICS, "naïve ☃ of the proof", SCIENCE * 20]
NEVER_FLAGGED = sys.float_info.max


@pytest.fixture(scope="module")
def client(live: Live) -> Iterator[InferenceServerClient]:
    with InferenceServerClient(f"127.0.0.1:{live.port}") as connected:
        yield connected


@pytest.fixture(scope="module")
def text_client(text_live: Live) -> Iterator[InferenceServerClient]:
    with InferenceServerClient(f"127.0.0.1:{text_live.port}") as connected:
        yield connected


def tensor(name: str, data: NDArray[Any], *, binary: bool = True) -> InferInput:
    empty = InferInput(name, list(data.shape), np_to_triton_dtype(data.dtype))
    return empty.set_data_from_numpy(data, binary_data=binary)


def elements(values: Sequence[bytes | str]) -> NDArray[np.object_]:
    return np.array(values, dtype=np.object_)


def native(live: Live, model: str, inputs: Sequence[dict[str, str]], **options: Any) -> list[dict[str, Any]]:
    """The results of the native route for the same inputs."""
    answer = live.score(model=model, json={"inputs": list(inputs), "scores": "all", **options}).json()
    assert answer["errors"] == 0
    results: list[dict[str, Any]] = answer["results"]
    return results


def assert_equal_to_native(answer: Any, results: Sequence[dict[str, Any]]) -> None:
    """Assert that every output of every score equals the result of the native route to the last bit."""
    for name, datatype in {"flagged": np.bool_, "p_value": np.float64}.items():
        assert answer.as_numpy(name).tolist() == [result[name] for result in results]
        assert answer.as_numpy(name).dtype == datatype
    if results[0]["prediction"] is not None:
        texts = [label.decode() if isinstance(label, bytes) else label for label in answer.as_numpy("label")]
        assert texts == [result["prediction"]["label"] for result in results]
        assert answer.as_numpy("prediction").tolist() == [result["prediction"]["index"] for result in results]
        assert answer.as_numpy("probability").tolist() == [result["prediction"]["probability"] for result in results]
    first, *further = results[0]["scores"]
    for score, prefix in [(first, ""), *((score, f"{score}.") for score in further)]:
        expected = [result["scores"][score] for result in results]
        assert answer.as_numpy(score).dtype == np.float32
        assert answer.as_numpy(score).tolist() == [entry["value"] for entry in expected]
        for field in ("anomaly", "p_value", "flagged"):
            assert answer.as_numpy(prefix + field).tolist() == [entry[field] for entry in expected]
        thresholds = [NEVER_FLAGGED if entry["threshold"] is None else entry["threshold"] for entry in expected]
        assert answer.as_numpy(f"{prefix}threshold").tolist() == thresholds


def all_outputs(client: InferenceServerClient, model: str, *, binary: bool) -> list[InferRequestedOutput]:
    """Every output in the metadata of the model."""
    return [
        InferRequestedOutput(output["name"], binary_data=binary)
        for output in client.get_model_metadata(model)["outputs"]
    ]


@pytest.mark.parametrize("shape", [(3,), (3, 1)])
def test_encoded_images_in_binary_are_scored_as_natively(
    live: Live, client: InferenceServerClient, shape: tuple[int, ...]
) -> None:
    answer = client.infer("tiny", [tensor("images", elements(PICTURES).reshape(shape))], parameters={"scores": "all"})
    assert_equal_to_native(answer, native(live, "tiny", [{"image": encoded(file)} for file in PICTURES]))
    assert answer.get_response()["model_version"] == "2"


def test_encoded_images_in_json_are_scored_as_natively(live: Live, client: InferenceServerClient) -> None:
    texts = elements([encoded(file) for file in PICTURES])
    outputs = all_outputs(client, "tiny", binary=False)
    answer = client.infer("tiny", [tensor("images", texts, binary=False)], outputs=outputs)
    assert "parameters" not in answer.get_output("msp")
    assert_equal_to_native(answer, native(live, "tiny", [{"image": encoded(file)} for file in PICTURES]))


@pytest.mark.parametrize("binary", [False, True])
@pytest.mark.parametrize("model", ["tiny", "grey"])
def test_pixels_are_scored_as_their_lossless_files_are(
    live: Live, client: InferenceServerClient, model: str, binary: bool
) -> None:
    images = tiny_images(5, channels=1 if model == "grey" else 3, seed=3)
    outputs = all_outputs(client, model, binary=binary)
    answer = client.infer(model, [tensor("images", images, binary=binary)], outputs=outputs)
    assert_equal_to_native(answer, native(live, model, [{"image": encoded(png(image))} for image in images]))


@pytest.mark.parametrize("binary", [False, True])
def test_texts_are_scored_as_natively(text_live: Live, text_client: InferenceServerClient, binary: bool) -> None:
    outputs = all_outputs(text_client, "topics", binary=binary)
    answer = text_client.infer("topics", [tensor("texts", elements(TEXTS), binary=binary)], outputs=outputs)
    assert_equal_to_native(answer, native(text_live, "topics", [{"text": text} for text in TEXTS]))


def test_a_model_without_classes_has_no_labels(text_live: Live, text_client: InferenceServerClient) -> None:
    answer = text_client.infer("words", [tensor("texts", elements(TEXTS))])
    assert_equal_to_native(answer, native(text_live, "words", [{"text": text} for text in TEXTS], scores="bpw"))
    assert answer.as_numpy("label") is None
    assert [output["name"] for output in answer.get_response()["outputs"]] == [
        "flagged", "p_value", "anomaly", "threshold", "bpw"
    ]  # fmt: skip


def test_parameters_have_the_effect_of_the_native_options(live: Live, client: InferenceServerClient) -> None:
    images = [{"image": encoded(file)} for file in PICTURES]
    for options in ({"alpha": 0.2}, {"alpha": 0.0001}, {"threshold": 0.1, "scores": "msp"}):
        answer = client.infer("tiny", [tensor("images", elements(PICTURES))], parameters=options)
        assert_equal_to_native(answer, native(live, "tiny", images, **{"scores": ["msp"]} | options))


def test_an_alpha_that_can_flag_nothing_is_warned_of(client: InferenceServerClient) -> None:
    answer = client.infer("tiny", [tensor("images", elements(PICTURES))], parameters={"alpha": 0.0001})
    assert answer.get_response()["parameters"]["warnings"].startswith("msp: nothing can be flagged at alpha 0.0001")
    assert answer.as_numpy("threshold").tolist() == [NEVER_FLAGGED] * 3


def test_a_request_chooses_outputs_and_their_form(live: Live, client: InferenceServerClient) -> None:
    outputs = [InferRequestedOutput("energy", binary_data=False), InferRequestedOutput("flagged")]
    answer = client.infer("tiny", [tensor("images", elements(PICTURES))], outputs=outputs, request_id="abc")
    assert answer.get_response()["id"] == "abc"
    assert [output["name"] for output in answer.get_response()["outputs"]] == ["energy", "flagged"]
    assert answer.get_output("energy")["data"] == answer.as_numpy("energy").tolist()
    assert answer.get_output("flagged")["parameters"] == {"binary_data_size": 3}
    energies = native(live, "tiny", [{"image": encoded(file)} for file in PICTURES], scores=["energy"])
    assert answer.as_numpy("flagged").tolist() == [result["flagged"] for result in energies]


def test_a_named_version_is_used(client: InferenceServerClient) -> None:
    answer = client.infer("tiny", [tensor("images", elements(PICTURES))], model_version="1")
    assert answer.get_response()["model_version"] == "1"


def test_health_and_metadata_describe_server_and_models(client: InferenceServerClient) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("tiny")
    assert client.is_model_ready("tiny", "1")
    assert not client.is_model_ready("tiny", "9")
    assert client.get_server_metadata()["extensions"] == ["binary_tensor_data"]
    metadata = client.get_model_metadata("tiny", "1")
    assert (metadata["name"], metadata["versions"]) == ("tiny", ["1", "2"])
    (images,) = metadata["inputs"]
    assert (images["name"], images["datatype"], images["shape"]) == ("images", "UINT8", [-1, 8, 8, 3])


def test_the_metadata_of_a_text_model_describe_a_tensor_of_bytes(text_client: InferenceServerClient) -> None:
    assert text_client.get_model_metadata("topics")["inputs"] == [{"name": "texts", "datatype": "BYTES", "shape": [-1]}]


def test_a_bad_input_among_others_is_named_and_only_the_error_is_counted(
    live: Live, client: InferenceServerClient
) -> None:
    scored = value(live.client, "ood_inputs_total", model="tiny", version="2")
    with pytest.raises(InferenceServerException) as raised:
        client.infer("tiny", [tensor("images", elements([picture(), b"no image", picture()]))])
    assert raised.value.status() == "422"
    assert raised.value.message().startswith("undecodable-image: input 'images', element 1: ")
    assert value(live.client, "ood_inputs_total", model="tiny", version="2") == scored
    assert value(live.client, "ood_input_errors_total", model="tiny", reason="undecodable-image") >= 1


def test_inputs_are_counted_like_those_of_the_native_route(live: Live, client: InferenceServerClient) -> None:
    scored = value(live.client, "ood_inputs_total", model="grey", version="1")
    client.infer("grey", [tensor("images", tiny_images(4, channels=1))])
    assert value(live.client, "ood_inputs_total", model="grey", version="1") == scored + 4
    route = {"route": "/v2/models/{model}/infer", "method": "POST", "status": "200"}
    assert value(live.client, "ood_http_requests_total", **route) >= 1


def png(image: NDArray[np.uint8]) -> bytes:
    file = BytesIO()
    Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(file, "PNG")
    return file.getvalue()
