"""How a protocol writes errors."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from starlette.responses import Response

from service.errors import Problem


@dataclass(frozen=True, slots=True)
class ErrorFormat:
    """The form of a protocol's errors.

    Attributes:
        render: Makes the response to a problem; the second argument is the request's id.
        content: The media type and schema of such responses, for the OpenAPI document.
    """

    render: Callable[[Problem, str], Response]
    content: Mapping[str, Any]

    def responses(self, descriptions: Mapping[int, str]) -> dict[int | str, dict[str, Any]]:
        """The errors of a route for `APIRoute(responses=...)`, from descriptions by status code."""
        responses: dict[int | str, dict[str, Any]] = {
            status: {"description": text, "content": self.content} for status, text in descriptions.items()
        }
        # Without a default, FastAPI would document its own validation error, which no route answers with.
        return responses | {"default": {"description": "Any other error.", "content": self.content}}
