"""Lets web pages of other origins call the service (`OOD_CORS_ORIGINS`)."""

from collections.abc import Sequence

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.types import ASGIApp
from typing_extensions import override


class CrossOrigin(CORSMiddleware):
    """Starlette's CORS middleware, with the methods and headers of this service.

    It is the outermost middleware: a page can also read errors, and a preflight request, which has no key, is answered
    before the key is checked. Pages cannot send cookies, of which the service has none.
    """

    def __init__(self, app: ASGIApp, *, origins: Sequence[str]) -> None:
        super().__init__(
            app,
            allow_origins=origins,
            allow_methods=["GET", "HEAD", "POST"],
            allow_headers=["*"],
            expose_headers=["X-Request-ID", "Retry-After", "WWW-Authenticate", "Inference-Header-Content-Length"],
        )

    @override
    def preflight_response(self, request_headers: Headers) -> Response:
        """The answer to a preflight request; without CORS headers for another origin, so that the browser refuses."""
        response = super().preflight_response(request_headers)
        return response if response.status_code == 200 else Response(status_code=204, headers={"Vary": "Origin"})
