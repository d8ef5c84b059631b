"""Servers of repositories that ask who one is: sshd, and git's own HTTP program behind a password."""

import base64
import getpass
import os
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socket import create_connection
from urllib.parse import urlsplit

import pytest
from fleet.place import free_port
from support import wait_until

SSHD = Path("/usr/sbin/sshd")
needs_sshd = pytest.mark.skipif(
    not SSHD.exists() and os.environ.get("GOALRUN_SSHD") != "required",
    reason="needs sshd: apt-get install openssh-server",
)
ONLY_FETCH = """#!/bin/sh
case "$SSH_ORIGINAL_COMMAND" in
git-upload-pack*) exec git shell -c "$SSH_ORIGINAL_COMMAND" ;;
esac
echo "this key may not push" >&2
exit 1
"""


class Ssh:
    """A server for this user, with a key that may do all, and one that may only fetch."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.folder, self.port = folder, free_port()
        self.address = f"ssh://{getpass.getuser()}@127.0.0.1:{self.port}"
        script = folder / "only-fetch"
        script.write_text(ONLY_FETCH, encoding="utf-8")
        script.chmod(0o755)
        keys = {name: self._key(name) for name in ("host", "all", "fetch")}
        (folder / "authorized").write_text(f'{keys["all"]}restrict,command="{script}" {keys["fetch"]}', "utf-8")
        (folder / "known").write_text(f"[127.0.0.1]:{self.port} {keys['host']}", encoding="utf-8")
        (folder / "config").write_text(
            f"Port {self.port}\nListenAddress 127.0.0.1\nHostKey {folder}/host\n"
            f"AuthorizedKeysFile {folder}/authorized\nStrictModes no\nUsePAM no\nPidFile none\n"
            "PasswordAuthentication no\nPermitRootLogin prohibit-password\n",
            encoding="utf-8",
        )

    def _key(self, name: str) -> str:
        words = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", str(self.folder / name)]
        subprocess.run(words, check=True)
        return (self.folder / f"{name}.pub").read_text(encoding="utf-8")

    def credentials(self, key: str) -> str:
        """A file for ``--credentials``."""
        ssh = f"ssh -F none -i {self.folder / key} -oIdentitiesOnly=yes -oUserKnownHostsFile={self.folder}/known"
        path = self.folder / f"{key}.gitconfig"
        path.write_text(f'[core]\n\tsshCommand = "{ssh} -oBatchMode=yes"\n', encoding="utf-8")
        return str(path)


@contextmanager
def sshd(folder: Path) -> Iterator[Ssh]:
    made = Ssh(folder)
    if os.getuid() == 0:
        # Where the package's own start would have made it.
        Path("/run/sshd").mkdir(exist_ok=True)
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([SSHD, "-D", "-e", "-f", folder / "config"], stderr=log)

    def answers() -> bool:
        assert process.poll() is None, (folder / "log").read_text("utf-8")
        with suppress(OSError), create_connection(("127.0.0.1", made.port), timeout=1):
            return True
        return False

    try:
        wait_until(answers, "sshd answers")
        yield made
    finally:
        process.terminate()
        process.wait()


class _Git(BaseHTTPRequestHandler):
    """Git over HTTP for whoever knows the password: git-http-backend(1)."""

    folder: Path
    expected: str

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name
        pass

    def _answer(self) -> None:
        if self.headers.get("Authorization") != self.expected:
            self.send_response(401)
            self.send_header("WWW-Authenticate", 'Basic realm="git"')
            self.end_headers()
            return
        url = urlsplit(self.path)
        done = subprocess.run(
            ["git", "http-backend"],
            input=self.rfile.read(int(self.headers.get("Content-Length", 0))),
            env={
                "PATH": os.environ["PATH"], "GIT_PROJECT_ROOT": str(self.folder), "GIT_HTTP_EXPORT_ALL": "1",
                "PATH_INFO": url.path, "QUERY_STRING": url.query, "REQUEST_METHOD": self.command,
                "CONTENT_TYPE": self.headers.get("Content-Type", ""), "REMOTE_USER": "robot",
                "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
                "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
            },
            stdout=subprocess.PIPE, check=False,
        )  # fmt: skip
        head, _, body = done.stdout.partition(b"\r\n\r\n")
        fields = dict(line.split(": ", 1) for line in head.decode("ascii").splitlines())
        self.send_response(int(fields.pop("Status", "200").split()[0]))
        for name, value in fields.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


@contextmanager
def http(folder: Path, user: str, password: str) -> Iterator[str]:
    """Serve all repositories of a folder; the beginning of their addresses."""
    expected = "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode("ascii")
    with ThreadingHTTPServer(
        ("127.0.0.1", 0), type("Git", (_Git,), {"folder": folder, "expected": expected})
    ) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
