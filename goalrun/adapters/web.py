"""A web server for one person on this machine: loopback alone, a token, and nothing that another site could use.

Who has the address with the token gets a cookie for it (SameSite=Strict). Requests under another host's name are
refused (DNS rebinding), and forms carry a token of their own that no other site can read.
"""

import secrets
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from hmac import compare_digest
from http import HTTPStatus
from http.cookies import CookieError, SimpleCookie
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar, NamedTuple
from urllib.parse import parse_qs, urlsplit

from goalrun.errors import SettingsError

LOOPBACK = "127.0.0.1"
TOKEN_BYTES = 24
MAX_FORM_BYTES = 128 << 10
IDLE_SECONDS = 60
MAX_CONNECTIONS = 64
"""At once, each of which has a thread: more than the tabs of one person, few enough for any machine."""
FULL = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 5\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
HTML, SCRIPT, TEXT = "text/html; charset=utf-8", "text/javascript; charset=utf-8", "text/plain; charset=utf-8"
_HEADERS = {
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    # Not "no-referrer": with that a browser does not say where a form comes from, either.
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
Events = Iterator[bool]
"""True where something has changed; False lets the server see whether anybody still listens."""


class Request(NamedTuple):
    """What is asked for; ``form`` is None unless it is a form, whose token was right."""

    path: str
    query: Mapping[str, str]
    form: Mapping[str, str] | None = None


class Reply(NamedTuple):
    """An answer. With ``goto`` the browser goes on to there."""

    body: str
    status: HTTPStatus = HTTPStatus.OK
    kind: str = HTML
    goto: str = ""


class WebServer(ThreadingHTTPServer):
    """Answers until it is shut down.

    Args:
        port: 0 is any that is free.
        policy: the pages' Content-Security-Policy.
        answer: gets every request that may be answered.
        failed: gets what ``answer`` did not foresee, and makes a page of it.
        passes: paths that may be read for a token of their own, as an ``Authorization: Bearer`` (RFC 6750), too.

    Attributes:
        form_token: what forms have to carry.

    Raises:
        SettingsError: the port cannot be had.
    """

    daemon_threads = True
    # A port that somebody else listens on must not be shared.
    allow_reuse_port = False

    def __init__(
        self,
        port: int,
        policy: str,
        answer: Callable[[Request], Reply | Events],
        failed: Callable[[Exception], Reply],
        passes: Mapping[str, str] | None = None,
    ) -> None:
        self.answer, self.failed, self.policy, self.passes = answer, failed, policy, passes or {}
        self._room = threading.BoundedSemaphore(MAX_CONNECTIONS)
        self.form_token = secrets.token_urlsafe(TOKEN_BYTES)
        self._token = secrets.token_urlsafe(TOKEN_BYTES)
        self._once: list[str] = []
        try:
            super().__init__((LOOPBACK, port), _Handler)
        except (OSError, OverflowError) as failure:
            raise SettingsError(f"port {port} cannot be used: {failure}", hint="--port N, or none for any") from failure
        self.port: int = self.server_address[1]
        self.cookie = f"goalrun-{self.port}"
        self.names = frozenset({f"{LOOPBACK}:{self.port}", f"localhost:{self.port}"})

    def process_request(self, request: Any, client_address: Any) -> None:  # noqa: ANN401 - as inherited
        """Begin a thread for a connection, or say that there are too many."""
        if self._room.acquire(blocking=False):
            super().process_request(request, client_address)
            return
        with suppress(OSError):
            request.send(FULL, socket.MSG_DONTWAIT)
        self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:  # noqa: ANN401 - as inherited
        """See ``process_request``."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._room.release()

    def address(self, *, once: bool = False) -> str:
        """The address to open; with ``once`` it works a single time, for where others of this machine can read it."""
        token = secrets.token_urlsafe(TOKEN_BYTES) if once else self._token
        if once:
            self._once.append(token)
        return f"http://{LOOPBACK}:{self.port}/?token={token}"

    def lets_in(self, token: str) -> bool:
        """Whether it is the token of an address."""
        if token in self._once:
            self._once.remove(token)
            return True
        return self.knows(token)

    def knows(self, token: str) -> bool:
        """Whether it is the token itself, as the cookie holds it."""
        return compare_digest(token.encode(), self._token.encode())

    @property
    def set_cookie(self) -> str:
        """The cookie's header."""
        return f"{self.cookie}={self._token}; HttpOnly; SameSite=Strict; Path=/"


class _Handler(BaseHTTPRequestHandler):
    server: WebServer  # type: ignore[mutable-override]  # what WebServer makes of each connection
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "goalrun", ""
    timeout: ClassVar[float | None] = IDLE_SECONDS

    def do_GET(self) -> None:
        self._answer(lambda: self._let_in() or self._asked(None))

    def do_POST(self) -> None:
        # What is refused before it is read must not be taken for a next request.
        self.close_connection = True
        self._answer(lambda: self._let_in() or self._posted())

    def log_message(self, *_: object) -> None:
        """Keep quiet: standard error is for people."""

    def _answer(self, ask: Callable[[], Reply | Events]) -> None:
        self._begun = False
        with suppress(ConnectionError, TimeoutError):
            try:
                self._give(ask())
            except (ConnectionError, TimeoutError):
                self.close_connection = True
            except Exception as failure:  # noqa: BLE001 - the one boundary: what nobody foresaw is told and logged
                self.close_connection = True
                reply = self.server.failed(failure)
                if not self._begun:
                    self._give(reply)

    def _let_in(self) -> Reply | None:
        """What is told to whoever may not come in; the cookie for who has the address."""
        if self.headers.get("Host", "") not in self.server.names:
            return Reply("wrong host\n", HTTPStatus.MISDIRECTED_REQUEST, TEXT)
        own = self.server.passes.get(urlsplit(self.path).path)
        told = self.headers.get("Authorization", "")
        if self.command == "GET" and own is not None and compare_digest(told.encode(), f"Bearer {own}".encode()):
            return None
        if self.command == "GET" and self.server.lets_in(self._query().get("token", "")):
            return Reply("", HTTPStatus.SEE_OTHER, goto="/")
        jar = SimpleCookie()
        with suppress(CookieError):
            jar.load(self.headers.get("Cookie", ""))
        held = jar.get(self.server.cookie)
        if held is None or not self.server.knows(held.value):
            return Reply("open the address that goalrun printed\n", HTTPStatus.FORBIDDEN, TEXT)
        return None

    def _query(self) -> dict[str, str]:
        return _first(urlsplit(self.path).query)

    def _asked(self, form: Mapping[str, str] | None) -> Reply | Events:
        return self.server.answer(Request(urlsplit(self.path).path, self._query(), form))

    def _posted(self) -> Reply | Events:
        size = self.headers.get("Content-Length", "")
        if not size.isdecimal() or int(size) > MAX_FORM_BYTES:
            return Reply("too large\n", HTTPStatus.REQUEST_ENTITY_TOO_LARGE, TEXT)
        form = _first(self.rfile.read(int(size)).decode("utf-8", "replace"))
        # A browser says where a form comes from (https://fetch.spec.whatwg.org/#origin-header).
        origin = self.headers.get("Origin")
        ours = origin is None or origin.removeprefix("http://") in self.server.names
        if not ours or not compare_digest(form.get("token", "").encode(), self.server.form_token.encode()):
            return Reply("this form is of another server or time: load the page again\n", HTTPStatus.FORBIDDEN, TEXT)
        return self._asked(form)

    def _give(self, reply: Reply | Events) -> None:
        if not isinstance(reply, Reply):
            self._stream(reply)
            return
        body = reply.body.encode("utf-8", "replace")
        self.send_response(reply.status)
        if reply.goto:
            self.send_header("Location", reply.goto)
            self.send_header("Set-Cookie", self.server.set_cookie)
        self._common(reply.kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _common(self, kind: str) -> None:
        self._begun = True
        self.send_header("Content-Type", kind)
        self.send_header("Content-Security-Policy", self.server.policy)
        for name, value in _HEADERS.items():
            self.send_header(name, value)

    def _stream(self, events: Events) -> None:
        """Server-sent events (https://html.spec.whatwg.org/#server-sent-events), until nobody listens."""
        self.close_connection = True
        self.send_response(HTTPStatus.OK)
        self._common("text/event-stream")
        self.end_headers()
        for changed in events:
            self.wfile.write(b"data: changed\n\n" if changed else b": here\n\n")


def _first(text: str) -> dict[str, str]:
    """The first value of each name of a query or a form; more names than a page has are refused as none."""
    with suppress(ValueError):
        return {name: values[0] for name, values in parse_qs(text, max_num_fields=16).items()}
    return {}
