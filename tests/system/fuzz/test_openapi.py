"""The OpenAPI document: schemathesis generates valid and invalid requests from it, and checks the responses."""

from collections.abc import Iterator

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import negative_data_rejection, not_a_server_error, positive_data_acceptance

from tests.support.tiny_bundle import make_tiny_bundle
from tests.support.tiny_text_bundle import make_tiny_text_bundle
from tests.system.support.service_process import TIMEOUT_SECONDS, ServiceProcess

# A schema cannot say which strings are images, which inputs a model accepts, or that every value of a form is a text.
# `tests/service/protocols/native/test_bad_requests.py` tests these errors.
BEYOND_THE_SCHEMA = [positive_data_acceptance, negative_data_rejection]
# Overload, and a deadline that has passed: generated deadlines are as short as 1 ms.
DOCUMENTED_SERVER_ERRORS = (503, 504)


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory) -> Iterator[schemathesis.BaseSchema]:
    root = tmp_path_factory.mktemp("models")
    make_tiny_bundle(root)
    make_tiny_text_bundle(root)
    service = ServiceProcess(root, "--log-level", "error")
    yield schemathesis.openapi.from_url(f"{service.address}/openapi.json")
    service.close()


def operations(document: schemathesis.BaseSchema) -> list[schemathesis.APIOperation]:
    return [result.ok() for result in document.get_all_operations()]


def check_responses(operation: schemathesis.APIOperation, mode: GenerationMode, examples: int) -> None:
    """Check the responses to generated requests against the document."""
    # The document does not list the models.
    models = st.sampled_from(("tiny", "topics", None))

    @given(case=operation.as_strategy(generation_mode=mode), model=models)
    @settings(max_examples=examples, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
    def response_is_as_documented(case: schemathesis.Case, model: str | None) -> None:
        if model is not None and "model" in case.path_parameters:
            case.path_parameters["model"] = model
        response = case.call(timeout=TIMEOUT_SECONDS)
        case.validate_response(response, excluded_checks=[*BEYOND_THE_SCHEMA, not_a_server_error])
        assert response.status_code < 500 or response.status_code in DOCUMENTED_SERVER_ERRORS, response.text

    response_is_as_documented()


def test_valid_requests_to_every_operation_get_documented_responses(document: schemathesis.BaseSchema) -> None:
    assert len(operations(document)) >= 15
    for operation in operations(document):
        check_responses(operation, GenerationMode.POSITIVE, 60)


def test_requests_against_the_document_are_refused_as_documented(document: schemathesis.BaseSchema) -> None:
    with_bodies = [operation for operation in operations(document) if operation.method == "post"]
    assert len(with_bodies) >= 4
    for operation in with_bodies:
        check_responses(operation, GenerationMode.NEGATIVE, 100)
