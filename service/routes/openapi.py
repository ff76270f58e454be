"""The OpenAPI document, which is FastAPI's own with working examples and the API key, and the page that shows it."""

import asyncio
from collections.abc import Callable
from typing import Any

import orjson
from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from starlette.responses import Response

from service.auth.middleware import SECURITY, SECURITY_SCHEMES
from service.http.route import Access, Route
from service.repository.model import Model
from service.repository.served import Repository
from service.routes.page import page, page_source
from service.single_flight import SingleFlight


def routes(repository: Repository, build: Callable[[], dict[str, Any]]) -> list[Route]:
    """The routes `/openapi.json` and `/docs`, which need no key: users enter their key on the page.

    Args:
        repository: The served models.
        build: Makes the document. It takes a quarter of a second, so that it runs on a thread, once for each state of
            the repository that it depends on.
    """
    shown = page_source("docs.html")
    cached: tuple[object, bytes] | None = None

    def build_with_state() -> tuple[object, bytes]:
        state = _state(repository)
        return state, orjson.dumps(build())

    flight = SingleFlight(lambda: asyncio.to_thread(build_with_state))

    async def openapi() -> Response:
        """The OpenAPI document."""
        nonlocal cached
        if cached is None or cached[0] != _state(repository):
            cached = await flight()
        return Response(cached[1], media_type="application/json")

    async def docs() -> Response:
        """The page."""
        return page(shown)

    return [
        Route("/openapi.json", openapi, access=Access.OPEN, include_in_schema=False),
        Route("/docs", docs, access=Access.OPEN, include_in_schema=False),
    ]


def _state(repository: Repository) -> object:
    """The state that a document depends on: the model of its examples."""
    model = _example_model(repository)
    return None if model is None else (model.name, model.version, id(model))


def _example_model(repository: Repository) -> Model | None:
    names = repository.names
    return repository.get(names[0]) if names else None


def document(app: FastAPI, repository: Repository, *, keys_needed: bool = False) -> dict[str, Any]:
    """The OpenAPI document, whose examples work unchanged: they name a served model and inputs that it takes.

    Args:
        app: The application, with all routes.
        repository: The served models; without any, the document has no examples.
        keys_needed: Whether requests need an API key; the document then names the two ways to send it, and no model.
    """
    content = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
    schemas = content.setdefault("components", {}).setdefault("schemas", {})
    documented = [route for route in app.routes if isinstance(route, Route) and route.include_in_schema]
    for route in documented:
        schemas.update(route.schemas)
        for operation in content["paths"][route.path].values():
            if keys_needed and route.access is Access.API_KEY:
                operation["security"] = SECURITY
                response = {"description": "No API key, or a wrong one.", "content": route.error_format.content}
                operation["responses"]["401"] = response
            if "security" in operation:
                content["components"]["securitySchemes"] = SECURITY_SCHEMES
    # The document itself needs no key, so it names no model where models need one.
    model = None if keys_needed else _example_model(repository)
    if model is None:
        return content
    path_examples = {"model": model.name, "version": model.version}
    for route in documented:
        for operation in content["paths"][route.path].values():
            for parameter in operation.get("parameters", []):
                if parameter["in"] == "path":
                    parameter["example"] = path_examples[parameter["name"]]
            if route.examples is not None:
                operation["requestBody"]["content"]["application/json"]["examples"] = route.examples(model.modality)
    return content
