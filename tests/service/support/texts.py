"""Texts for requests."""

from typing import Any

import httpx

from tests.service.conftest import Live

SPORTS, POLITICS, SCIENCE = "the team and the ball", "the senate and the law", "proof of the atom"
PLAIN = {"content-type": "text/plain; charset=utf-8"}


def score(live: Live, text: str | bytes, model: str = "topics", **request: Any) -> httpx.Response:
    """POST one text as plain text."""
    content = text.encode() if isinstance(text, str) else text
    return live.score(model=model, **{"content": content, "headers": PLAIN} | request)


def labels(answer: httpx.Response) -> list[str | None]:
    """The predicted label of each input; None for errors."""
    assert answer.status_code == 200, answer.text
    return [result["prediction"]["label"] if "error" not in result else None for result in answer.json()["results"]]
