"""Builds the responses of inference, and the metadata of a model."""

from collections.abc import Sequence
from typing import Any

import orjson
from starlette.responses import Response

from service.protocols.open_inference.outputs import outputs_of, tensor_values
from service.protocols.open_inference.request import HEADER_LENGTH, Inference
from service.protocols.open_inference.schemas import ModelMetadata, TensorMetadata
from service.protocols.open_inference.tensors import binary
from service.repository.model import Model
from service.scoring.scored_input import ScoredInput

# Response parameters have one line for each of the first truncated texts.
_MAX_WARNINGS = 8

PLATFORM = "onnxruntime_onnx"
"""The protocol's name for ONNX graphs that ONNX Runtime runs."""


def inference_response(model: Model, inference: Inference, results: Sequence[ScoredInput]) -> Response:
    """The HTTP response: JSON, followed by the outputs that are requested in binary."""
    outputs: list[dict[str, Any]] = []
    binary_tail: list[bytes] = []
    for output, in_binary in inference.outputs:
        shape, values = tensor_values(output, results)
        entry: dict[str, Any] = {"name": output.name, "datatype": output.datatype, "shape": shape}
        if in_binary:
            data = binary(output.datatype, values)
            binary_tail.append(data)
            entry["parameters"] = {"binary_data_size": len(data)}
        else:
            entry["data"] = values
        outputs.append(entry)
    content: dict[str, Any] = {"model_name": model.name, "model_version": model.version}
    if inference.id is not None:
        content["id"] = inference.id
    if parameters := response_parameters(model, inference, results):
        content["parameters"] = parameters
    text = orjson.dumps(content | {"outputs": outputs})
    if not binary_tail:
        return Response(text, media_type="application/json")
    headers = {HEADER_LENGTH: str(len(text))}
    return Response(b"".join([text, *binary_tail]), headers=headers, media_type="application/octet-stream")


def response_parameters(model: Model, inference: Inference, results: Sequence[ScoredInput]) -> dict[str, bool | str]:
    """The `parameters` of a response: whether a text is `truncated`, and `warnings` in words; usually empty."""
    warnings = model.scorer.warnings(inference.options)
    truncated = [(index, result.tokens) for index, result in enumerate(results) if result.truncated and result.tokens]
    for index, tokens in truncated[:_MAX_WARNINGS]:
        total = f"{'' if tokens.exact else 'at least '}{tokens.total}"
        warnings.append(f"element {index}: the model read {tokens.read} of {total} tokens")
    if len(truncated) > _MAX_WARNINGS:
        warnings.append(f"{len(truncated)} elements are truncated in all; the output `truncated` tells which")
    parameters: dict[str, bool | str] = {"truncated": True} if truncated else {}
    return parameters | ({"warnings": "; ".join(warnings)} if warnings else {})


def model_metadata(model: Model, versions: list[str]) -> ModelMetadata:
    """The metadata of a model.

    An image model takes its input in two forms; the metadata describe pixels, which have a fixed shape.

    Args:
        model: The model.
        versions: The served versions of the model, oldest first.
    """
    modality = model.modality
    if modality.pixel_shape is None:
        tensor = TensorMetadata(name=modality.tensor_name, datatype="BYTES", shape=[-1], parameters=None)
    else:
        files = {"alternative": "BYTES [-1]: encoded image files of any size"}
        tensor = TensorMetadata(
            name=modality.tensor_name, datatype="UINT8", shape=[-1, *modality.pixel_shape], parameters=files
        )
    return ModelMetadata(
        name=model.name,
        versions=versions,
        platform=PLATFORM,
        inputs=[tensor],
        outputs=[
            TensorMetadata(name=output.name, datatype=output.datatype, shape=[-1, *output.shape], parameters=None)
            for output in outputs_of(
                model.option_limits.scores,
                bool(model.scorer.labels),
                modality.pixel_shape is None,
                model.option_limits.model_outputs,
            ).values()
        ],
    )
