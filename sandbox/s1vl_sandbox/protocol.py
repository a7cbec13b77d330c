"""The words between the server and the kernel host, and between the host and a child: JSON, one object a line.

From the server: ``configure`` (first), ``start`` (id, read, write, cwd), ``interrupt`` (id), ``kill`` (id).
From the host: ``hello`` (first), ``warm`` (count), ``started`` (id, pid, folder, warm), ``failed`` (id, kind, why),
``exited`` (id, code, signal, cause), ``removed`` (id: its folder is gone).

Kernels import this module: it must stay light.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

Message = dict[str, Any]

# Far above the largest honest line: a start with some thousand readable paths.
_MOST_BYTES = 4 * 1024 * 1024


class ProtocolError(RuntimeError):
    """The other side sent what is no message."""


class Lines:
    """Puts messages together from the pieces in which a socket gives them."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[Message]:
        """Take what was received and return the messages that are whole.

        Raises:
            ProtocolError: A line is not a JSON object or has over 4 MiB.
        """
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > _MOST_BYTES:
            raise ProtocolError(f"a line of over {_MOST_BYTES} bytes")
        return [_decode(line) for line in lines]


def encode(type_: str, **fields: Any) -> bytes:
    """One message as it is sent; paths become text."""
    return json.dumps({"type": type_, **fields}, default=_plain).encode() + b"\n"


def socket_path(state_dir: Path) -> Path:
    """Where the host listens for its server."""
    return state_dir / "host.sock"


def kernels_folder(state_dir: Path) -> Path:
    """Where every kernel has its folder."""
    return state_dir / "k"


def _plain(value: object) -> str:
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{type(value).__name__} cannot be sent")


def _decode(line: bytes) -> Message:
    try:
        message = json.loads(line)
    except ValueError as error:
        raise ProtocolError(f"no JSON: {line[:100]!r}") from error
    if not isinstance(message, dict) or not isinstance(message.get("type"), str):
        raise ProtocolError(f"no message: {line[:100]!r}")
    return message
