"""The one door for child processes.

Every command gets its own session, an explicit environment and folder, a deadline, and files for its output; when
``run`` returns, whatever way it returns, no process that the command started is left. The supervisor beside this
file does the watching, so that this also holds when goalrun itself is killed.
"""

import ast
import atexit
import json
import marshal
import math
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from goalrun.adapters.clock import TICK_SECONDS
from goalrun.adapters.identity import identify
from goalrun.adapters.points import reached
from goalrun.core.model import ProcessIdentity
from goalrun.errors import Interrupted, ProcessFailure

NURSERY = f"""import sys
sys.path.append({str(Path(__file__).parents[2])!r})
from goalrun.adapters.supervisor import nursery
nursery()"""
"""Imported, not run as a file, so that it is compiled once; behind the standard library, which nothing can shadow."""
GRACE_SECONDS = 1.0
"""From being told to end until being killed; `goalrun stop` promises two seconds for everything."""
ANSWER_SECONDS = 20.0
"""How long a supervisor may take to end a command and to say so; one that takes longer is killed."""
HEAD_BYTES = 4 << 20
TAIL_BYTES = 1 << 20
PID_BYTES = 4
STATUS_FD = 200
"""Where a launcher writes its own record, well above what a program has open when it starts."""


class Command(NamedTuple):
    """What to run and where.

    Attributes:
        stderr: the file for standard error; None puts it into ``stdout``'s, in order.
        stdin: a file; None is the null device.
        timeout: seconds.
        idle: seconds without any output after which it is ended as well.
        secrets: values replaced in the output before it is written.
        umask: None keeps the caller's.
        status: a new file in which the launcher that ``argv`` begins with records, on ``STATUS_FD``, that it did its
            part, or how the command inside ended; without that record nothing is known of the command.
        launcher: the launcher's program, where it stays in front of the command: it is not told to end.
    """

    argv: tuple[str, ...]
    cwd: Path
    env: Mapping[str, str]
    stdout: Path
    timeout: float
    stderr: Path | None = None
    stdin: Path | None = None
    secrets: tuple[str, ...] = ()
    umask: int | None = None
    status: Path | None = None
    launcher: str = ""
    idle: float = math.inf


class Finished(NamedTuple):
    """How a command ended.

    Attributes:
        exit_code: its exit status; negative is the signal that ended it.
        survivors: processes that it left behind and that were killed.
        idle: it timed out because it printed nothing for so long.
    """

    exit_code: int
    timed_out: bool
    seconds: float
    survivors: int
    idle: bool = False


class Unstartable(ProcessFailure):
    """The command itself could not be executed: it does not exist, or is no program."""


def run(command: Command, on_start: Callable[[ProcessIdentity], None], poll: Callable[[], None]) -> Finished:
    """Run a command to its end.

    Args:
        command: what to run.
        on_start: called with the process while it waits to be let go; recording it here makes it reapable.
        poll: called while waiting; what it raises ends the command and is raised again.

    Raises:
        Unstartable: there is no such program.
        ProcessFailure: the supervisor failed, or output could not be written.
        Interrupted: ``poll`` asked for it; nothing of the command is left.
    """
    # What was asked meanwhile comes before anything new, however short that is.
    poll()
    supervisor = _start(command)
    try:
        ready = _status(supervisor, lambda: None, ANSWER_SECONDS)
        _expect(ready, "ready")
        reached("process ready")
        on_start(identify(ready["pid"]))
        reached("process recorded")
        _say(supervisor, b"g")
        reached("process running")
        status = _status(supervisor, poll, command.timeout + ANSWER_SECONDS)
        reached("process ended")
        return _finished(status, command)
    finally:
        _end(supervisor)


class _Supervisor(NamedTuple):
    """The process that watches one command; see ``supervisor``.

    Attributes:
        group: its process group, which is also its guardian's.
        orders: what it reads.
        said: what it says.
        life: nothing comes out of it; it ends when the supervisor and its guardian have.
    """

    group: int
    orders: BinaryIO
    said: BinaryIO
    life: BinaryIO


