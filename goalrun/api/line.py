"""The line between a worker in Python and goalrun: one JSON object a line, over a Unix socket."""

import json
import os
import socket
import threading
from concurrent.futures import Future
from typing import Any

SOCKET_VARIABLE = "GOALRUN_FLOW_SOCKET"
TOKEN_VARIABLE = "GOALRUN_FLOW_TOKEN"  # noqa: S105 - the name of a variable
MAX_LINE_BYTES = 1 << 25
"""Of one message; a prompt of the longest kind fits in."""
CONNECT_SECONDS = 60.0


class Lost(ConnectionError):
    """goalrun does not answer any more."""


class Line:
    """Asks goalrun; answers come in any order."""

    def __init__(self, path: str, token: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(CONNECT_SECONDS)
        self._socket.connect(path)
        self._socket.settimeout(None)
        self._lock = threading.Lock()
        self._number = 0
        self._open: dict[int, Future[Any]] = {}
        self._send({"token": token})
        threading.Thread(target=self._listen, daemon=True, name="goalrun").start()

    def ask(self, what: str, **fields: object) -> "Future[Any]":
        """Ask for something; the future has its number as ``number``."""
        future: Future[Any] = Future()
        # A future that runs cannot be cancelled by whoever waits for it.
        future.set_running_or_notify_cancel()
        with self._lock:
            self._number += 1
            number = self._number
            self._open[number] = future
        future.number = number  # type: ignore[attr-defined]
        try:
            self._send({"id": number, "do": what, **fields})
        except BaseException:
            self._open.pop(number, None)
            raise
        return future

    def tell(self, what: str, **fields: object) -> None:
        """Say something that needs no answer."""
        self._send({"id": 0, "do": what, **fields})

    def quiet(self) -> None:
        """Wait until everything that was asked is answered."""
        while True:
            with self._lock:
                rest = list(self._open.values())
            if not rest:
                return
            for future in rest:
                future.exception()

    def _send(self, message: dict[str, object]) -> None:
        data = json.dumps(message, allow_nan=False, ensure_ascii=True).encode("ascii") + b"\n"
        if len(data) > MAX_LINE_BYTES:
            raise ValueError(f"a request of {len(data)} bytes is too long; {MAX_LINE_BYTES} are the most")
        try:
            with self._lock:
                self._socket.sendall(data)
        except OSError as failure:
            raise Lost("goalrun is gone") from failure

    def _listen(self) -> None:
        with self._socket, self._socket.makefile("rb") as lines:
            try:
                for line in lines:
                    self._heard(json.loads(line))
            except (OSError, ValueError):
                pass
        with self._lock:
            rest, self._open = self._open, {}
        for future in rest.values():
            future.set_exception(Lost("goalrun is gone"))

    def _heard(self, answer: dict[str, Any]) -> None:
        with self._lock:
            future = self._open.pop(answer["id"], None)
        if future is None:
            return
        if "wrong" in answer:
            future.set_exception(ValueError(answer["wrong"]))
        else:
            future.set_result(answer["answer"])


def connect() -> Line:
    """The line of this process.

    Raises:
        RuntimeError: goalrun did not start it.
    """
    path, token = os.environ.pop(SOCKET_VARIABLE, ""), os.environ.pop(TOKEN_VARIABLE, "")
    if not path:
        raise RuntimeError("goalrun did not start this process")
    return Line(path, token)
