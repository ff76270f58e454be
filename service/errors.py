"""The closed set of errors that a client can see; `service.http` and the protocols render them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar


class Problem(Exception):
    """An error that is the answer to a whole request.

    Attributes:
        status: The HTTP status code.
        type: A short identifier for programs, which never changes.
        title: The error in a few words, the same for all problems of the class.
        detail: The input that is wrong, the reason, and the remedy.
        retry_after: Seconds after which the client may try again; None where trying again is no remedy.
        members: Extension members of RFC 9457, for example the name of the wrong `parameter`.
    """

    status: int = 500
    type: str = "internal-error"
    title: ClassVar[str] = "Internal server error"

    def __init__(self, detail: str, *, retry_after: int | None = None, **members: Any) -> None:
        super().__init__(detail)
        self.detail = detail
        self.retry_after = retry_after
        self.members = members

    @property
    def headers(self) -> dict[str, str]:
        """The HTTP headers of the response, besides its content type."""
        return {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}


class InternalError(Problem):
    """A fault of the service itself; the log has the traceback under the request's id."""


class InferenceFailed(Problem):
    """The engine failed on the batch of the request's only input."""

    type = "inference-failed"
    title = "Inference failed"


class MalformedBody(Problem):
    """The body does not match its content type."""

    status = 400
    type = "malformed-body"
    title = "The body cannot be parsed"


class MalformedRequest(Problem):
    """The bytes on the connection are not HTTP."""

    status = 400
    type = "malformed-request"
    title = "The request cannot be parsed"


class UnsupportedTransferCoding(Problem):
    """The request has a transfer coding besides `chunked`."""

    status = 501
    type = "unsupported-transfer-encoding"
    title = "Unsupported transfer encoding"


class RequestTimeout(Problem):
    """The request stalled or arrived too slowly."""

    status = 408
    type = "request-timeout"
    title = "Request timeout"

    @property
    def headers(self) -> dict[str, str]:
        """Closes the connection: the unread rest could be parsed as the next request."""
        return super().headers | {"Connection": "close"}


class HeadersTooLarge(Problem):
    """The request line and headers exceed the limit."""

    status = 431
    type = "headers-too-large"
    title = "The headers are too large"


class Unauthorized(Problem):
    """The request does not authenticate its client; `WWW-Authenticate` names the scheme (RFC 6750)."""

    status = 401
    challenge: ClassVar[str] = 'Bearer realm="ood"'

    @property
    def headers(self) -> dict[str, str]:
        """The headers of any problem and the challenge."""
        return super().headers | {"WWW-Authenticate": self.challenge}


class MissingApiKey(Unauthorized):
    """The request has no key."""

    type = "missing-key"
    title = "API key required"


class InvalidApiKey(Unauthorized):
    """The request's key is not in `OOD_API_KEYS_FILE`, or for admin calls not in `OOD_ADMIN_KEYS_FILE`."""

    type = "wrong-key"
    title = "Invalid API key"
    challenge = 'Bearer realm="ood", error="invalid_token"'


class NotFound(Problem):
    """The route does not exist."""

    status = 404
    type = "not-found"
    title = "Not found"


class UnknownModel(NotFound):
    """No model of that name is served."""

    type = "unknown-model"
    title = "Unknown model"


class UnknownVersion(NotFound):
    """The model is served, but not in that version."""

    type = "unknown-version"
    title = "Unknown version"


class HostNotAllowed(Problem):
    """The header `Host` is not in `OOD_ALLOWED_HOSTS`."""

    status = 421
    type = "host-not-allowed"
    title = "Unknown host"


class MethodNotAllowed(Problem):
    """The route exists for other methods."""

    status = 405
    type = "method-not-allowed"
    title = "Method not allowed"


class BodyTooLarge(Problem):
    """The body exceeds `OOD_MAX_BODY_BYTES`."""

    status = 413
    type = "body-too-large"
    title = "The body is too large"


class TooManyInputs(BodyTooLarge):
    """The request has more inputs than `OOD_MAX_INPUTS`."""

    type = "too-many-inputs"
    title = "Too many inputs in one request"


class UnsupportedMediaType(Problem):
    """The route or the model does not take the content type or the content encoding."""

    status = 415
    type = "unsupported-media-type"
    title = "Unsupported content type"


