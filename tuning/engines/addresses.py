"""Addresses that a chief or a cluster is reached at."""

from __future__ import annotations

import ipaddress
import socket

LOOPBACK = "127.0.0.1"


def address_of(text: str, *, host: str | None = None) -> tuple[str, int]:
    """Host and port of `HOST:PORT`.

    Args:
        text: The address; an IPv6 host is in brackets.
        host: Host where only a port is given, which may then be 0, any free one.
            Defaults to `None`: both must be there.

    Raises:
        ValueError: If it is no address.
    """
    name, colon, port = text.rpartition(":")
    known = name if colon else host
    least = 1 if host is None else 0
    bare = name if name.startswith("[") or ":" not in name else ""  # Else it has no end that can be told.
    if not known or bool(colon) != bool(bare) or not port.isdecimal() or not least <= int(port) <= 65535:
        shape = (
            "HOST:PORT, such as node1:8470" if host is None else "[HOST:]PORT, such as 8470 or 10.0.0.5:8470"
        )
        raise ValueError(f"An address must be {shape}. Got {text!r}.")
    return known, int(port)


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches the host's ports."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def free_port(host: str, port: int) -> int:
    """The port, or any free one for 0, if it can be listened on.

    Raises:
        ValueError: If it cannot.
    """
    bare = host.strip("[]")
    try:
        family, kind, number, _, place = socket.getaddrinfo(bare, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, number) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # As gRPC does after a chief's end.
            probe.bind(place)
            probe.listen(1)
            return int(probe.getsockname()[1])
    except OSError as error:
        raise ValueError(
            f"A chief's port must be free and its address one of this machine. Got {host}:{port}: "
            f"{error.strerror or error}."
        ) from None
