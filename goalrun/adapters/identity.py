"""Which process is which: identities that survive pid reuse, and the reaping of what a dead run left.

The home of psutil.
"""

import os
import signal
import socket
import sys
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    # Both are slow to import, and `status` comes by here.
    from collections.abc import Collection, Iterable, Iterator

    import psutil

    from goalrun.core.model import ProcessIdentity

CALL_VARIABLE = "GOALRUN_CALL_ID"
"""The same for one call of an agent."""
GOAL_VARIABLE = "GOALRUN_GOAL_ID"
"""Set in the environment of every process that a goal starts; children inherit it."""
REAP_SECONDS = 5.0
MAX_UNTIED = 10
STAT_BYTES = 4096
CLOCK_STEP_SECONDS = 1.0
"""Start times are counted from the boot, whose own time the kernel tells in whole seconds."""


@cache
def boot_id() -> str:
    """The current boot; start times of another boot say nothing."""
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    import psutil

    return f"{psutil.boot_time():.0f}"


def start_time(pid: int) -> str:
    """A process's start time in the kernel's own unit; "" if there is no such process.

    On Linux it is the tick count of ``/proc/PID/stat`` (proc(5), field 22), which the system clock cannot move;
    psutil's ``create_time`` adds the boot time to it and moves with the clock.
    """
    if fields := _stat(pid):
        # A zombie holds its pid but runs nothing, unless only its first thread has ended.
        ended = fields[0] in {b"Z", b"X"} and int(fields[17]) <= 1
        return "" if ended else fields[19].decode("ascii")
    if not Path("/proc/self/stat").exists():
        import psutil

        with suppress(psutil.Error):
            return f"{psutil.Process(pid).create_time():.6f}"
    return ""


def _parent(pid: int) -> int:
    """The process above; 0 if there is none."""
    if fields := _stat(pid):
        return int(fields[1])
    if not Path("/proc/self/stat").exists():
        import psutil

        with suppress(psutil.Error):
            return psutil.Process(pid).ppid()
    return 0


def _stat(pid: int) -> list[bytes]:
    """What Linux tells of a process from its state, field 3 of proc(5), to its start, field 22."""
    with suppress(OSError):
        # Asked of every process on the machine, turn after turn: a file object would take four times as long.
        file = os.open(f"/proc/{pid}/stat", os.O_RDONLY)
        try:
            return os.read(file, STAT_BYTES).rpartition(b")")[2].split(None, 20)
        finally:
            os.close(file)
    return []


def _ancestors(pid: int, known: "Collection[int]" = ()) -> list[int]:
    """The processes above one, the nearest first, to the first that is known."""
    found: list[int] = []
    while (pid := _parent(pid)) and pid not in found:
        found.append(pid)
        if pid in known:
            break
    return found


def identify(pid: int) -> "ProcessIdentity":
    """The identity of a process of this machine."""
    from goalrun.core.model import ProcessIdentity

    return ProcessIdentity(pid=pid, start=start_time(pid), boot=boot_id(), host=socket.gethostname())


def myself() -> "ProcessIdentity":
    """The identity of this process."""
    return identify(os.getpid())


def is_alive(process: "ProcessIdentity") -> bool:
    """Whether exactly this process runs; see ``runs``."""
    return runs(process.pid, process.start, process.boot, process.host)


def runs(pid: int, start: str, boot: str, host: str) -> bool:
    """Whether exactly this process runs. One of another machine counts: nothing here proves that it is gone."""
    if host != socket.gethostname():
        return True
    return boot == boot_id() and start != "" and start_time(pid) == start


def reap(
    processes: "Iterable[ProcessIdentity]",
    mark: str,
    variable: str = GOAL_VARIABLE,
    since: float = 0.0,
    young: "Iterable[int] | None" = None,
) -> int:
    """Kill what a dead run left: the journalled processes, their sessions, and all that carry the goal's id, the mark.

    A process is only signalled while its identity, or its environment, says that it belongs to the goal; this
    process and its ancestors never are. What began before ``since``, in seconds since the epoch, is not looked at;
    ``young`` is what began later, if that is known already.

    Returns:
        How many processes were killed.
    """
    import psutil

    sessions = {process.pid for process in processes if _ours(process)}
    killed: set[int] = set()
    for _ in range(50):
        if not (found := [*_belonging(sessions, variable, mark, begun_since(since) if young is None else young)]):
            break
        young = None
        spared = {os.getpid(), *_ancestors(os.getpid())}
        if not (found := [process for process in found if process.pid not in spared]):
            break
        for process in found:
            with suppress(psutil.Error):
                process.send_signal(signal.SIGKILL)
                killed.add(process.pid)
        psutil.wait_procs(found, timeout=REAP_SECONDS / 50)
    return len(killed)


def begun_since(moment: float) -> list[int]:
    """The processes of this machine that began after a moment, in seconds since the epoch, or just before."""
    import psutil

    return [pid for pid in psutil.pids() if _began(pid) >= moment - CLOCK_STEP_SECONDS]


def untied(workspace: Path, young: "Iterable[int]") -> tuple[str, ...]:
    """Processes of this user, outside of this process's own tree, that began lately and have to do with a workspace.

    They work in it, or nobody but the system is their parent: a worker can have had them started (at(1), systemd-run,
    a terminal multiplexer), and so can the user.

    Args:
        workspace: its real path.
        young: those that began lately.
    """
    import psutil

    found = []
    # This process, and what is known to be below.
    ours = {os.getpid()}
    for pid in set(young) - ours - {*_ancestors(os.getpid())}:
        if not ours.isdisjoint(above := _ancestors(pid, ours)):
            ours.update(above, (pid,))
            continue
        with suppress(psutil.Error, OSError):
            process = psutil.Process(pid)
            if process.uids().real == os.getuid() and _concerns(process, workspace):
                found.append(f"{pid} {process.name()}")
    return tuple(found[:MAX_UNTIED])


def _began(pid: int) -> float:
    """When a process began, in seconds since the epoch; 0 if it is gone."""
    ticks = start_time(pid)
    if not ticks or not sys.platform.startswith("linux"):
        return float(ticks or 0)
    return _booted() + int(ticks) / os.sysconf("SC_CLK_TCK")


@cache
def _booted() -> float:
    import psutil

    return psutil.boot_time()


def _concerns(process: "psutil.Process", workspace: Path) -> bool:
    import psutil

    with suppress(psutil.Error, OSError):
        return Path(process.cwd()).is_relative_to(workspace) or process.ppid() == 1
    return False


def _ours(process: "ProcessIdentity") -> bool:
    return process.host == socket.gethostname() and is_alive(process)


def _belonging(sessions: set[int], variable: str, mark: str, among: "Iterable[int]") -> "Iterator[psutil.Process]":
    import psutil

    for pid in among:
        with suppress(psutil.Error, OSError):
            process = psutil.Process(pid)
            ours = os.getsid(pid) in sessions or process.environ().get(variable) == mark
            if ours and (process.status() != psutil.STATUS_ZOMBIE or process.num_threads() > 1):
                yield process
