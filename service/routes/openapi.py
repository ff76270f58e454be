"""The OpenAPI document: FastAPI's own, with working examples of each route and the API key."""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from service.auth.middleware import SECURITY, SECURITY_SCHEMES
from service.http.route import Access, Route
from service.repository.served import Repository


def document(app: FastAPI, repository: Repository, *, keys_needed: bool = False) -> dict[str, Any]:
    """The OpenAPI document, whose examples work unchanged: they name a served model and inputs that it takes.

    Args:
        app: The application, with all routes.
        repository: The served models; without any, the document has no examples.
        keys_needed: Whether requests need an API key; the document then names the routes and the two ways to send it.
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
    if not repository.names:
        return content
    model = repository.get(repository.names[0])
    path_examples = {"model": model.name, "version": model.version}
    for route in documented:
        for operation in content["paths"][route.path].values():
            for parameter in operation.get("parameters", []):
                if parameter["in"] == "path":
                    parameter["example"] = path_examples[parameter["name"]]
            if route.examples is not None:
                operation["requestBody"]["content"]["application/json"]["examples"] = route.examples(model.modality)
    return content
