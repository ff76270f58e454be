"""Routes that need an admin key."""

from collections.abc import Callable, Mapping
from typing import Any

from fastapi import Depends

from service.auth.api_keys import KeyFile
from service.auth.middleware import SECURITY, admin_dependency
from service.http.error_format import ErrorFormat
from service.http.problem_json import PROBLEM_JSON
from service.http.route import Access, Route


def admin_route(
    path: str,
    endpoint: Callable[..., Any],
    keys: KeyFile,
    errors: Mapping[int, str],
    error_format: ErrorFormat = PROBLEM_JSON,
) -> Route:
    """A route for POST requests with an admin key.

    The route itself checks the key, not a middleware by its path: no spelling of an address avoids the check.

    Args:
        path: The path of the route.
        endpoint: Answers a request.
        keys: The admin keys.
        errors: The route's own errors for the OpenAPI document: descriptions by status code.
        error_format: How the route's errors are written.
    """
    return Route(
        path,
        endpoint,
        error_format=error_format,
        access=Access.ADMIN_KEY,
        methods=["POST"],
        tags=["administration"],
        dependencies=[Depends(admin_dependency(keys))],
        responses=error_format.responses({401: "No admin key, or a wrong one.", 503: "Starting.", **errors}),
        openapi_extra={"security": SECURITY},
    )
