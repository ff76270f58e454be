"""The bound sockets of the service."""

import errno
import socket

from service.settings import Settings, env_name


class BindError(Exception):
    """The address cannot be bound; the message names the setting to change."""


def bind_sockets(settings: Settings) -> list[socket.socket]:
    """A bound socket for each address of the host. None listens yet, so early connections are refused at once.

    Raises:
        BindError: The address is in use, not allowed, or not one of this machine.
    """
    try:
        return _bind(settings.host, settings.port)
    except OSError as error:
        setting = "port" if error.errno in (errno.EADDRINUSE, errno.EACCES) else "host"
        remedy = f"Set {env_name(setting)} to another one"
        if error.errno == errno.EADDRINUSE:
            remedy = f"Stop the program that uses the port, or set {env_name(setting)} to another one"
        reason = f"{settings.host}:{settings.port}: {error.strerror or error}. {remedy}."
        raise BindError(reason) from error


def _bind(host: str, port: int) -> list[socket.socket]:
    sockets: list[socket.socket] = []
    for family, kind, protocol, _, address in socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    ):
        sock = socket.socket(family, kind, protocol)
        sockets.append(sock)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(address)
    return sockets
