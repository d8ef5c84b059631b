"""One goal at a time in a workspace, in the order in which they asked.

Each goal that wants a workspace files a claim: a numbered record, and beside it a file on which it holds a kernel lock
for as long as it lives. The oldest live claim among those that overlap has the workspace; the others wait. The kernel
frees a dead claim's lock at once, whatever killed its owner, and no age makes a claim stale.

Where the file system has no kernel locks, the identity of a claim's owner (pid, start time, boot, host) tells who
lives, and nothing is held around the looks at the claims. Then the order of writing alone keeps two from having a
workspace: who wants a number says so first, under number 0, and everybody waits for those (Lamport's bakery algorithm,
CACM 17(8), 1974).

Claims overlap when one's folder is the other's, or lies above it. Folders are compared by device and inode, so
symbolic links, bind mounts, subfolders and parents of a workspace are the same workspace.

The home of filelock.
"""

import errno
import json
import secrets
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from time import sleep
from typing import NamedTuple

from filelock import FileLock, Timeout

from goalrun.adapters.clock import TICK_SECONDS
from goalrun.adapters.files import private_folder, write_whole
from goalrun.adapters.identity import is_alive, myself
from goalrun.adapters.points import reached
from goalrun.adapters.views import OWNER, RUN_LOCK, runner
from goalrun.core.model import ProcessIdentity
from goalrun.core.value import Value
from goalrun.errors import EnvironmentFailure, UnknownGoal, WorkspaceBusy

GUARD_SECONDS = 30.0
NO_LOCKS = frozenset({errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP})
"""What flock(2) says where a file system has none: Lustre ENOSYS, NFS without its lock daemon ENOLCK."""

NUMBERS = "[0-9]" * 12
CHOOSING = "0" * 12


class Claim(Value):
    """A goal's wish for a workspace.

    Attributes:
        ticket: claims are served in this order; 0 is one that is choosing its number.
        chain: (device, inode) of the workspace and of every folder above it.
        kernel: False where the file system has no working kernel locks; then ``owner`` alone tells who lives.
    """

    ticket: int
    goal: str
    workspace: str
    chain: tuple[tuple[int, int], ...]
    owner: ProcessIdentity
    kernel: bool = True

    def overlaps(self, other: "Claim") -> bool:
        """Whether both are about one workspace, or one lies in the other's."""
        return self.chain[0] in other.chain or other.chain[0] in self.chain


class Filed(NamedTuple):
    """A claim as it lies in the folder; ``claim`` is None where its record cannot be read."""

    record: Path
    claim: Claim | None

    @property
    def ticket(self) -> int:
        """Its number, from its name."""
        return int(self.record.name.partition("-")[0])

    @property
    def lock(self) -> Path:
        """The file that its owner holds a kernel lock on."""
        return self.record.with_suffix(".lock")


def kernel_lock(path: Path) -> FileLock:
    """A lock that the kernel frees when its holder dies; never a mere file that pretends to be one."""
    return FileLock(path, fallback_to_soft=False, preserve_lock_file=True, thread_local=False)


def taken(lock: FileLock, seconds: float) -> bool:
    """Take a lock; False where the file system has no kernel locks, and nothing is held.

    Raises:
        Timeout: somebody else holds it.
    """
    try:
        lock.acquire(timeout=seconds)
    except Timeout:
        raise
    except OSError as failure:
        if failure.errno not in NO_LOCKS:
            raise
        return False
    return True


@contextmanager
def held(path: Path, poll: Callable[[], None]) -> Iterator[None]:
    """Hold a lock, once it is free; where the file system has no kernel locks, hold nothing.

    Args:
        path: the file.
        poll: called while waiting; what it raises ends the wait.
    """
    lock = kernel_lock(path)
    while True:
        try:
            taken(lock, TICK_SECONDS)
            break
        except Timeout:
            poll()
    try:
        yield
    finally:
        lock.release()


def try_lock(path: Path) -> Callable[[], None] | None:
    """Take a lock if it is free: what lets it go again, or None. Without kernel locks nothing is held."""
    lock = kernel_lock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return None
    except NotImplementedError:
        return lambda: None
    return lock.release


