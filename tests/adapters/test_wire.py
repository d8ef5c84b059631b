"""The line to a child process: only who shows the token is heard, and nothing that comes over it can hurt."""

import json
import socket
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path

import pytest

from goalrun.adapters import wire
from goalrun.adapters.wire import listen
from goalrun.api.line import MAX_LINE_BYTES, SOCKET_VARIABLE, TOKEN_VARIABLE, Line
from goalrun.core.value import JsonObject


class Echo:
    """Answers with what it was told, and remembers it."""

    def __init__(self) -> None:
        self.heard: list[JsonObject] = []

    def __call__(self, message: JsonObject, answer: Callable[[JsonObject], None], size: int) -> None:
        assert size > 0
        self.heard.append(message)
        answer({"answer": message["do"]})


def connected(env: dict[str, str], first: bytes) -> socket.socket:
    peer = socket.socket(socket.AF_UNIX)
    peer.settimeout(30)
    peer.connect(env[SOCKET_VARIABLE])
    peer.sendall(first)
    return peer


def hello(env: dict[str, str]) -> bytes:
    return json.dumps({"token": env[TOKEN_VARIABLE]}).encode() + b"\n"


def test_a_question_is_answered_and_nothing_is_left_afterwards() -> None:
    with listen(Echo()) as env:
        folder = Path(env[SOCKET_VARIABLE]).parent
        assert folder.stat().st_mode & 0o777 == 0o700
        assert Line(env[SOCKET_VARIABLE], env[TOKEN_VARIABLE]).ask("x").result(30) == "x"
    assert not folder.exists()


@pytest.mark.parametrize(
    "first", [b"\n", b"garbage\n", b'{"token": "wrong"}\n', b'{"token": 1}\n', b"[]\n", b"x" * 2000, b"\xff\xfe\n"]
)
def test_who_does_not_know_the_token_is_sent_away_and_not_heard(first: bytes) -> None:
    echo = Echo()
    with listen(echo) as env:
        # Reset, where what it sent was not read.
        with closing(connected(env, first + b'{"id": 1, "do": "stolen"}\n')) as peer, suppress(ConnectionResetError):
            assert peer.recv(1) == b""
        assert Line(env[SOCKET_VARIABLE], env[TOKEN_VARIABLE]).ask("mine").result(30) == "mine"
    assert [message["do"] for message in echo.heard] == ["mine"]


def test_many_who_connect_and_say_nothing_only_delay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "HELLO_SECONDS", 2.0)
    with listen(Echo()) as env:
        silent = connected(env, b"")
        with ThreadPoolExecutor() as pool:
            line = pool.submit(Line, env[SOCKET_VARIABLE], env[TOKEN_VARIABLE])
            assert line.result(30).ask("x").result(30) == "x"
        silent.close()


def test_nobody_else_can_connect_once_the_child_has() -> None:
    with listen(Echo()) as env:
        Line(env[SOCKET_VARIABLE], env[TOKEN_VARIABLE]).ask("x").result(30)
        with closing(socket.socket(socket.AF_UNIX)) as late, pytest.raises(OSError, match=r"refused|No such file"):
            late.connect(env[SOCKET_VARIABLE])


@pytest.mark.parametrize(
    "sent",
    [
        b"\x00\xff garbage\n",
        b"[" * 200_000 + b"\n",
        b"[]\n",
        b'{"id": "1", "do": "x"}\n',
        b'{"id": true, "do": "x"}\n',
        b'{"id": 1}\n',
        b'{"id": 1, "do": 5}\n',
    ],
)
def test_what_is_no_message_ends_the_conversation(sent: bytes) -> None:
    echo = Echo()
    with listen(echo) as env:
        late = b'{"id": 9, "do": "late"}\n'
        with closing(connected(env, hello(env) + sent + late)) as peer, suppress(ConnectionResetError):
            assert peer.recv(1) == b""
    assert echo.heard == []


def test_a_line_without_end_is_not_kept_in_memory() -> None:
    broken = pytest.raises(OSError, match=r"Broken pipe|reset")
    with listen(Echo()) as env, closing(connected(env, hello(env))) as peer, broken:
        peer.sendall(b"x" * (3 * MAX_LINE_BYTES))


def test_a_child_that_reads_no_answer_holds_nobody_up() -> None:
    writing = threading.Event()

    def heard(_message: JsonObject, answer: Callable[[JsonObject], None], _size: int) -> None:
        writing.set()
        answer({"answer": "x" * 10_000_000})

    with listen(heard) as env:
        peer = connected(env, hello(env) + b'{"id": 1, "do": "x"}\n')
        assert writing.wait(30)
    peer.close()
