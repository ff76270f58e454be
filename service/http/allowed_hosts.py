"""Refuses requests to names that the service is not known by (`OOD_ALLOWED_HOSTS`)."""

import ipaddress
import re
from collections.abc import Sequence

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from service.errors import HostNotAllowed
from service.http.error_responses import ErrorResponses

# Host and port; an IPv6 address is in brackets.
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^:]*)(?::\d*)?")


class AllowedHosts:
    """ASGI middleware that answers 421 if the header `Host` is none of `names`.

    A web page can make a browser send requests to this service under the page's own name, which it lets resolve to the
    service's address (DNS rebinding). Addresses and `localhost` are always allowed: such an attack needs a name, and
    probes of orchestrators have none.
    """

    def __init__(self, app: ASGIApp, *, names: Sequence[str], errors: ErrorResponses) -> None:
        """Allow `names`; one that begins with `*.` stands for all names that end alike."""
        self._app = app
        self._errors = errors
        self._names = frozenset(name for name in names if not name.startswith("*."))
        self._endings = tuple(name[1:] for name in names if name.startswith("*."))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request, or refuse it."""
        if scope["type"] == "http" and (host := Headers(scope=scope).get("host")) and not self._is_allowed(host):
            problem = HostNotAllowed("The service is not known by the name in `Host`. Use its own name or its address.")
            await self._errors.response(scope, problem)(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _is_allowed(self, host: str) -> bool:
        match = _HOST.fullmatch(host)
        if match is None:
            return False
        name = match[1].lower().rstrip(".")
        if name == "localhost" or name in self._names or name.endswith(self._endings):
            return True
        try:
            ipaddress.ip_address(name.strip("[]"))
        except ValueError:
            return False
        return True
