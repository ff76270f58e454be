"""The console, the OpenAPI document and the probes."""

from tests.service.conftest import Live


def test_every_example_of_the_openapi_document_works(live: Live) -> None:
    document = live.client.get("/openapi.json").json()
    examples = 0
    for path, operations in document["paths"].items():
        for operation in operations.values():
            content = operation.get("requestBody", {}).get("content", {})
            parameters = [parameter for parameter in operation.get("parameters", []) if parameter["in"] == "path"]
            values = {parameter["name"]: parameter["example"] for parameter in parameters}
            for example in content.get("application/json", {}).get("examples", {}).values():
                answer = live.client.post(path.format(**values), json=example["value"])
                assert answer.status_code == 200, answer.text
                assert answer.json().get("errors", 0) == 0
                examples += 1
    assert examples == 12


def test_the_openapi_document_describes_responses_and_problems(live: Live) -> None:
    operation = live.client.get("/openapi.json").json()["paths"]["/v1/models/{model}/score"]["post"]
    assert set(operation["responses"]) >= {"200", "400", "404", "413", "415", "422", "503", "504"}
    assert operation["responses"]["200"]["content"]["application/json"]["schema"]["$ref"].endswith("/ScoreResponse")
    assert {parameter["name"] for parameter in operation["parameters"]} == {
        "model",
        "alpha",
        "threshold",
        "scores",
        "timeout_ms",
        "explain",
    }
    assert set(operation["responses"]["422"]["content"]) == {"application/problem+json"}
    assert {"image/png", "multipart/form-data", "application/json"} <= set(operation["requestBody"]["content"])
    assert live.client.get("/docs").status_code == 200


def test_the_page_links_models_docs_and_metrics(live: Live) -> None:
    answer = live.client.get("/")
    assert answer.headers["content-type"].startswith("text/html")
    for link in ("/docs", "/metrics", "/v1/models", "/v1/models/tiny", "/openapi.json"):
        assert f'href="{link}"' in answer.text


def test_probes_answer(live: Live) -> None:
    assert (live.client.get("/healthz").status_code, live.client.get("/readyz").status_code) == (200, 200)
