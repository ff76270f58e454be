"""Documents the inference routes for OpenAPI: parameters, bodies, responses and examples."""

from typing import Any

from pydantic.json_schema import models_json_schema

from service.inputs.modality import Modality
from service.protocols.open_inference.error_format import INFERENCE_ERROR
from service.protocols.open_inference.schemas import InferenceRequest, InferenceResponse

_JSON, _BINARY = "application/json", "application/octet-stream"
_HEADER = "Inference-Header-Content-Length"
_LENGTH = {
    "schema": {"type": "integer", "minimum": 0},
    "description": "Bytes of JSON at the start of the body; binary tensor data follow.",
}
_WITH_BINARY = {"schema": {"type": "string", "format": "binary"}}
_REFERENCE = "#/components/schemas/{model}"
_, _REQUEST_DEFINITIONS = models_json_schema([(InferenceRequest, "validation")], ref_template=_REFERENCE)

_INFER_ERRORS = {
    400: "Malformed body.",
    404: "Unknown model or version.",
    413: "Body or input too large, or too many inputs.",
    415: "A compressed body.",
    422: "A tensor or parameter that is invalid, or an input that cannot be scored; the error names it.",
    503: "Overloaded, starting or draining; see Retry-After.",
    504: "The deadline was exceeded.",
}


def infer_operation(target: str, *, version: bool = False) -> dict[str, Any]:
    """The arguments of `Route` that document an inference route.

    Args:
        target: What the route infers with, in words, as in "latest version".
        version: Whether the path of the route has a version.
    """
    names = ["model", "version"] if version else ["model"]
    parameters = [{"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names]
    response = {
        "model": InferenceResponse,
        "description": "A value for each input in every output.",
        "content": {_BINARY: _WITH_BINARY},
        "headers": {_HEADER: _LENGTH},
    }
    return {
        "name": f"infer_{target.replace(' ', '_')}",
        "operation_id": f"infer_{target.replace(' ', '_')}",
        "summary": f"Infer with the {target}",
        "responses": {200: response, **INFERENCE_ERROR.responses(_INFER_ERRORS)},
        "error_format": INFERENCE_ERROR,
        "examples": infer_examples,
        "schemas": _REQUEST_DEFINITIONS["$defs"],
        "openapi_extra": {
            "parameters": [*parameters, {"name": _HEADER, "in": "header", "required": False, **_LENGTH}],
            "requestBody": {
                "required": True,
                "content": {
                    _JSON: {"schema": {"$ref": _REFERENCE.format(model=InferenceRequest.__name__)}},
                    _BINARY: _WITH_BINARY,
                },
            },
        },
    }


def infer_examples(modality: Modality) -> dict[str, Any]:
    """JSON bodies that a model of `modality` answers unchanged, by title."""
    (data,) = modality.example().values()
    one = {"name": modality.tensor_name, "datatype": "BYTES", "shape": [1], "data": [data]}
    two = one | {"shape": [2], "data": [data, data]}
    outputs = [{"name": name} for name in ("flagged", "p_value")]
    return {
        "one input": {"value": {"inputs": [one]}},
        "several, at an alpha": {"value": {"id": "a", "parameters": {"alpha": 0.01}, "inputs": [two]}},
        "some outputs": {"value": {"inputs": [one], "outputs": outputs}},
    }
