"""The kernel host's side of the connection to the server: lines in, lines out, and never a wait for either."""

from __future__ import annotations

import contextlib
import selectors
import socket
from collections.abc import Callable
from typing import Any

from s1vl_sandbox.protocol import Lines, Message, ProtocolError, encode

# A server that does not read is as good as gone.
_MOST_UNSENT_BYTES = 4 * 1024 * 1024


class Peer:
    """A connected server.

    Args:
        connection: Its socket; closed here.
        selector: Told when there is something to read, or room to write.
        obey: Called with each message.
        lost: Called once, with the reason, when the server is gone or as good as that.
    """

    def __init__(
        self,
        connection: socket.socket,
        selector: selectors.BaseSelector,
        obey: Callable[[Message], None],
        lost: Callable[[str], None],
    ) -> None:
        connection.setblocking(False)
        self._connection = connection
        self._selector = selector
        self._obey = obey
        self._lost = lost
        self._lines = Lines()
        self._unsent = bytearray()
        self._open = True
        selector.register(connection, selectors.EVENT_READ, self._serve)

    def send(self, type_: str, **fields: Any) -> None:
        """Say something, at once or as soon as there is room."""
        if self._open:
            self._unsent += encode(type_, **fields)
            self._flush()

    def drop(self, why: str) -> None:
        """Hang up."""
        if self._open:
            self._open = False
            self._selector.unregister(self._connection)
            self._connection.close()
            self._lost(why)

    def let_go(self) -> None:
        """In a forked child: close its copy of the socket, which says nothing to the server."""
        self._connection.close()

    def _serve(self, events: int) -> None:
        if self._open and events & selectors.EVENT_WRITE:
            self._flush()
        # It may have been lost just now, or by what came before in the same batch of events.
        if self._open and events & selectors.EVENT_READ:
            self._receive()

    def _receive(self) -> None:
        try:
            data = self._connection.recv(65536)
            messages = self._lines.feed(data)
        except BlockingIOError:
            return
        except (OSError, ProtocolError) as error:
            self.drop(str(error))
            return
        if not data:
            self.drop("it has closed its connection")
        for message in messages:
            # One of them may have been the last that it was heard for.
            if self._open:
                self._obey(message)

    def _flush(self) -> None:
        try:
            with contextlib.suppress(BlockingIOError):
                del self._unsent[: self._connection.send(self._unsent)]
        except OSError as error:
            self.drop(str(error))
            return
        if len(self._unsent) > _MOST_UNSENT_BYTES:
            self.drop("it does not read")
            return
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if self._unsent else 0)
        self._selector.modify(self._connection, events, self._serve)
