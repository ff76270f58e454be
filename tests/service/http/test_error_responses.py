"""The error format of a request: that of its route, or of the routes with the same first path segment."""

import json
from typing import Any

import pytest
from starlette.responses import Response

from service.errors import InputError, InvalidInput, NotFound, Overloaded, Problem
from service.http.error_format import ErrorFormat
from service.http.error_responses import ErrorResponses
from service.http.problem_json import PROBLEM_JSON
from service.http.request_id import REQUEST_ID
from service.http.route import Access, Route

PLAIN = ErrorFormat(lambda problem, request_id: Response(f"{request_id} {problem.type}", problem.status), {})


def endpoint() -> None:
    """Answers nothing."""


PLAIN_ROUTE = Route("/plain/{name}", endpoint, error_format=PLAIN)
ROUTES = [PLAIN_ROUTE, Route("/v1/models", endpoint), Route("/", endpoint)]


def response(path: str, problem: Problem, **scope: Any) -> Response:
    return ErrorResponses(ROUTES).response({"path": path, REQUEST_ID: "abc", **scope}, problem)


@pytest.mark.parametrize("path", ["/plain", "/plain/", "/plain/x/y", "/plain/x"])
def test_a_path_without_a_route_gets_the_format_of_the_routes_with_its_first_segment(path: str) -> None:
    assert response(path, NotFound("There is no such path.")).body == b"abc not-found"


@pytest.mark.parametrize("path", ["/", "/v1", "/v1/models", "/plainly", "/other/plain", "", "*"])
def test_any_other_path_without_a_route_gets_problem_json(path: str) -> None:
    assert response(path, NotFound("There is no such path.")).media_type == "application/problem+json"


def test_the_format_of_the_route_has_precedence_over_the_path() -> None:
    assert response("/v1/models", NotFound("x"), route=PLAIN_ROUTE).body == b"abc not-found"
    assert response("/plain", NotFound("x"), route=ROUTES[1]).media_type == "application/problem+json"


def test_a_problem_in_json_has_its_members_and_headers() -> None:
    answer = response("/", Overloaded("The queue is full.", retry_after=3, model="tiny"))
    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "3"
    assert json.loads(answer.body) == {
        "type": "overloaded",
        "title": "The service is overloaded",
        "status": 503,
        "detail": "The queue is full.",
        "request_id": "abc",
        "model": "tiny",
    }


@pytest.mark.parametrize(
    ("kind", "status"),
    [("undecodable-image", 422), ("image-too-large", 413), ("text-too-long", 413), ("inference-failed", 500)],
)
def test_an_invalid_input_has_the_type_and_the_status_of_its_error(kind: str, status: int) -> None:
    answer = response("/", InvalidInput(InputError(kind, "It is wrong."), 3, "a"))
    content = json.loads(answer.body)
    assert (answer.status_code, content["status"], content["type"], content["id"]) == (status, status, kind, "a")


def test_a_route_needs_an_api_key_and_is_logged_unless_it_declares_otherwise() -> None:
    route = Route("/new", endpoint)
    assert (route.access, route.quiet, route.error_format) == (Access.API_KEY, False, PROBLEM_JSON)
