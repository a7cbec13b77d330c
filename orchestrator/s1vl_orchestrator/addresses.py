"""Addresses of pods: how a name is resolved, and how an address takes a name's place in a URL."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from urllib.parse import urlsplit

Resolve = Callable[[str], Awaitable[list[str]]]
"""Gives a host's addresses, none if it has none. Raises OSError if that cannot be told."""


async def resolve_host(host: str) -> list[str]:
    """The IPv4 and IPv6 addresses of a host."""
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        if error.errno in (socket.EAI_NONAME, socket.EAI_NODATA):
            return []
        raise
    return [str(address[0]) for *_, address in found]


def at_address(url: str, address: str) -> str:
    """The URL with an IP address in place of its host."""
    parts = urlsplit(url)
    host = f"[{address}]" if ":" in address else address
    return parts._replace(netloc=f"{host}:{parts.port}" if parts.port else host).geturl()
