"""The id of a request: from its client, or generated."""

import random
import re

from starlette.datastructures import Headers
from starlette.types import Scope

REQUEST_ID = "request_id"
"""The key of the id in a request's scope."""

ACCEPTED_ID = re.compile(r"[A-Za-z0-9._:/+=@-]{1,128}")
"""The ids that are accepted from clients."""


def request_id_of(scope: Scope) -> str:
    """The value of the header `X-Request-ID` if it matches `ACCEPTED_ID`, else a new id."""
    client_id = Headers(scope=scope).get("x-request-id", "")
    # Ids are unique, not secret, so they need no system call.
    return client_id if ACCEPTED_ID.fullmatch(client_id) else f"{random.getrandbits(128):032x}"
