"""A request that the service has accepted, and whose body is not complete."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager

from tests.system.support.scoring_clients import SCORE_PATH


@contextmanager
def unfinished_request(port: int) -> Iterator[socket.socket]:
    """The connection of a scoring request whose body is being read.

    The response `100 Continue` shows that the service has accepted the request and waits for its body.
    """
    headers = "Host: x\r\nContent-Type: image/png\r\nContent-Length: 100\r\nExpect: 100-continue"
    with socket.create_connection(("127.0.0.1", port), timeout=120) as connection:
        connection.sendall(f"POST {SCORE_PATH} HTTP/1.1\r\n{headers}\r\n\r\n".encode())
        response = connection.recv(1024)
        assert response.startswith(b"HTTP/1.1 100 "), response
        yield connection