class WorkspaceLock:
    """The hold of one goal on one workspace, from ``acquire`` to ``release`` or to the end of the process."""

    def __init__(self, home: Path, workspace: Path, goal: str) -> None:
        self._folder = private_folder(home / "locks")
        self._workspace = workspace
        self._goal = goal
        self._lock: FileLock | None = None
        self._mine: Filed | None = None
        self._dead: list[Filed] = []

    def acquire(self, *, wait: bool, poll: Callable[[], None], on_wait: Callable[[str], None]) -> tuple[str, ...]:
        """Get the workspace.

        Args:
            wait: False fails instead of queueing.
            poll: called while waiting; what it raises ends the wait.
            on_wait: called with who is in front, each time that it is somebody else.

        Returns:
            Goals that held the workspace and died: what they left running has to be reaped, then ``forget_dead``.

        Raises:
            WorkspaceBusy: another live goal is in front, and ``wait`` is False.
        """
        self._file_claim()
        told = ""
        try:
            while (front := self._in_front()) is not None:
                message = _describe(front)
                # One that is choosing its number is in front for a moment only.
                if not wait and front.ticket:
                    raise WorkspaceBusy(f"workspace busy: {message}", hint="wait for it, or leave out --no-wait")
                if message != told:
                    on_wait(message)
                    told = message
                poll()
                sleep(TICK_SECONDS)
        except BaseException:
            self.release()
            raise
        reached("lock held")
        return tuple(dict.fromkeys(filed.claim.goal for filed in self._dead if filed.claim is not None))

    def forget_dead(self) -> None:
        """Remove the claims of dead goals, once nothing of them is left running."""
        with self._guard():
            for filed in self._dead:
                _remove(filed)
        self._dead = []

    def release(self) -> None:
        """Let the workspace go. Releasing twice is harmless."""
        if self._mine is not None:
            with suppress(OSError, Timeout), self._guard():
                _remove(self._mine)
            self._mine = None
        if self._lock is not None:
            self._lock.release()
            self._lock = None
            reached("lock released")

    @property
    def kernel(self) -> bool:
        """Whether the kernel says who lives; False where the owner's identity alone does."""
        return self._mine is None or self._mine.claim is None or self._mine.claim.kernel

    @contextmanager
    def _guard(self) -> Iterator[None]:
        # Held for milliseconds, around every look at the claims and every change of them.
        lock = kernel_lock(self._folder / "guard")
        try:
            taken(lock, GUARD_SECONDS)
        except Timeout as failure:
            raise EnvironmentFailure(
                f"the locks in {self._folder} cannot be used: somebody holds their guard"
            ) from failure
        try:
            yield
        finally:
            lock.release()

    def _file_claim(self) -> None:
        with self._guard():
            # Named by chance too: a dead one's name must not become that of a live one.
            choosing = self._written(f"{0:012d}-{self._goal}-{secrets.token_hex(4)}", 0, kernel=False)
            reached("lock choosing")
            try:
                ticket = self._next_ticket()
                name = f"{ticket:012d}-{self._goal}"
                self._lock = kernel_lock(self._folder / f"{name}.lock")
                self._mine = self._written(name, ticket, kernel=taken(self._lock, 0))
            finally:
                _remove(choosing)
            reached("lock claimed")

    def _written(self, name: str, ticket: int, *, kernel: bool) -> Filed:
        claim = Claim(
            ticket=ticket,
            goal=self._goal,
            workspace=str(self._workspace),
            chain=chain(self._workspace),
            owner=myself(),
            kernel=kernel,
        )
        filed = Filed(self._folder / f"{name}.json", claim)
        write_whole(filed.record, claim.model_dump_json())
        return filed

    def _next_ticket(self) -> int:
        counter = self._folder / "ticket"
        last = 0
        with suppress(OSError, ValueError):
            last = int(counter.read_text(encoding="ascii"))
        # A lost counter must not let a newcomer overtake who is already waiting.
        last = max([last, *(filed.ticket for filed in filed_claims(self._folder))])
        write_whole(counter, str(last + 1))
        return last + 1

    def _in_front(self) -> Filed | None:
        """The oldest live claim before ours that overlaps it; dead ones are noted on the way."""
        assert self._mine is not None  # noqa: S101 - filed before; for the type checker
        mine = self._mine
        with self._guard():
            self._dead = []
            # Those who choose are looked up first: one that is done by then is found with its number.
            for filed in [*filed_claims(self._folder, CHOOSING), *filed_claims(self._folder)]:
                if filed.record.name >= mine.record.name:
                    break
                # A record that cannot be read may be about any workspace: it only counts while its owner lives.
                if filed.claim is not None and mine.claim is not None and not filed.claim.overlaps(mine.claim):
                    continue
                if _lives(filed):
                    return filed
                self._dead.append(filed)
        return None


