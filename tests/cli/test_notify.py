"""``[notify]``: who is told when a goal ends or waits, over a real connection, and what it cannot hold up."""

import json
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from support import Program, git


class Desk(ThreadingHTTPServer):
    """A server on loopback that keeps what is posted to it, and answers as it is told."""

    def __init__(self, status: int = 204, location: str = "") -> None:
        self.posts: list[tuple[str, dict[str, Any]]] = []
        self.gets = 0
        desk = self

        class Answer(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                desk.posts.append((self.path, json.loads(body)))
                self.send_response(status)
                if location:
                    self.send_header("Location", location)
                self.end_headers()

            def do_GET(self) -> None:
                desk.gets += 1
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        super().__init__(("127.0.0.1", 0), Answer)

    def handle_error(self, *_: object) -> None:
        """A handshake that the other side breaks off is what one test is about."""

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server_port}"


@contextmanager
def serving(desk: Desk) -> Iterator[Desk]:
    thread = threading.Thread(target=desk.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield desk
    finally:
        desk.shutdown()
        thread.join()
        desk.server_close()


def notified(program: Program, lines: str) -> None:
    (program.cwd / "goalrun.toml").write_text(f"[notify]\n{lines}\n", encoding="utf-8")


def told(program: Program, name: str) -> str:
    (path,) = program.home.glob(f"goals/*/hooks/{name}.out")
    return path.read_text(encoding="utf-8")


def test_a_webhook_gets_the_end_of_a_goal_as_a_hook_does(program: Program) -> None:
    with serving(Desk()) as desk:
        notified(program, f'webhook = "http://{desk.address}/here?key=abc"')
        done = program.start("--max-turns", "1", worker="true", check="false")
        assert done.code == 3, done.err
    ((path, event),) = desk.posts
    assert path == "/here?key=abc"
    assert (event["schema"], event["event"], event["goal"]["state"]) == (1, "end", "max_turns")
    assert told(program, "webhook") == "the server answered 204\n"


def test_a_goal_that_waits_for_a_person_is_told_too(program: Program) -> None:
    flow = program.cwd / "flow.toml"
    flow.write_text('[[step]]\nid = "ask"\nask = "go on?"\n', encoding="utf-8")
    with serving(Desk()) as desk:
        notified(program, f'webhook = "http://{desk.address}"')
        assert program.run("flow", "run", "flow.toml").code == 9
    assert [event["goal"]["state"] for _, event in desk.posts] == ["waiting"]


def test_redirections_are_not_followed_and_refusals_change_nothing(program: Program) -> None:
    with serving(Desk()) as other, serving(Desk(302, f"http://{other.address}/elsewhere")) as desk:
        notified(program, f'webhook = "http://{desk.address}"')
        assert program.start(worker="true", check="true").code == 0
    assert (len(desk.posts), other.posts, other.gets) == (1, [], 0)
    assert told(program, "webhook") == "the server answered 302\n"


def test_a_server_that_is_not_there_changes_nothing(program: Program) -> None:
    desk = Desk()
    desk.server_close()
    notified(program, f'webhook = "http://{desk.address}"')
    assert program.start(worker="true", check="true").code == 0
    assert told(program, "webhook").startswith("not posted: ")


def test_a_certificate_that_nobody_signed_is_refused(program: Program, tmp_path: Path) -> None:
    try:
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "key.pem", "-out", "cert.pem",
             "-days", "2", "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"],
            cwd=tmp_path, check=True, capture_output=True,
        )  # fmt: skip
    except FileNotFoundError:
        pytest.skip("openssl is not installed")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
    desk = Desk()
    desk.socket = context.wrap_socket(desk.socket, server_side=True)
    with serving(desk):
        notified(program, f'webhook = "https://{desk.address}"')
        assert program.start(worker="true", check="true").code == 0
    assert desk.posts == []
    assert "CERTIFICATE_VERIFY_FAILED" in told(program, "webhook")


@pytest.mark.parametrize("address", ["ftp://x/y", "file:///etc/passwd", "https://a b", "https://x/\\u0000", ""])
def test_an_address_that_is_none_is_refused_before_anything_starts(program: Program, address: str) -> None:
    notified(program, f'webhook = "{address}"')
    done = program.start(worker="true", check="true")
    assert (done.code, "notify.webhook" in done.err) == (2, True), done.err
    assert program.goals() == []


def test_the_desktop_is_told_of_an_end_that_nobody_asked_for(program: Program, tmp_path: Path) -> None:
    folder = tmp_path / "bin"
    folder.mkdir()
    script = folder / "notify-send"
    script.write_text(f'#!/bin/sh\nprintf "%s|" "$@" >> {tmp_path}/shown\n', encoding="utf-8")
    script.chmod(0o755)
    program.environment = {"PATH": f"{folder}:{program.env()['PATH']}"}
    notified(program, "desktop = true")
    git(program.cwd, "add", "--all")
    assert program.start("--max-turns", "1", worker="true", check="false").code == 3
    assert (tmp_path / "shown").read_text().startswith("--app-name=goalrun|--|goalrun: max_turns|make tests pass (")
    (tmp_path / "shown").unlink()
    assert program.run("resume", "--max-turns", "+1", "-q").code == 3
    assert (tmp_path / "shown").exists()
