"""What the OpenAPI document promises holds: schemathesis makes requests by it, and against it, to a real process."""

from collections.abc import Iterator

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import negative_data_rejection, positive_data_acceptance

from tests.support.tiny_bundle import make_tiny_bundle
from tests.support.tiny_text_bundle import make_tiny_text_bundle
from tests.system.conftest import Service


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory) -> Iterator[schemathesis.BaseSchema]:
    root = tmp_path_factory.mktemp("models")
    make_tiny_bundle(root)
    make_tiny_text_bundle(root)
    service = Service(root, "--log-level", "error")
    yield schemathesis.openapi.from_url(f"{service.address}/openapi.json")
    service.close()


# Which answer is right for what the schema allows, no schema can say: a string may be no image, a text is nothing
# for an image model to score, and in a form every value is a text. `tests/service/test_bad_requests.py` says it.
BEYOND_THE_SCHEMA = [positive_data_acceptance, negative_data_rejection]


def operations(document: schemathesis.BaseSchema) -> list[schemathesis.APIOperation]:
    return [result.ok() for result in document.get_all_operations()]


def probe(operation: schemathesis.APIOperation, mode: GenerationMode, examples: int) -> None:
    # The document's schema does not know which models there are.
    models = st.sampled_from(("tiny", "topics", None))

    @given(case=operation.as_strategy(generation_mode=mode), model=models)
    @settings(max_examples=examples, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
    def answer_is_as_documented(case: schemathesis.Case, model: str | None) -> None:
        if model is not None and "model" in case.path_parameters:
            case.path_parameters["model"] = model
        case.call_and_validate(excluded_checks=BEYOND_THE_SCHEMA)

    answer_is_as_documented()


def test_every_operation_answers_as_documented(document: schemathesis.BaseSchema) -> None:
    assert len(operations(document)) >= 15
    for operation in operations(document):
        probe(operation, GenerationMode.POSITIVE, 60)


def test_requests_against_the_document_are_refused_as_documented(document: schemathesis.BaseSchema) -> None:
    with_bodies = [operation for operation in operations(document) if operation.method == "post"]
    assert len(with_bodies) >= 4
    for operation in with_bodies:
        probe(operation, GenerationMode.NEGATIVE, 100)
