"""The bodies of the protocol: models that validate requests, and schemas of responses for the OpenAPI document."""

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field

from bundle import TensorDatatype

Datatype = TensorDatatype
"""The datatypes of the protocol."""


Size = Annotated[int, Field(ge=0, le=2**63 - 1)]
"""A number of elements or bytes."""


class _Request(BaseModel):
    # Unknown keys are kept: `service.protocols.open_inference.annotations` decides about them.
    model_config = ConfigDict(extra="allow", strict=True)


class InputParameters(_Request):
    """How the data of an input tensor are sent."""

    binary_data_size: Size | None = Field(None, description="Bytes of this tensor after the JSON; instead of `data`.")
    content_type: Any = Field(
        None, description="`base64`: each element of a `BYTES` tensor is base64 of a file or text. Others are ignored."
    )


class InputTensor(_Request):
    """The N inputs to score, in one tensor."""

    name: str
    datatype: str = Field(description="`BYTES`; for image models also `UINT8`.", examples=["BYTES"])
    shape: list[Size] = Field(max_length=8, description="`BYTES`: [N] or [N, 1]. `UINT8`: [N, H, W, C].")
    parameters: InputParameters | None = None
    data: list[Any] | None = Field(None, description="Row-major, nested or flat: texts, base64 of files, or pixels.")


class OutputParameters(_Request):
    """How the data of an output tensor are requested."""

    binary_data: bool | None = Field(None, description="After the JSON instead of in it; default `binary_data_output`.")


class RequestedOutput(_Request):
    """One output that the response must have."""

    name: str
    parameters: OutputParameters | None = None


class InferenceRequest(_Request):
    """The JSON of a request."""

    id: Annotated[str, Field(max_length=256)] | None = Field(None, description="Returned with the response.")
    parameters: dict[str, Any] | None = Field(
        None, description="`alpha`, `threshold`, `scores`, `timeout_ms`, `binary_data_output`; others are ignored."
    )
    inputs: list[InputTensor] = Field(min_length=1, max_length=1)
    outputs: list[RequestedOutput] | None = Field(
        None, max_length=256, description="The outputs of the response, in this order."
    )


class OutputTensor(BaseModel):
    """One output, with a value for each of the N inputs."""

    name: str
    datatype: Datatype
    shape: list[int] = Field(examples=[[1]])
    parameters: dict[str, int] | None = Field(None, description="`binary_data_size`, if `data` is not in the JSON.")
    data: list[bool | int | float | str | None] | None = None


class InferenceResponse(BaseModel):
    """The JSON of a response."""

    model_name: str
    model_version: str
    id: str | None = None
    parameters: dict[str, bool | str] | None = Field(
        None,
        description="`truncated`: true if the model read a text only in part. `warnings`: those texts, and options "
        "that cannot have their effect.",
    )
    outputs: list[OutputTensor]


class InferenceError(BaseModel):
    """An error."""

    error: str = Field(examples=["unknown-model: No model 'resnet' is served; GET /v1/models lists the models: tiny."])


class ServerMetadata(BaseModel):
    """The name, version and extensions of the server."""

    name: str
    version: str
    extensions: list[str]


class ServerLive(BaseModel):
    """Whether the process lives."""

    live: bool


class ServerReady(BaseModel):
    """Whether the service may get traffic."""

    ready: bool


class ModelReady(ServerReady):
    """Whether the model may get traffic."""

    name: str


class TensorMetadata(BaseModel):
    """One input or output tensor of a model; -1 is the number of inputs."""

    name: str
    datatype: Datatype
    shape: list[int]
    parameters: dict[str, str] | None = Field(None, description="`alternative`: the other form that the model takes.")


class ModelMetadata(BaseModel):
    """The tensors of a model."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]


class IndexEntry(BaseModel):
    """One version in the repository, served or not."""

    name: str
    version: str
    state: Literal["READY", "UNAVAILABLE"]
    reason: str = Field(description="Why it is not served; for a served version, why newer files of it are not.")

    @classmethod
    def at(cls, bundle_id: str, state: Literal["READY", "UNAVAILABLE"], reason: str) -> Self:
        """The entry of the folder `name/version`."""
        name, _, version = bundle_id.partition("/")
        return cls(name=name, version=version, state=state, reason=reason)


class Loaded(BaseModel):
    """A model after a load or an unload."""

    model: str
    versions: list[str] = Field(description="The versions served, oldest first.")
