"""Checks of error responses (`application/problem+json`)."""

from typing import Any

import httpx


def problem(answer: httpx.Response, status: int, kind: str) -> dict[str, Any]:
    """Assert that `answer` is a problem of the type `kind`, and return its fields."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    content: dict[str, Any] = answer.json()
    assert {"type", "title", "status", "detail", "request_id"} <= content.keys()
    assert (content["type"], content["status"]) == (kind, status)
    assert content["request_id"] == answer.headers["x-request-id"]
    return content
