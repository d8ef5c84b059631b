"""The process that stands between goalrun and a command: nothing that the command starts outlives it.

Runs as a program of its own (``python -I -S``), with the standard library and ``capture`` alone, so that it starts
in milliseconds and shares no state with goalrun. It adopts orphans (Linux: PR_SET_CHILD_SUBREAPER, prctl(2)), so a
double-forked, ``setsid`` child is still found. When goalrun dies, its end of standard input closes, and the
supervisor kills everything and ends. A command can also stop or kill its supervisor: then a guardian, its parent,
sees to the rest.

Standard input: the order, marshalled, behind its length in four bytes; then single bytes: ``g`` go, ``t`` terminate,
``k`` kill. Standard output: lines, each a dictionary as Python writes it: ``ready`` (pid), then ``done``, or
``failed``. (`json` and `typing` would double the time to start.)
"""

import contextlib
import ctypes
import marshal
import os
import select
import signal
import sys
import time

from goalrun.adapters.capture import Capture

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
F_SETPIPE_SZ = 1031
PIPE_BYTES = 1 << 20
DRAIN_SECONDS = 5.0
SWEEP_SECONDS = 10.0
SETTLE_SECONDS = 0.1
LAST_SECONDS = 0.5
"""What a supervisor has, once goalrun is gone, before its guardian ends the command in its place."""
CHILD_ROUNDS = 200
LINUX = sys.platform == "linux"
LIBRARY = ctypes.CDLL(None, use_errno=True)


def say(**message: object) -> None:
    """One status line; nobody listening is no reason to fail."""
    with contextlib.suppress(OSError):
        os.write(1, ascii(message).encode("ascii") + b"\n")


def prctl(option: int, value: int) -> None:
    """Set an attribute of this process, where the system has prctl."""
    if LINUX:
        LIBRARY.prctl(option, value, 0, 0, 0)


def read_order() -> "dict[str, Any]":
    """The order; nothing behind it is read."""
    size = int.from_bytes(read_exactly(4), "big")
    order: dict[str, Any] = marshal.loads(read_exactly(size))  # noqa: S302 - goalrun wrote it
    return order


def read_exactly(size: int) -> bytes:
    """So many bytes of standard input."""
    data = bytearray()
    while len(data) < size:
        more = os.read(0, size - len(data))
        if not more:
            os._exit(3)
        data += more
    return bytes(data)


def pipe() -> tuple[int, int]:
    """A wide pipe whose read end does not block."""
    read, write = os.pipe()
    os.set_blocking(read, False)
    if LINUX:
        import fcntl

        with contextlib.suppress(OSError):
            fcntl.fcntl(write, F_SETPIPE_SZ, PIPE_BYTES)
    return read, write