class UnsupportedContentCoding(UnsupportedMediaType):
    """The body is compressed in a way that the service cannot undo; `Accept-Encoding` names those that it can."""

    @property
    def headers(self) -> dict[str, str]:
        """The headers of any problem and the codings (RFC 9110, 15.5.16)."""
        return super().headers | {"Accept-Encoding": "gzip, deflate"}


class InvalidParameter(Problem):
    """An option or the shape of the JSON body is wrong; the member `parameter` names it."""

    status = 422
    type = "invalid-parameter"
    title = "A parameter is invalid"

    def __init__(self, parameter: str, detail: str, **members: Any) -> None:
        super().__init__(f"{parameter}: {detail}", parameter=parameter, **members)


class ReloadDisabled(Problem):
    """The request loads or unloads a model, and `OOD_RELOAD` is off."""

    status = 409
    type = "reload-off"
    title = "Reload is disabled"


class BundleRefused(Problem):
    """The bundle to load cannot be served; `detail` has the reason."""

    status = 422
    type = "bundle-refused"
    title = "A bundle was refused"


class ClientDisconnected(Problem):
    """The client disconnected before its response; the problem appears in logs and metrics only."""

    status = 499
    type = "client-gone"
    title = "The client closed the connection"


class Unavailable(Problem):
    """The service cannot take the request at the moment."""

    status = 503
    type = "unavailable"
    title = "Service unavailable"


class Overloaded(Unavailable):
    """The queue of the model has no room, or the memory for bodies is used up."""

    type = "overloaded"
    title = "The service is overloaded"


class Draining(Unavailable):
    """The service is shutting down."""

    type = "draining"
    title = "The service is shutting down"


class Starting(Unavailable):
    """The models are not loaded yet."""

    type = "starting"
    title = "The service is starting"


class EngineUnavailable(Unavailable):
    """The engine process ended before it had computed the inputs, and is being restarted. Send the request again."""

    type = "engine-unavailable"
    title = "The engine is being restarted"


class RepositoryUnreadable(Unavailable):
    """The folder of the model repository cannot be read."""

    type = "repository-unreadable"
    title = "The model repository cannot be read"


class DeadlineExceeded(Problem):
    """The request was not scored within its `timeout_ms`."""

    status = 504
    type = "deadline-passed"
    title = "Deadline exceeded"


INPUT_ERRORS: Mapping[str, tuple[int, str]] = {
    "deadline-passed": (504, "The deadline passed before the input was computed."),
    "empty-input": (422, "The input has no bytes, or its text no character."),
    "image-too-large": (
        413,
        "The image has more than `OOD_MAX_PIXELS` pixels, or takes more work to decode than 32 passes over as many.",
    ),
    "inference-failed": (500, "The engine failed on the batch of the input."),
    "invalid-base64": (422, "The image or the part of a form is not base64, and claims to be."),
    "invalid-input": (422, "The JSON value is no input, or its `id` is not valid."),
    "invalid-neighbours": (422, "The graph names nearest training examples that the bundle does not have."),
    "invalid-prediction": (422, "The graph predicts a class that the bundle does not have."),
    "non-finite-score": (422, "A score of the graph is not a number for this input."),
    "text-too-long": (413, "The text has more than `OOD_MAX_TEXT_CHARS` characters."),
    "undecodable-image": (422, "The bytes are not an image in a supported format, or the file is damaged."),
    "undecodable-text": (422, "The bytes are not text in their charset, or half of a surrogate pair is missing."),
    "unsupported-input": (422, "The model scores inputs of the other kind, or the encoding of the part is not known."),
}
"""The type of each error of a single input -> its status as the error of a whole request, and its meaning."""


@dataclass(frozen=True, slots=True)
class InputError:
    """The error of one input of a request; the other inputs are still scored. The type is one of `INPUT_ERRORS`.

    Files and records that `score-dataset` cannot read have types of their own.
    """

    type: str
    detail: str


class InvalidInput(Problem):
    """The error of the input at `index` as the answer to the whole request, often because it is the only input."""

    status = 422
    title = "The input cannot be scored"

    def __init__(self, error: InputError, index: int, input_id: str | None) -> None:
        super().__init__(error.detail, index=index)
        if input_id is not None:
            self.members["id"] = input_id
        self.type = error.type
        self.status, _ = INPUT_ERRORS[error.type]
        self.error = error
        self.index = index
