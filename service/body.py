"""Reading a request's body, with the size limit enforced while it arrives."""

from starlette.requests import ClientDisconnect, Request

from service.problems import ClientGone, TooLarge


async def read_body(request: Request, max_bytes: int) -> bytes:
    """The whole body. Raises `TooLarge` as soon as it is known to exceed `max_bytes`, `ClientGone` on a hang-up."""
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > max_bytes:
        raise _too_large(max_bytes)
    chunks: list[bytes] = []
    size = 0
    try:
        async for chunk in request.stream():
            size += len(chunk)
            if size > max_bytes:
                raise _too_large(max_bytes)
            if chunk:
                chunks.append(chunk)
    except ClientDisconnect:
        raise ClientGone("The client closed the connection before its body was complete.") from None
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def _too_large(max_bytes: int) -> TooLarge:
    return TooLarge(f"The body is larger than {max_bytes} bytes. Send smaller inputs, or fewer per request.")