def child(order: "dict[str, Any]", streams: tuple[int, int], go: tuple[int, int], failed: int) -> None:
    """In the new process: wait until the start is recorded, then become the command. Never returns."""
    try:
        os.setsid()
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        for number in (
            signal.SIGPIPE,
            signal.SIGXFSZ,
            signal.SIGINT,
            signal.SIGTERM,
            signal.SIGHUP,
            signal.SIGCHLD,
        ):
            signal.signal(number, signal.SIG_DFL)
        os.close(go[1])
        if os.read(go[0], 1) != b"g":
            os._exit(127)
        stdin = os.open(order["stdin"] or os.devnull, os.O_RDONLY)
        os.dup2(stdin, 0)
        os.dup2(streams[0], 1)
        os.dup2(streams[1], 2)
        if order["umask"] is not None:
            os.umask(order["umask"])
        if order["status"]:
            status = os.open(order["status"], os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
            os.dup2(status, order["status_fd"])
        os.chdir(order["cwd"])
        os.execvpe(order["argv"][0], order["argv"], order["env"])  # noqa: S606 - this is the door
    except OSError as failure:
        name = failure.filename if isinstance(failure.filename, str) else order["argv"][0]
        os.write(failed, f"{os.strerror(failure.errno or 0)}: {name}".encode())
    finally:
        os._exit(127)


def parents() -> dict[int, int]:
    """Every process and its parent."""
    found: dict[int, int] = {}
    if LINUX:
        for name in os.listdir("/proc"):
            if name.isdigit():
                with contextlib.suppress(OSError, ValueError), open(f"/proc/{name}/stat", "rb") as file:
                    fields = file.read().rpartition(b")")[2].split()
                    # A process whose first thread has ended looks like a zombie while others run (proc(5), field 20).
                    if fields[0] not in (b"Z", b"X") or int(fields[17]) > 1:
                        found[int(name)] = int(fields[1])
        return found
    import subprocess

    listing = subprocess.run(["/bin/ps", "-A", "-o", "pid=,ppid="], capture_output=True, check=False).stdout
    for line in listing.splitlines():
        pid, parent = line.split()
        found[int(pid)] = int(parent)
    return found


def descendants() -> list[int]:
    """Every living process below this one."""
    tree = parents()
    below = {os.getpid()}
    while True:
        more = {pid for pid, parent in tree.items() if parent in below} - below
        if not more:
            return sorted(below - {os.getpid()})
        below |= more


def reap(note: "Callable[[int, int], None]") -> bool:
    """Collect whatever has ended, ``note`` is told pid and wait status of each; whether no child is left."""
    try:
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            note(*ended)
    except ChildProcessError:
        return True
    return False


def sweep(note: "Callable[[int, int], None]" = lambda _pid, _status: None) -> tuple[int, int]:
    """Kill every descendant until none is left; how many were found, and how many would not die."""
    seen: set[int] = set()
    end = time.monotonic() + SWEEP_SECONDS
    while time.monotonic() < end:
        # Orphans become children of ours before their parent can be collected: without a child nothing is below.
        left = [] if reap(note) and LINUX else descendants()
        if not left:
            return len(seen), 0
        seen.update(left)
        # Stopped first: what is stopped cannot fork while the rest is being killed.
        for number in (signal.SIGSTOP, signal.SIGKILL):
            for pid in left:
                with contextlib.suppress(OSError):
                    os.kill(pid, number)
        kill_children(note)
        time.sleep(0.002)
    return len(seen), len(descendants())


def kill_children(note: "Callable[[int, int], None]") -> None:
    """Kill this process's own children, adopted ones included, again and again without a look at the rest.

    A process that forks and ends in turn is gone before /proc has been read; its child is adopted at once.
    """
    for _ in range(CHILD_ROUNDS):
        try:
            with open(f"/proc/self/task/{os.getpid()}/children", "rb") as file:
                children = file.read().split()
        except OSError:
            return
        for pid in children:
            with contextlib.suppress(OSError):
                os.kill(int(pid), signal.SIGKILL)
        reap(note)
        if not children:
            return


class Supervision:
    """One command from its start to the end of everything that it started."""

    def __init__(self, order: "dict[str, Any]") -> None:
        self.order = order
        self.secrets = [os.fsencode(secret) for secret in order["secrets"]]
        self.exit: int | None = None
        self.asked = ""
        self.timed_out = False
        self.idle = False
        self.kill_at: float | None = None

    def run(self) -> None:
        """Start, watch, sweep, report."""
        out_read, out_write = pipe()
        err_read, err_write = pipe() if self.order["stderr"] else (-1, out_write)
        go_read, go_write = os.pipe()
        failed_read, failed_write = os.pipe()
        wake_read, wake_write = os.pipe()
        for end in (wake_read, wake_write):
            os.set_blocking(end, False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        self.leader = os.fork()
        if self.leader == 0:
            child(self.order, (out_write, err_write), (go_read, go_write), failed_write)
        for end in {out_write, err_write, go_read, failed_write}:
            os.close(end)
        limits = (self.order["head"], self.order["tail"], self.secrets)
        self.captures = [Capture(out_read, self.order["stdout"], *limits)]
        if self.order["stderr"]:
            self.captures.append(Capture(err_read, self.order["stderr"], *limits))
        say(event="ready", pid=self.leader)
        self.wake = wake_read
        self.start(go_write, failed_read)

    def start(self, go: int, failed: int) -> None:
        """Wait for the order to go on, then watch; tell why the command could not be run, if it could not."""
        if os.read(0, 1) != b"g":
            sweep()
            os._exit(0)
        started = time.monotonic()
        self.deadline = started + self.order["timeout"]
        self.heard = started
        os.write(go, b"g")
        os.close(go)
        # Closes without a word when exec succeeds.
        reason = os.read(failed, 4096).decode("utf-8", "replace")
        self.watch()
        seconds = time.monotonic() - started
        if self.order["launcher"]:
            self.settle()
        survivors, immortal = sweep()
        self.drain_rest()
        captured = [capture.close() for capture in self.captures]
        say(
            event="failed" if reason else "done",
            reason=reason,
            status=self.exit,
            seconds=seconds,
            timed_out=self.timed_out,
            idle=self.idle,
            survivors=survivors,
            immortal=immortal,
            captured=captured,
        )

    def watch(self) -> None:
        """Until the command has ended: carry its output, its deadline, and what goalrun says."""
        while not self.ended():
            now = time.monotonic()
            deadline = min(self.deadline, self.heard + self.order["idle"])
            if now >= deadline and not self.asked:
                self.timed_out, self.idle = True, deadline < self.deadline
                self.terminate(self.order["grace"])
            if self.kill_at is not None and now >= self.kill_at:
                sweep(self.note)
                self.kill_at = now + 1.0
            until = min(deadline if not self.asked else now + 1.0, self.kill_at or now + 60.0)
            sources = [capture.source for capture in self.captures if capture.open]
            ready, _, _ = select.select([0, self.wake, *sources], [], [], max(0.0, min(60.0, until - now)))
            if self.wake in ready:
                with contextlib.suppress(BlockingIOError):
                    os.read(self.wake, 4096)
            for capture in self.captures:
                if capture.source in ready:
                    capture.drain()
                    self.heard = time.monotonic()
            if 0 in ready:
                self.listen()

    def settle(self) -> None:
        """The system ends what is left of a launcher's namespaces with it, in less time than looking for it takes."""
        end = time.monotonic() + SETTLE_SECONDS
        while not reap(self.note) and (left := end - time.monotonic()) > 0:
            select.select([self.wake], [], [], left)
            with contextlib.suppress(BlockingIOError):
                os.read(self.wake, 4096)

    def ended(self) -> bool:
        """Whether the command itself has ended; orphans that were adopted are collected on the way."""
        if self.exit is None:
            reap(self.note)
        return self.exit is not None

    def note(self, pid: int, status: int) -> None:
        """Keep how the command itself ended."""
        if pid == self.leader and self.exit is None:
            self.exit = os.waitstatus_to_exitcode(status)

    def listen(self) -> None:
        """One byte from goalrun; the end of the stream means that goalrun is dead."""
        said = os.read(0, 1)
        if said == b"t":
            self.terminate(self.order["grace"])
        elif said == b"k" or not said:
            sweep(self.note)
            if not said:
                self.drain_rest()
                os._exit(0)

    def terminate(self, grace: float) -> None:
        """Tell everything to end; what has not ended when the grace is over is killed."""
        self.asked = "terminate"
        self.kill_at = time.monotonic() + grace
        for pid in descendants():
            with contextlib.suppress(OSError):
                # A launcher that is told to end takes everything inside with it, untold.
                if not LINUX or os.readlink(f"/proc/{pid}/exe") != self.order["launcher"]:
                    os.kill(pid, signal.SIGTERM)

    def drain_rest(self) -> None:
        """What is still in the pipes, now that nobody can write any more."""
        end = time.monotonic() + DRAIN_SECONDS
        for capture in self.captures:
            while capture.open and time.monotonic() < end and capture.drain():
                pass


def nursery() -> None:
    """Fork a supervisor for every three descriptors that come over standard input, a socket: its 0, 1 and 2.

    The answer is its process id. Ends with the socket; the supervisors have life lines of their own.
    """
    import fcntl  # noqa: F401 - by every supervisor, as the next: imported once
    import gc
    import socket
    import warnings  # noqa: F401

    ignore_a_terminal()
    # Nobody here waits for supervisors: the system clears them away.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    line = socket.socket(fileno=0)
    # What never changes is shared with the children for as long as nobody counts its references anew.
    gc.freeze()
    while True:
        asked, descriptors, _, _ = socket.recv_fds(line, 1, 3)
        if not asked:
            os._exit(0)
        pid = os.fork()
        if pid == 0:
            os.setsid()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            for number, descriptor in enumerate(descriptors):
                os.dup2(descriptor, number)
                os.close(descriptor)
            main()
        for descriptor in descriptors:
            os.close(descriptor)
        line.send(pid.to_bytes(4, "big"))


def ignore_a_terminal() -> None:
    """A terminal's signals are for goalrun, which then says what is to be done."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)


def guard() -> None:
    """Become two processes: the one that returns supervises; the other sees to the end, whatever becomes of it."""
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    woken, wake = os.pipe()
    for end in (woken, wake):
        os.set_blocking(end, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    supervisor = os.fork()
    if supervisor == 0:
        signal.set_wakeup_fd(-1)
        os.close(woken)
        os.close(wake)
        # Stopped by the command, it has to go on when the guardian is killed.
        prctl(PR_SET_PDEATHSIG, signal.SIGCONT)
        return
    # Only the supervisor's end of the status may be open: its end says that it is gone.
    os.close(1)
    events = select.poll()
    events.register(woken, select.POLLIN)
    events.register(0, 0)
    ended: list[int] = []
    last: float | None = None
    while supervisor not in ended and (last is None or time.monotonic() < last):
        ready = dict(events.poll(None if last is None else LAST_SECONDS * 1000))
        with contextlib.suppress(BlockingIOError):
            os.read(woken, 4096)
        # Only now: of one that ends between the two nothing would be heard.
        reap(lambda pid, _: ended.append(pid))
        if 0 in ready and supervisor not in ended:
            # Goalrun is dead, or has done with the command: that is for the supervisor to see, if it can.
            events.unregister(0)
            os.kill(supervisor, signal.SIGCONT)
            last = time.monotonic() + LAST_SECONDS
    sweep()
    os._exit(0)


def main() -> None:
    """Supervise one command."""
    guard()
    order = read_order()
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    try:
        Supervision(order).run()
    except Exception as failure:  # noqa: BLE001 - the one thing left to do is to say so, and leave nothing behind
        say(event="broken", reason=f"{type(failure).__name__}: {failure}")
    finally:
        sweep()
        # Nothing is left to do; taking an interpreter down takes longer than all of the above.
        os._exit(0)
