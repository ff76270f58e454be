"""A request's id: its client's, or one of our own."""

import random
import re

from starlette.datastructures import Headers
from starlette.types import Scope

REQUEST_ID = "request_id"
"""Where a request's scope has it."""

ACCEPTED_ID = re.compile(r"[A-Za-z0-9._:/+=@-]{1,128}")
"""What is taken as it is."""


def request_id_of(scope: Scope) -> str:
    """The id that the header `X-Request-ID` gives the request, where it is an `ACCEPTED_ID`, or a new one."""
    given = Headers(scope=scope).get("x-request-id", "")
    # Unique, not secret: no system call for it.
    return given if ACCEPTED_ID.fullmatch(given) else f"{random.getrandbits(128):032x}"
