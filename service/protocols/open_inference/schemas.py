"""What the protocol's bodies look like: what requests are read by, and the schemas of the OpenAPI document."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

Datatype = Literal["BOOL", "UINT8", "INT64", "FP32", "FP64", "BYTES"]
"""The protocol's datatypes that are used here."""


Size = Annotated[int, Field(ge=0, le=2**63 - 1)]
"""A number of elements or bytes."""


UNKNOWN_KEY = "unknown_key"
"""The type of a validation error for a key that does not belong there; its context names the `key`."""


class _Request(BaseModel):
    # A mistyped name must not be scored quietly without what it asked for.
    model_config = ConfigDict(extra="forbid", strict=True)

    @model_validator(mode="before")
    @classmethod
    def _stop_at_a_stranger(cls, given: Any) -> Any:
        # `forbid` alone makes an error of each: a body full of them would hold up all other requests for a second.
        if isinstance(given, dict):
            for key in given:
                if key not in cls.model_fields:
                    raise PydanticCustomError(UNKNOWN_KEY, "no such key: {key}", {"key": key})
        return given


class InputParameters(_Request):
    """How an input tensor comes."""

    binary_data_size: Size | None = Field(None, description="Bytes of this tensor behind the JSON; in place of `data`.")


class InputTensor(_Request):
    """The inputs to score, N of them in one tensor."""

    name: str
    datatype: str = Field(description="`BYTES`; for image models also `UINT8`.", examples=["BYTES"])
    shape: list[Size] = Field(max_length=8, description="`BYTES`: [N] or [N, 1]. `UINT8`: [N, H, W, C].")
    parameters: InputParameters | None = None
    data: list[Any] | None = Field(None, description="Row-major, nested or flat: texts, base64 of files, or pixels.")


class OutputParameters(_Request):
    """How an output tensor is wanted."""

    binary_data: bool | None = Field(None, description="Behind the JSON, not in it; default `binary_data_output`.")


class RequestedOutput(_Request):
    """One output that the answer shall hold."""

    name: str
    parameters: OutputParameters | None = None


class InferenceRequest(_Request):
    """A request's JSON."""

    id: Annotated[str, Field(max_length=256)] | None = Field(None, description="Comes back with the answer.")
    parameters: dict[str, Any] | None = Field(
        None, description="`alpha`, `threshold`, `scores`, `timeout_ms`, `binary_data_output`."
    )
    inputs: list[InputTensor] = Field(min_length=1, max_length=1)
    outputs: list[RequestedOutput] | None = Field(
        None, max_length=256, description="What to answer with, in this order."
    )


class OutputTensor(BaseModel):
    """One output, a value for each of the N inputs."""

    name: str
    datatype: Datatype
    shape: list[int] = Field(examples=[[1]])
    parameters: dict[str, int] | None = Field(None, description="`binary_data_size`, where `data` is not in the JSON.")
    data: list[bool | int | float | str] | None = None


class InferenceResponse(BaseModel):
    """An answer's JSON."""

    model_name: str
    model_version: str
    id: str | None = None
    parameters: dict[str, str] | None = Field(None, description="`warnings`: what an option cannot do here.")
    outputs: list[OutputTensor]


class InferenceError(BaseModel):
    """An error."""

    error: str = Field(examples=["unknown-model: No model 'resnet' is served; GET /v1/models lists the models: tiny."])


class ServerMetadata(BaseModel):
    """What serves."""

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
    """One tensor that a model takes or gives; -1 is the number of inputs."""

    name: str
    datatype: Datatype
    shape: list[int]
    parameters: dict[str, str] | None = Field(None, description="`alternative`: the other form that is taken.")


class ModelMetadata(BaseModel):
    """A model by its tensors."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]