class _Nursery:
    """The process that supervisors are forked from: an interpreter takes longer to start than most commands run."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._line: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def supervisor(self) -> _Supervisor:
        """A supervisor that waits for its order, or for its end, which comes with ours.

        Raises:
            ProcessFailure: there is none to be had.
        """
        with self._lock:
            if self._process is not None:
                # A command can reach it, where that has no namespaces of its own.
                self._process.send_signal(signal.SIGCONT)
            for line in (self._line, None):
                with suppress(OSError):
                    return _born(line or self._begin())
        raise ProcessFailure("a command could not be supervised: no process can be started", hint="resume the goal")

    def _begin(self) -> socket.socket:
        self.end()
        self._line, its = socket.socketpair()
        self._line.settimeout(ANSWER_SECONDS)
        with its:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-X", "utf8", "-c", NURSERY],
                stdin=its.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        return self._line

    def end(self) -> None:
        """End it; the supervisors have life lines of their own."""
        if self._line is not None and self._process is not None:
            self._line.close()
            self._process.kill()
            self._process.wait()


_nursery = _Nursery()
atexit.register(_nursery.end)


def _born(line: socket.socket) -> _Supervisor:
    pipes = [os.pipe() for _ in range(3)]
    (its_in, orders), (said, its_out), (life, its_life) = pipes
    try:
        socket.send_fds(line, [b"s"], [its_in, its_out, its_life])
        group = int.from_bytes(line.recv(PID_BYTES, socket.MSG_WAITALL), "big")
        if not group:
            raise ConnectionError("the nursery is gone")
    except OSError:
        for end in (orders, said, life):
            os.close(end)
        raise
    finally:
        for end in (its_in, its_out, its_life):
            os.close(end)
    return _Supervisor(group, open(orders, "wb", 0), open(said, "rb", 0), open(life, "rb", 0))  # noqa: PTH123


def _start(command: Command) -> _Supervisor:
    order = {
        "argv": command.argv,
        "cwd": str(command.cwd),
        "env": dict(command.env),
        "stdin": str(command.stdin) if command.stdin else None,
        "stdout": str(command.stdout),
        "stderr": str(command.stderr) if command.stderr else None,
        "timeout": command.timeout,
        # JSON has no infinity; a year of silence is no less.
        "idle": min(command.idle, 3e7),
        "grace": GRACE_SECONDS,
        "head": HEAD_BYTES,
        "tail": TAIL_BYTES,
        "secrets": command.secrets,
        "umask": command.umask,
        "status": str(command.status) if command.status else None,
        "status_fd": STATUS_FD,
        "launcher": os.path.realpath(command.launcher) if command.launcher else "",
    }
    supervisor = _nursery.supervisor()
    data = marshal.dumps(order)
    _say(supervisor, len(data).to_bytes(4, "big") + data)
    return supervisor


def _say(supervisor: _Supervisor, data: bytes) -> None:
    # A supervisor that is gone shows in its status, which is read next.
    with suppress(BrokenPipeError):
        while data:
            data = data[supervisor.orders.write(data) :]


def _status(supervisor: _Supervisor, poll: Callable[[], None], patience: float) -> dict[str, Any]:
    """The supervisor's next line; asks it to end the command if ``poll`` raises."""
    line = bytearray()
    interrupted: Interrupted | None = None
    end = time.monotonic() + patience
    while not line.endswith(b"\n"):
        if select.select([supervisor.said], [], [], TICK_SECONDS)[0]:
            data = supervisor.said.read(4096)
            if not data:
                raise interrupted or ProcessFailure("the supervisor of a command was killed", hint="resume the goal")
            line += data
            continue
        # A command can stop its supervisor; it must not win time by that. The guardian, whose group it is, ends what
        # is overdue.
        if time.monotonic() < end:
            _signal(supervisor, signal.SIGCONT)
        elif not supervisor.orders.closed:
            supervisor.orders.close()
        try:
            if interrupted is None:
                poll()
        except Interrupted as asked:
            interrupted = asked
            end = min(end, time.monotonic() + ANSWER_SECONDS)
            _say(supervisor, b"t")
    if interrupted is not None:
        raise interrupted
    status: dict[str, Any] = ast.literal_eval(line.decode("utf-8", "backslashreplace"))
    return status


def _signal(supervisor: _Supervisor, number: signal.Signals) -> None:
    """Signal a supervisor and its guardian, of which at least one lives: nobody else has their group."""
    with suppress(ProcessLookupError):
        os.killpg(supervisor.group, number)


def _expect(status: dict[str, Any], event: str) -> None:
    if status["event"] != event:
        raise ProcessFailure(f"a command could not be supervised: {status.get('reason', status['event'])}")


def _finished(status: dict[str, Any], command: Command) -> Finished:
    if status["event"] == "failed":
        raise Unstartable(f"cannot run {command.argv[0]}: {status['reason']}")
    _expect(status, "done")
    for captured in status["captured"]:
        if captured["error"]:
            raise ProcessFailure(
                f"cannot write the output of {command.argv[0]}: {captured['error']}",
                hint=f"make room for {command.stdout.parent}, then resume",
            )
    if status["immortal"]:
        raise ProcessFailure(f"{status['immortal']} processes of {command.argv[0]} cannot be killed")
    exit_code = status["status"]
    if command.status is not None and not status["timed_out"]:
        inside = _launched(command.status, command, exit_code)
        exit_code = exit_code if inside is None else inside
    return Finished(exit_code, status["timed_out"], status["seconds"], status["survivors"], status["idle"])


def _launched(record: Path, command: Command, exit_code: int) -> int | None:
    """The exit status in a launcher's own record (bwrap(1), --json-status-fd); None if it became the command itself.

    Raises:
        ProcessFailure: there is none, so the launcher failed or was killed: no result of the command.
    """
    with suppress(OSError, ValueError):
        for line in record.read_text(encoding="utf-8").splitlines():
            found = json.loads(line)
            if isinstance(found.get("exit-code"), int):
                return int(found["exit-code"])
            if found.get("entered") is True:
                return None
    said = ""
    with suppress(OSError):
        said = " ".join(command.stdout.read_text(encoding="utf-8", errors="replace")[-500:].split())
    ended = f"was ended by signal {-exit_code}" if exit_code < 0 else f"ended with exit status {exit_code}"
    raise ProcessFailure(
        f"the sandbox of a command could not be set up, or was lost: {command.argv[0]} {ended}"
        + (f" after: {said}" if said else ""),
        hint="goalrun doctor",
    )


def _end(supervisor: _Supervisor) -> None:
    """Close the life line of the supervisor and its guardian, and wait until nothing of the command is left."""
    for stream in (supervisor.orders, supervisor.said):
        with suppress(OSError):
            stream.close()
    with supervisor.life:
        if not select.select([supervisor.life], [], [], ANSWER_SECONDS)[0]:
            _signal(supervisor, signal.SIGKILL)


class Detached(NamedTuple):
    """A process that outlives this one; ``ended`` is its exit status, and None for as long as it runs."""

    pid: int
    ended: Callable[[], int | None]


def spawn_detached(argv: list[str], env: Mapping[str, str], log: Path) -> Detached:
    """Start a process that outlives this one and its terminal."""
    with log.open("ab") as output:
        process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=dict(env),
            start_new_session=True,
            cwd="/",
        )
    return Detached(process.pid, process.poll)
