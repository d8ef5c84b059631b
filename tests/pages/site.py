"""A server of pages that runs, and what is asked of it."""

import http.client
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

from support import Program

Headers = dict[str, str]


@dataclass
class Served:
    """A server that runs."""

    address: str
    process: subprocess.Popen[str] | None = None

    @property
    def origin(self) -> str:
        parts = urlsplit(self.address)
        return f"{parts.scheme}://{parts.netloc}"

    def ask(self, method: str, path: str, headers: Headers | None = None, body: str = "") -> tuple[int, Headers, str]:
        connection = http.client.HTTPConnection(urlsplit(self.address).netloc, timeout=30)
        connection.request(method, path, body or None, headers or {})
        reply = connection.getresponse()
        found = reply.status, dict(reply.getheaders()), reply.read().decode("utf-8")
        connection.close()
        return found

    @property
    def cookie(self) -> Headers:
        """What a browser sends that has opened the address."""
        _, headers, _ = self.ask("GET", self.address.removeprefix(self.origin))
        return {"Cookie": headers["Set-Cookie"].partition(";")[0]}


@contextmanager
def serving(program: Program, *arguments: str, command: tuple[str, ...] = ("web",)) -> Iterator[Served]:
    process = program.spawn(*command, "--no-browser", *arguments)
    assert process.stdout is not None
    try:
        yield Served(process.stdout.readline().strip(), process)
    finally:
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert "Traceback" not in err, err
