"""A TCP proxy before the API server, that can be away in several ways."""

from __future__ import annotations

import contextlib
import socket
import threading

from hack.ports import free_port

BUFFER = 65536


class Proxy:
    """Passes bytes between 127.0.0.1:`port` and a port of this machine, from `start` to `close`.

    Attributes:
        port: that it listens on.
    """

    def __init__(self, target: int) -> None:
        self._target = target
        self._listener = socket.socket()
        # Not 0: a port that the kernel chose would not stay bound through `refuse`.
        self.port = free_port()
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listener.bind(("127.0.0.1", self.port))
        self._lock = threading.Lock()
        self._connections: set[socket.socket] = set()
        self._passes = threading.Event()
        self._passes.set()

    def start(self) -> None:
        """Take connections, again after `refuse` as well."""
        self._listener.listen(128)
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """End all connections; new ones are taken."""
        with self._lock:
            for connection in self._connections:
                # Another thread closes it: here that would give its number to the next connection.
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    def refuse(self) -> None:
        """End all connections, and refuse new ones."""
        # The port stays ours: it is bound still.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self.cut()

    def silence(self) -> None:
        """Pass nothing on, as a network that loses every packet: what is sent arrives after `speak`."""
        self._passes.clear()

    def speak(self) -> None:
        """Pass everything on again."""
        self._passes.set()

    def close(self) -> None:
        """End everything."""
        self.refuse()
        self._passes.set()
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return  # refused or closed
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, socket.socket() as server, contextlib.suppress(OSError):
            self._passes.wait()
            server.connect(("127.0.0.1", self._target))
            with self._lock:
                self._connections |= {client, server}
            back = threading.Thread(target=self._pump, args=(server, client), daemon=True)
            back.start()
            self._pump(client, server)
            back.join()
            with self._lock:
                self._connections -= {client, server}

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(BUFFER):
                self._passes.wait()
                sink.sendall(data)
        for one in (source, sink):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
