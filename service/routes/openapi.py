"""The OpenAPI document: FastAPI's own, with working examples of every protocol and the API key."""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from service.auth.middleware import OPEN_PATHS, SECURITY, SECURITY_SCHEMES
from service.protocols.native.openapi import PROBLEM_CONTENT, score_examples
from service.protocols.native.parsing import JSON_TYPE
from service.protocols.open_inference.openapi import ERROR_CONTENT, REQUEST_SCHEMAS, infer_examples
from service.repository.served import Repository


def document(app: FastAPI, repository: Repository, *, keys_needed: bool = False) -> dict[str, Any]:
    """The OpenAPI document, with examples that work as they stand: a model that is served, inputs that it takes.

    `keys_needed`: say which routes need an API key, and how to present it.
    """
    content = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
    content.setdefault("components", {}).setdefault("schemas", {}).update(REQUEST_SCHEMAS)
    if keys_needed:
        _require_keys(content)
    if any("security" in operation for path in content["paths"].values() for operation in path.values()):
        content.setdefault("components", {})["securitySchemes"] = SECURITY_SCHEMES
    if not repository.names:
        return content
    model = repository.get(repository.names[0])
    named = {"model": model.name, "version": model.version}
    for path, operations in content["paths"].items():
        for operation in operations.values():
            for parameter in operation.get("parameters", []):
                if parameter["in"] == "path":
                    parameter["example"] = named[parameter["name"]]
            if "requestBody" in operation:
                examples_of = infer_examples if path.endswith("/infer") else score_examples
                operation["requestBody"]["content"][JSON_TYPE]["examples"] = examples_of(model.modality)
    return content


def _require_keys(content: dict[str, Any]) -> None:
    for path, operations in content["paths"].items():
        for operation in () if path in OPEN_PATHS else operations.values():
            operation["security"] = SECURITY
            form = ERROR_CONTENT if path.startswith("/v2") else PROBLEM_CONTENT
            operation["responses"]["401"] = {"description": "No API key, or a wrong one.", "content": form}
