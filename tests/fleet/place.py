"""A fleet to be tried: PostgreSQL of this machine's packages on loopback, bare repositories, workers as processes."""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.rows import DictRow, dict_row
from support import GOALRUN, Done, Program, git, repository, wait_until

FOLDERS = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
needs_postgresql = pytest.mark.skipif(not FOLDERS, reason="needs PostgreSQL: apt-get install postgresql")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Server:
    """A PostgreSQL server of its own; as its packages want it, never run by root."""

    def __init__(self) -> None:
        # Not below pytest's own folder, which only its user may enter.
        folder = Path(tempfile.mkdtemp(prefix="goalrun-postgresql-"))
        self.port = free_port()
        self.url = f"postgresql://fleet:right@127.0.0.1:{self.port}/fleet"
        self._data = folder / "data"
        self._bin = FOLDERS[-1].parent
        self._process: subprocess.Popen[bytes] | None = None
        self._data.mkdir()
        if os.getuid() == 0:
            owner = pwd.getpwnam("postgres")
            for path in (folder, self._data):
                os.chown(path, owner.pw_uid, owner.pw_gid)
        self._do("initdb", "--auth-local=trust", "--auth-host=scram-sha-256", "-U", "postgres", "-D", self._data)
        self.start()
        self._sql("CREATE ROLE fleet LOGIN PASSWORD 'right'", "postgres")
        self.database("fleet")

    def database(self, name: str) -> str:
        """A new database; its URL."""
        self._sql(f"CREATE DATABASE {name} OWNER fleet", "postgres")
        return f"postgresql://fleet:right@127.0.0.1:{self.port}/{name}"

    def _as_owner(self, program: str, *words: object) -> list[str]:
        user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"] if os.getuid() == 0 else []
        return [*user, str(self._bin / program), *map(str, words)]

    def _do(self, program: str, *words: object) -> None:
        done = subprocess.run(self._as_owner(program, *words), cwd="/", capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr

    def _sql(self, text: str, database: str) -> None:
        self._do("psql", "-q", "-h", self._data, "-p", self.port, "-U", "postgres", "-d", database, "-c", text)

    def start(self) -> None:
        words = ["-D", self._data, "-p", self.port, "-c", "listen_addresses=127.0.0.1", "-k", self._data]
        with (self._data.parent / "server.log").open("ab") as log:
            command = self._as_owner("postgres", *words, "-c", "max_connections=200")
            self._process = subprocess.Popen(command, cwd="/", stdout=subprocess.DEVNULL, stderr=log)

        def answers() -> bool:
            ready = self._as_owner("pg_isready", "-q", "-h", "127.0.0.1", "-p", self.port)
            return subprocess.run(ready, check=False).returncode == 0

        wait_until(answers, "PostgreSQL answers")

    def remove(self) -> None:
        """Nothing of it is left."""
        shutil.rmtree(self._data.parent)

    def stop(self) -> None:
        """At once, as when its machine is told to shut down: SIGINT is "fast" (pg_ctl(1))."""
        assert self._process is not None
        self._process.send_signal(signal.SIGINT)
        self._process.wait()


@contextmanager
def server() -> Iterator[Server]:
    made = Server()
    try:
        yield made
    finally:
        made.stop()
        made.remove()


class Place:
    """A fleet, with what is asked of its database for checking."""

    def __init__(self, folder: Path, made: Server, heartbeat: str = "1s", url: str = "") -> None:
        self.folder = folder
        self.server = made
        self.url = url or made.url
        self.workers: list[subprocess.Popen[str]] = []
        self.program = Program(folder / "submitter", folder, {"GOALRUN_FLEET_URL": self.url})
        done = self.run("init", "--heartbeat", heartbeat)
        assert done.code == 0, done.err

    def run(self, *words: str) -> Done:
        """``goalrun fleet``."""
        return self.program.run("fleet", *words)

    def submit(self, text: str, *words: str) -> list[str]:
        """Queue the goals of a file; their ids."""
        path = self.folder / f"submission-{len(list(self.folder.glob('submission-*')))}.toml"
        path.write_text(text, encoding="utf-8")
        done = self.run("submit", str(path), "--json", *words)
        assert done.code == 0, done.err
        return [goal["id"] for goal in done.json["goals"]]

    def worker(self, name: str, *words: str, prefix: tuple[str, ...] = ()) -> subprocess.Popen[str]:
        """A worker with a state folder, and so a machine, of its own."""
        there = Program(self.folder / name / "state", self.folder, {**self.program.environment})
        (self.folder / name).mkdir(exist_ok=True)
        # Its words go to a file: nobody reads them while it runs.
        with (self.folder / name / "worker.log").open("ab") as log:
            process = subprocess.Popen(
                [*prefix, *GOALRUN, "fleet", "worker", "--name", name, *words],
                cwd=self.folder,
                env=there.env(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                text=True,
                start_new_session=True,
            )
        self.workers.append(process)
        return process

    def said(self, name: str) -> str:
        """What a worker printed."""
        return (self.folder / name / "worker.log").read_text(encoding="utf-8")

    def sql(self, text: str, *values: object) -> list[DictRow]:
        with psycopg.connect(self.url, options="-c search_path=goalrun_fleet", row_factory=dict_row) as db:
            return db.execute(text.encode(), values).fetchall()

    def goal(self, name: str) -> dict[str, Any]:
        return self.sql("SELECT * FROM goal WHERE id = %s", name)[0]

    def wait(self, *goals: str) -> list[dict[str, Any]]:
        """Until these goals are over."""
        left = "SELECT count(*) AS n FROM goal WHERE id = ANY(%s) AND ended_at IS NULL"
        wait_until(lambda: self.sql(left, list(goals))[0]["n"] == 0, "the goals end")
        return [self.goal(name) for name in goals]

    def end(self) -> None:
        for process in self.workers:
            for number in (signal.SIGCONT, signal.SIGTERM):
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, number)
        for process in self.workers:
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@contextmanager
def daemon(folder: Path) -> Iterator[str]:
    """Git's own server, for all repositories of a folder; the beginning of their addresses."""
    port = free_port()
    words = ["--reuseaddr", "--export-all", "--enable=receive-pack", "--listen=127.0.0.1"]
    command = ["git", "daemon", *words, f"--port={port}", f"--base-path={folder}", str(folder)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)

    def answers() -> bool:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return True
        return False

    try:
        wait_until(answers, "git daemon answers")
        yield f"git://127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait()


def bare(folder: Path, files: dict[str, str]) -> Path:
    """A bare repository with one commit."""
    work = repository(folder.with_name(f"{folder.name}-work"), files)
    git(folder.parent, "clone", "--quiet", "--bare", str(work), str(folder))
    shutil.rmtree(work)
    return folder
