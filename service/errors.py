"""Every error a client can see, and the one place where it becomes HTTP (RFC 9457 `application/problem+json`)."""

from dataclasses import dataclass
from typing import Any, ClassVar

import orjson
from starlette.responses import Response

PROBLEM_JSON = "application/problem+json"


class Problem(Exception):
    """An answer that is not a score. `detail` names the input, the reason and the remedy.

    `members` are RFC 9457 extension members, for example the name of the wrong `parameter`.
    """

    status: ClassVar[int] = 500
    type: ClassVar[str] = "internal-error"
    title: ClassVar[str] = "The service failed"

    def __init__(self, detail: str, *, retry_after: int | None = None, **members: Any) -> None:
        super().__init__(detail)
        self.detail = detail
        self.retry_after = retry_after
        self.members = members

    @property
    def headers(self) -> dict[str, str]:
        """The HTTP headers of the answer, besides its content type."""
        return {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}


class InternalError(Problem):
    """A fault of the service itself; the log has the traceback under the same request id."""


class InferenceFailed(Problem):
    """The engine failed on the batch that this request's only input was in."""

    type = "inference-failed"
    title = "The model could not be run"


class MalformedBody(Problem):
    """The body is not what its content type says."""

    status = 400
    type = "malformed-body"
    title = "The body cannot be parsed"


class MalformedRequest(Problem):
    """What came is not HTTP."""

    status = 400
    type = "malformed-request"
    title = "The request cannot be parsed"


class RequestTimeout(Problem):
    """The request did not arrive in time: it stalled, or came too slowly. The connection is closed."""

    status = 408
    type = "request-timeout"
    title = "The request came too slowly"

    @property
    def headers(self) -> dict[str, str]:
        """With the end of the connection: nobody knows what the rest of this request would be taken for."""
        return super().headers | {"Connection": "close"}


class HeadersTooLarge(Problem):
    """The request line and headers are over what is read of them."""

    status = 431
    type = "headers-too-large"
    title = "The headers are too large"


class Unauthorized(Problem):
    """The request does not show who sends it; `WWW-Authenticate` says how to (RFC 6750)."""

    status = 401
    challenge: ClassVar[str] = 'Bearer realm="ood"'

    @property
    def headers(self) -> dict[str, str]:
        """With the challenge."""
        return super().headers | {"WWW-Authenticate": self.challenge}


class MissingApiKey(Unauthorized):
    """No key came with the request."""

    type = "missing-key"
    title = "A key is needed"


class InvalidApiKey(Unauthorized):
    """A key that is not in `OOD_API_KEYS_FILE`, of admin calls in `OOD_ADMIN_KEYS_FILE`."""

    type = "wrong-key"
    title = "The key is not known"
    challenge = 'Bearer realm="ood", error="invalid_token"'


class NotFound(Problem):
    """No such route, model or version."""

    status = 404
    type = "not-found"
    title = "There is nothing here"


class UnknownModel(NotFound):
    """No model of that name is served."""

    type = "unknown-model"
    title = "Unknown model"


class UnknownVersion(NotFound):
    """The model is served, but not in that version."""

    type = "unknown-version"
    title = "Unknown version"


class MethodNotAllowed(Problem):
    """The route exists for other methods."""

    status = 405
    type = "method-not-allowed"
    title = "Method not allowed"


class BodyTooLarge(Problem):
    """The body is over `OOD_MAX_BODY_BYTES`."""

    status = 413
    type = "body-too-large"
    title = "The body is too large"


class TooManyInputs(BodyTooLarge):
    """More inputs in one request than `OOD_MAX_INPUTS`."""

    type = "too-many-inputs"
    title = "Too many inputs in one request"


class UnsupportedMediaType(Problem):
    """A content type that the route or the model does not take."""

    status = 415
    type = "unsupported-media-type"
    title = "Unsupported content type"


class InvalidParameter(Problem):
    """An option or the shape of the JSON body is wrong; the member `parameter` names it."""

    status = 422
    type = "invalid-parameter"
    title = "A parameter is invalid"

    def __init__(self, parameter: str, detail: str, **members: Any) -> None:
        super().__init__(f"{parameter}: {detail}", parameter=parameter, **members)


class ReloadDisabled(Problem):
    """A model was to be loaded or unloaded, and `OOD_RELOAD` is off."""

    status = 409
    type = "reload-off"
    title = "Reloading is off"


class BundleRefused(Problem):
    """A bundle was to be loaded and cannot be served; `detail` says why."""

    status = 422
    type = "bundle-refused"
    title = "A bundle was refused"


class ClientDisconnected(Problem):
    """The client hung up before its answer; nobody reads this, but logs and metrics name it."""

    status = 499
    type = "client-gone"
    title = "The client closed the connection"


class Unavailable(Problem):
    """Not now; `Retry-After` says when."""

    status = 503
    type = "unavailable"
    title = "The service cannot take this request now"


class Overloaded(Unavailable):
    """The model's queue is full."""

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


class RepositoryUnreadable(Unavailable):
    """The model repository's folder cannot be looked at."""

    type = "repository-unreadable"
    title = "The model repository cannot be read"


class DeadlineExceeded(Problem):
    """The answer would have come after `timeout_ms`."""

    status = 504
    type = "deadline-passed"
    title = "The deadline passed"


@dataclass(frozen=True, slots=True)
class InputError:
    """What is wrong with one input of a request; the other inputs are still scored."""

    type: str
    detail: str


class InvalidInput(Problem):
    """A request that cannot be answered for its bad input at `index`, often its only one: that input's error."""

    status = 422
    title = "The input cannot be scored"

    def __init__(self, error: InputError, index: int, input_id: str | None) -> None:
        super().__init__(error.detail)
        if input_id is not None:
            self.members["id"] = input_id
        self.error = error
        self.index = index


# Input errors are 422 unless they say something about size or about us.
RPCS = "/inference.GRPCInferenceService"
"""What the paths of gRPC calls begin with."""

INPUT_STATUS = {"image-too-large": 413, "text-too-long": 413, "inference-failed": 500}


def problem_response(problem: Problem, request_id: str, path: str) -> Response:
    """`problem` as an HTTP answer that carries `request_id`, in the form of the protocol that `path` belongs to."""
    status, kind = problem.status, problem.type
    if isinstance(problem, InvalidInput):
        kind = problem.error.type
        status = INPUT_STATUS.get(kind, problem.status)
    if path == "/v2" or path.startswith(("/v2/", f"{RPCS}/")):
        # The Open Inference Protocol knows a message and nothing else; the type in front is for programs.
        return Response(
            orjson.dumps({"error": f"{kind}: {problem.detail}"}), status, problem.headers, "application/json"
        )
    body = {
        "type": kind,
        "title": problem.title,
        "status": status,
        "detail": problem.detail,
        "request_id": request_id,
        **problem.members,
    }
    return Response(orjson.dumps(body), status, problem.headers, PROBLEM_JSON)
