"""Listens for one child process over a Unix socket, one JSON object a line; whatever it sends is untrusted."""

import hmac
import json
import secrets
import shutil
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from goalrun.adapters.clock import TICK_SECONDS
from goalrun.api.line import MAX_LINE_BYTES, SOCKET_VARIABLE, TOKEN_VARIABLE
from goalrun.core.value import Json, JsonObject
from goalrun.errors import EnvironmentFailure

Heard = Callable[[JsonObject, Callable[[JsonObject], None], int], None]
"""Called with a message, what answers it, and its size in bytes; in a thread."""
HELLO_BYTES = 1_000
HELLO_SECONDS = 20.0
"""How long who connects may take to show the token."""
MOST_PATH = 70
"""Of a temporary folder's: the address of a socket has at most about 100 bytes (unix(7))."""
TOKEN_BYTES = 24


@contextmanager
def listen(heard: Heard) -> Iterator[dict[str, str]]:
    """Be there for one child, for as long as the context lasts.

    Args:
        heard: called with each message, in a thread, and with what sends an answer to it. What is no message ends the
            conversation.

    Yields:
        The variables by which the child finds the socket.
    """
    long = len(tempfile.gettempdir()) > MOST_PATH
    folder = Path(tempfile.mkdtemp(prefix="goalrun-flow-", dir="/tmp" if long else None))  # noqa: S108 - mode 0700
    token = secrets.token_urlsafe(TOKEN_BYTES)
    path = folder / "socket"
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    talk = _Talk(listener, token, heard)
    thread = threading.Thread(target=talk.run, name="goalrun-wire", daemon=True)
    try:
        try:
            listener.bind(str(path))
            listener.listen(1)
        except OSError as failure:
            raise EnvironmentFailure(f"cannot listen at {path}: {failure}") from failure
        thread.start()
        yield {SOCKET_VARIABLE: str(path), TOKEN_VARIABLE: token}
    finally:
        talk.close()
        if thread.ident is not None:
            thread.join()
        listener.close()
        shutil.rmtree(folder, ignore_errors=True)


class _Talk:
    """The conversation with whoever shows the token first; nobody else is listened to."""

    def __init__(self, listener: socket.socket, token: str, heard: Heard) -> None:
        self._listener = listener
        self._token = token.encode("ascii")
        self._heard = heard
        self._lock = threading.Lock()
        self._peer: socket.socket | None = None
        self._closed = False

    def run(self) -> None:
        """Listen until the other side, or this one, ends it."""
        self._listener.settimeout(TICK_SECONDS)
        while not self._closed:
            try:
                peer, _ = self._listener.accept()
            except TimeoutError:
                continue
            with peer, suppress(OSError):
                if self._welcome(peer):
                    self._listener.close()
                    self._peer = peer
                    self._converse(peer)
                    return

    def close(self) -> None:
        """End it. An answer that the child does not read is given up."""
        self._closed = True
        if self._peer is not None:
            with suppress(OSError):
                self._peer.shutdown(socket.SHUT_RDWR)

    def _welcome(self, peer: socket.socket) -> bool:
        """Whether it shows the token, in its first line."""
        peer.settimeout(HELLO_SECONDS)
        line = b""
        try:
            while not line.endswith(b"\n") and len(line) < HELLO_BYTES:
                # A byte at a time: what follows the line is not ours to read here.
                byte = peer.recv(1)
                if not byte:
                    return False
                line += byte
            peer.settimeout(None)
            shown = json.loads(line)
        except (OSError, ValueError):
            return False
        given = shown.get("token") if isinstance(shown, dict) else None
        return isinstance(given, str) and hmac.compare_digest(given.encode("utf-8", "replace"), self._token)

    def _converse(self, peer: socket.socket) -> None:
        with peer.makefile("rb") as lines:
            while not self._closed:
                line = lines.readline(MAX_LINE_BYTES + 1)
                message = _message(line)
                if message is None:
                    return
                self._heard(message, self._answering(peer, message["id"]), len(line))

    def _answering(self, peer: socket.socket, number: object) -> Callable[[JsonObject], None]:
        def answer(said: JsonObject) -> None:
            data = json.dumps({**said, "id": number}).encode("ascii") + b"\n"
            with self._lock, suppress(OSError):
                peer.sendall(data)

        return answer


def _message(line: bytes) -> dict[str, Json] | None:
    """A message; None for the end, and for what is none."""
    if not line.endswith(b"\n"):
        return None
    try:
        message = json.loads(line)
    except (ValueError, RecursionError):
        return None
    sound = isinstance(message, dict) and type(message.get("id")) is int and isinstance(message.get("do"), str)
    return message if sound else None