def filed_claims(folder: Path, numbers: str = NUMBERS) -> list[Filed]:
    """All claims, or those with some numbers, in the order in which they are served."""
    found = []
    for record in sorted(folder.glob(f"{numbers}-*.json")):
        claim = None
        with suppress(OSError, ValueError):
            claim = Claim.model_validate(json.loads(record.read_bytes()))
        found.append(Filed(record, claim))
    return found


def chain(workspace: Path) -> tuple[tuple[int, int], ...]:
    """(device, inode) of a folder and of every folder above it."""
    stats = [folder.stat() for folder in (workspace, *workspace.parents)]
    return tuple((stat.st_dev, stat.st_ino) for stat in stats)


def _lives(filed: Filed) -> bool:
    """Whether a claim's owner lives. Asked under the guard, so that asking cannot look like holding."""
    if filed.claim is not None and not filed.claim.kernel:
        return is_alive(filed.claim.owner)
    if not filed.lock.exists():
        return filed.claim is not None and is_alive(filed.claim.owner)
    lock = kernel_lock(filed.lock)
    try:
        if not taken(lock, 0):
            return filed.claim is None or is_alive(filed.claim.owner)
    except Timeout:
        return True
    lock.release()
    return False


def _describe(filed: Filed) -> str:
    claim = filed.claim
    if claim is None:
        return f"a claim that cannot be read holds it: {filed.record}; if no goal runs here, remove that file"
    owner = claim.owner
    if owner.host == socket.gethostname():
        return f"goal {claim.goal} (pid {owner.pid}) has {claim.workspace}"
    held = f"goal {claim.goal} (pid {owner.pid} on {owner.host}) has {claim.workspace}"
    # A kernel lock that is held is proof; a mere record of another host is none, and only a person can look there.
    return held if claim.kernel else f"{held}; if that process is gone, remove {filed.record}"


def _remove(filed: Filed) -> None:
    # One that cannot be removed is a dead owner's once this process has ended.
    with suppress(OSError):
        filed.record.unlink(missing_ok=True)
        filed.lock.unlink(missing_ok=True)


class RunLock:
    """Makes a goal's runner the only one, and the only writer of its journal."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._owner = folder / OWNER
        self._lock = kernel_lock(folder / RUN_LOCK)
        self._claim: WorkspaceLock | None = None

    def acquire(self) -> str:
        """Keep every other runner away.

        Returns:
            "" if the goal can be run now, else who does it.

        Raises:
            UnknownGoal: the goal was removed.
        """
        try:
            if not taken(self._lock, 0):
                # Without kernel locks a claim on the goal's own folder does the same.
                claim = WorkspaceLock(self._folder, self._folder, self._folder.name)
                claim.acquire(wait=False, poll=lambda: None, on_wait=lambda _: None)
                claim.forget_dead()
                self._claim = claim
        except Timeout:
            return "another goalrun runs it"
        except WorkspaceBusy as busy:
            return str(busy).partition(": ")[2]
        except FileNotFoundError as failure:
            raise UnknownGoal(f"goal {self._folder.name} was removed", hint="goalrun list shows all") from failure
        reached("runner locked")
        return ""

    def announce(self) -> None:
        """Say who runs the goal, to those who look or want to ask for something."""
        write_whole(self._owner, myself().model_dump_json())

    def release(self) -> None:
        """Let somebody else become the runner."""
        with suppress(OSError):
            self._owner.unlink(missing_ok=True)
        if self._claim is not None and self._folder.exists():
            self._claim.release()
        self._claim = None
        self._lock.release()


@contextmanager
def only_runner(folder: Path) -> Iterator[RunLock]:
    """Keep every other runner, and every command that changes the goal, away from it.

    Raises:
        WorkspaceBusy: somebody else has it.
        UnknownGoal: it was removed.
    """
    lock = RunLock(folder)
    goal = folder.name
    if busy := lock.acquire():
        if runner(folder) is None:
            raise WorkspaceBusy(f"goal {goal} is in the hands of another command: {busy}", hint="try again")
        raise WorkspaceBusy(
            f"goal {goal} is running already: {busy}", hint=f"goalrun status {goal}, or goalrun stop {goal}"
        )
    try:
        yield lock
    finally:
        lock.release()
