"""A small TCP proxy before the S3 server: it counts requests, and drops connections, delays answers or kills at one."""

import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Literal

REQUEST = re.compile(rb"(GET|PUT|POST|HEAD|DELETE) (\S+) HTTP/1\.1\r\n")
# pass it on; close before it arrives; close before its answer is heard; answer late; wait for `release`
Action = Literal["pass", "drop", "drop answer", "delay", "hold"]


@dataclass
class Proxy:
    """Connections to a port of this machine, passed on to another one."""

    target: int
    decide: Callable[[int, str], Action] = lambda number, request: "pass"  # by the number of the request, from 1
    seconds: float = 1.0  # by which an answer is late
    requests: list[str] = field(default_factory=list)
    port: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _released: threading.Event = field(default_factory=threading.Event)
    _then: list[Action] = field(default_factory=list)

    def release(self, action: Action) -> None:
        """Say what becomes of a request that is held; the first word counts."""
        self._then.append(action)
        self._released.set()

    def begin(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with suppress(OSError), client, socket.create_connection(("127.0.0.1", self.target)) as server:
            fate: list[Action] = ["pass"]
            threading.Thread(target=self._answer, args=(server, client, fate), daemon=True).start()
            while data := client.recv(1 << 16):
                if REQUEST.match(data):
                    fate[0] = self._next(data)
                if fate[0] == "hold":
                    self._released.wait(60)
                    fate[0] = self._then[0]
                if fate[0] == "drop":
                    break
                server.sendall(data)
            _close(server)
            _close(client)

    def _next(self, data: bytes) -> Action:
        """Return what becomes of a request."""
        found = REQUEST.match(data)
        assert found is not None
        with self._lock:
            self.requests.append(b" ".join(found.groups()).decode())
            return self.decide(len(self.requests), self.requests[-1])

    def _answer(self, server: socket.socket, client: socket.socket, fate: list[Action]) -> None:
        """Pass answers on; that the body may come (100) is none yet."""
        with suppress(OSError):
            while data := server.recv(1 << 16):
                if not data.startswith(b"HTTP/1.1 100"):
                    if fate[0] == "drop answer":
                        break
                    if fate[0] == "delay":
                        fate[0] = "pass"
                        time.sleep(self.seconds)
                client.sendall(data)
        _close(client)
        _close(server)


def _close(connection: socket.socket) -> None:
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


@contextmanager
def passing(target: int) -> Iterator[Proxy]:
    """Run a proxy before a port, until the end of the context."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        proxy = Proxy(target, port=listener.getsockname()[1])
        thread = threading.Thread(target=proxy.begin, args=(listener,), daemon=True)
        thread.start()
        yield proxy
        _close(listener)
    thread.join(5)
