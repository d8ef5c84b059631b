"""A fleet to be tried: PostgreSQL of this machine's packages on loopback, bare repositories, workers as processes."""

import json
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.rows import DictRow, dict_row
from support import GOALRUN, Done, Program, git, repository, script, wait_until

FOLDERS = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
LOOPBACK = "127.0.0.1"
QUICK = 'objective = "finish"\nchecks = ["test -e done"]\n'
PATIENCE = 90.0
"""Seconds for what takes several programs on a machine that has much else to do."""
in_a_fleet = [
    pytest.mark.timeout(300),
    pytest.mark.skipif(not FOLDERS, reason="needs PostgreSQL: apt-get install postgresql"),
]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Server:
    """A PostgreSQL server of its own; as its packages want it, never run by root."""

    def __init__(self, address: str = LOOPBACK) -> None:
        # Not below pytest's own folder, which only its user may enter.
        folder = Path(tempfile.mkdtemp(prefix="goalrun-postgresql-"))
        self.address = address
        self.port = free_port()
        self.url = self._url("fleet")
        self._data = folder / "data"
        self._bin = FOLDERS[-1].parent
        self._process: subprocess.Popen[bytes] | None = None
        self._data.mkdir()
        if os.getuid() == 0:
            owner = pwd.getpwnam("postgres")
            for path in (folder, self._data):
                os.chown(path, owner.pw_uid, owner.pw_gid)
        self._do("initdb", "--auth-local=trust", "--auth-host=scram-sha-256", "-U", "postgres", "-D", self._data)
        with (self._data / "pg_hba.conf").open("a", encoding="ascii") as rules:
            rules.write(f"host all all {address}/24 scram-sha-256\n")
        self.start()
        self._sql("CREATE ROLE fleet LOGIN PASSWORD 'right'", "postgres")
        self.database("fleet")

    def database(self, name: str) -> str:
        """A new database; its URL."""
        self._sql(f"CREATE DATABASE {name} OWNER fleet", "postgres")
        return self._url(name)

    def _url(self, database: str) -> str:
        return f"postgresql://fleet:right@{self.address}:{self.port}/{database}"

    def _as_owner(self, program: str, *words: object) -> list[str]:
        user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"] if os.getuid() == 0 else []
        return [*user, str(self._bin / program), *map(str, words)]

    def _do(self, program: str, *words: object) -> None:
        done = subprocess.run(self._as_owner(program, *words), cwd="/", capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr

    def _sql(self, text: str, database: str) -> None:
        self._do("psql", "-q", "-h", self._data, "-p", self.port, "-U", "postgres", "-d", database, "-c", text)

    def start(self) -> None:
        words = ["-D", self._data, "-p", self.port, "-c", f"listen_addresses={self.address}", "-k", self._data]
        with (self._data.parent / "server.log").open("ab") as log:
            command = self._as_owner("postgres", *words, "-c", "max_connections=200")
            self._process = subprocess.Popen(command, cwd="/", stdout=subprocess.DEVNULL, stderr=log)

        def answers() -> bool:
            ready = self._as_owner("pg_isready", "-q", "-h", self.address, "-p", self.port)
            return subprocess.run(ready, check=False).returncode == 0

        wait_until(answers, "PostgreSQL answers", PATIENCE)

    def remove(self) -> None:
        """Nothing of it is left."""
        shutil.rmtree(self._data.parent)

    def stop(self) -> None:
        """At once, as when its machine is told to shut down: SIGINT is "fast" (pg_ctl(1))."""
        assert self._process is not None
        self._process.send_signal(signal.SIGINT)
        self._process.wait()


@contextmanager
def server(address: str = LOOPBACK) -> Iterator[Server]:
    made = Server(address)
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
        self._keys = count()
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

    def new_key(self) -> str:
        """A key that no goal has."""
        return f"key-{next(self._keys)}"

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

    def over(self, name: str) -> bool:
        return self.goal(name)["ended_at"] is not None

    def wait(self, *goals: str) -> list[dict[str, Any]]:
        """Until these goals are over."""
        for name in goals:
            wait_until(partial(self.over, name), f"{name} ends", PATIENCE)
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
def daemon(folder: Path, address: str = LOOPBACK) -> Iterator[str]:
    """Git's own server, for all repositories of a folder; the beginning of their addresses."""
    port = free_port()
    words = ["--reuseaddr", "--export-all", "--enable=receive-pack", f"--listen={address}"]
    command = ["git", "daemon", *words, f"--port={port}", f"--base-path={folder}", str(folder)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)

    def answers() -> bool:
        with suppress(OSError), socket.create_connection((address, port), timeout=1):
            return True
        return False

    try:
        wait_until(answers, "git daemon answers")
        yield f"git://{address}:{port}"
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait()


def bare(folder: Path, files: dict[str, str]) -> Path:
    """A bare repository with one commit."""
    work = repository(folder.with_name(f"{folder.name}-work"), files)
    git(folder.parent, "clone", "--quiet", "--bare", str(work), str(folder))
    shutil.rmtree(work)
    return folder


def goal(repo: Path | str, worker: str, more: str = "") -> str:
    """A goal whose agent is a command; it is reached once there is a file ``done``."""
    return f'[[goals]]\nrepo = "{repo}"\n{QUICK}worker_cmd = {json.dumps(worker)}\n{more}\n'


def robot(folder: Path, body: str) -> str:
    """A goal whose agent prints JSON; see docs/agents.md."""
    command = json.dumps(script(folder / "robot.py", "import json, os, pathlib, sys, time\n" + body).split())
    return (
        f'worker = "robot"\n[goals.agents.robot]\ncommand = {command}\nreads = "find"\n[goals.agents.robot.find]\n'
        'total_tokens = "$.tokens"\nusd = "$.usd"\nlimited = "$.limited"\nreset = "$.reset"\n'
    )


class Gates:
    """Agents that say in a folder that they have begun, and wait there until they are let go.

    Args:
        folder: of those names; a goal is named by its key.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.folder = folder

    def worker(self, name: str) -> str:
        """The command of a goal's agent."""
        here = self.folder / name
        return f"touch {here}.begun; until test -e {here}.go; do sleep 0.05; done; touch done"

    def begun(self) -> set[str]:
        return {path.stem for path in self.folder.glob("*.begun")}

    def wait(self, *names: str) -> None:
        """Until these, and nobody else, have begun."""
        wait_until(lambda: set(names) <= self.begun(), f"{names} begin", PATIENCE)
        assert self.begun() == set(names)

    def let_go(self, name: str) -> None:
        (self.folder / f"{name}.go").touch()


def copies(folder: Path, *names: str) -> list[Path]:
    """Bare repositories, one for each name."""
    first = bare(folder / f"{names[0]}.git", {"a": ""})
    return [first, *(Path(shutil.copytree(first, folder / f"{name}.git")) for name in names[1:])]
