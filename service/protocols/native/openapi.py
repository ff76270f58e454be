"""Documents the scoring routes for OpenAPI: parameters, bodies, responses and examples."""

from typing import Any

from service.http.problem_json import PROBLEM_JSON
from service.inputs.modalities import MODALITIES
from service.inputs.modality import Modality
from service.protocols.native.parsing import FORM_TYPE, JSON_TYPE
from service.protocols.native.schemas import ScoreResponse

_NUMBER_OR_MAP = {
    "anyOf": [{"type": "number"}, {"type": "object", "additionalProperties": {"type": "number"}}],
    "description": "Flag above this anomaly instead of by alpha: a number, or one per score.",
}
_ALPHA = {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1}
_TIMEOUT = {"type": "integer", "minimum": 1}
_EXPLAIN = (
    "Show the bits of each pixel or token, the evidence of each position of an image for the predicted class, or how "
    "much each token of a text raises the anomaly."
)
_INPUT = {
    "oneOf": [
        {"type": "string", "description": "A text."},
        {
            "type": "object",
            "properties": {"image": {"type": "string", "contentEncoding": "base64"}, "id": {"type": "string"}},
            "required": ["image"],
            "additionalProperties": False,
        },
        {
            "type": "object",
            "properties": {"text": {"type": "string"}, "id": {"type": "string"}},
            "required": ["text"],
            "additionalProperties": False,
        },
    ]
}
_PROBLEMS = {
    400: "Malformed body.",
    404: "Unknown model or version.",
    408: "The body did not arrive in time.",
    413: "Body or input too large, or too many inputs.",
    415: "A content type that the model does not take.",
    422: "Undecodable or invalid input.",
    503: "Overloaded, starting or draining; see Retry-After.",
    504: "The deadline was exceeded.",
}


def score_operation(target: str, *, version: bool = False) -> dict[str, Any]:
    """The arguments of `Route` that document a scoring route.

    Args:
        target: What the route scores with, in words, as in "latest version".
        version: Whether the path of the route has a version.
    """
    parameters = [_path("model")] + ([_path("version")] if version else [])
    parameters += [
        _query("alpha", _ALPHA, "False-flag rate, the most on average over calibration sets; default the model's."),
        _query("threshold", {"type": "number"}, "Flag above this anomaly instead of by alpha."),
        _query("scores", {"type": "string"}, "Score names, comma-separated, or `all`."),
        _query("timeout_ms", _TIMEOUT, "Deadline; at most the service's own."),
        _query("explain", {"type": "boolean"}, _EXPLAIN),
    ]
    return {
        "name": f"score_{target.replace(' ', '_')}",
        "operation_id": f"score_{target.replace(' ', '_')}",
        "summary": f"Score with the {target}",
        "tags": ["scoring"],
        "responses": {
            200: {"model": ScoreResponse, "description": "A result for each input, in their order."},
            **PROBLEM_JSON.responses(_PROBLEMS),
        },
        "examples": score_examples,
        "openapi_extra": {"parameters": parameters, "requestBody": {"required": True, "content": _bodies()}},
    }


def _bodies() -> dict[str, Any]:
    json_schema = {
        "type": "object",
        "required": ["inputs"],
        "additionalProperties": False,
        "properties": {
            "inputs": {"type": "array", "minItems": 1, "items": _INPUT},
            "alpha": _ALPHA,
            "scores": {"anyOf": [{"type": "array", "items": {"type": "string"}}, {"const": "all"}]},
            "threshold": _NUMBER_OR_MAP,
            "timeout_ms": _TIMEOUT,
            "explain": {"type": "boolean", "description": _EXPLAIN},
        },
    }
    files = {"type": "array", "items": {"type": "string", "format": "binary"}}
    form = {"type": "object", "properties": {"file": files, "text": {"type": "array", "items": {"type": "string"}}}}
    return {
        JSON_TYPE: {"schema": json_schema},
        **{
            media_type: {"schema": modality.body_schema}
            for modality in MODALITIES.values()
            for media_type in modality.media_types
        },
        FORM_TYPE: {"schema": form},
    }


def score_examples(modality: Modality) -> dict[str, Any]:
    """JSON bodies that a model of `modality` scores unchanged, by title."""
    example = modality.example()
    several = [{**example, "id": "a"}, {**example, "id": "b"}]
    return {
        "one input": {"value": {"inputs": [example]}},
        "several, at an alpha": {"value": {"inputs": several, "alpha": 0.01}},
        "every score": {"value": {"inputs": [example], "scores": "all"}},
    }


def _path(name: str) -> dict[str, Any]:
    return {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}


def _query(name: str, schema: dict[str, Any], description: str) -> dict[str, Any]:
    return {"name": name, "in": "query", "required": False, "schema": schema, "description": description}
