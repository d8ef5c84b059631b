"""One goal at a time in a workspace, in the order in which they asked.

Each goal that wants a workspace files a claim: a numbered record, and beside it a file on which it holds a kernel lock
for as long as it lives. The oldest live claim among those that overlap has the workspace; the others wait. The kernel
frees a dead claim's lock at once, whatever killed its owner, and no age makes a claim stale.

Claims overlap when one's folder is the other's, or lies above it. Folders are compared by device and inode, so
symbolic links, bind mounts, subfolders and parents of a workspace are the same workspace.

The home of filelock.
"""

import json
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
from goalrun.adapters.views import OWNER, runner
from goalrun.core.model import ProcessIdentity
from goalrun.core.spec import Value
from goalrun.errors import EnvironmentFailure, WorkspaceBusy

GUARD_SECONDS = 30.0


class Claim(Value):
    """A goal's wish for a workspace.

    Attributes:
        ticket: claims are served in this order.
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
            lock.acquire(timeout=TICK_SECONDS)
        except Timeout:
            poll()
            continue
        except NotImplementedError:
            pass
        break
    try:
        yield
    finally:
        lock.release()


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
                if not wait:
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
        return tuple(filed.claim.goal for filed in self._dead if filed.claim is not None)

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

    def _guard(self) -> FileLock:
        # Held for milliseconds, around every look at the claims and every change of them.
        return FileLock(self._folder / "guard", timeout=GUARD_SECONDS, preserve_lock_file=True)

    def _file_claim(self) -> None:
        try:
            with self._guard():
                ticket = self._next_ticket()
                record = self._folder / f"{ticket:012d}-{self._goal}.json"
                self._lock = kernel_lock(record.with_suffix(".lock"))
                kernel = _holds(self._lock)
                claim = Claim(
                    ticket=ticket,
                    goal=self._goal,
                    workspace=str(self._workspace),
                    chain=chain(self._workspace),
                    owner=myself(),
                    kernel=kernel,
                )
                write_whole(record, claim.model_dump_json())
                self._mine = Filed(record, claim)
                reached("lock claimed")
        except Timeout as failure:
            raise EnvironmentFailure(
                f"the locks in {self._folder} cannot be used: somebody holds their guard"
            ) from failure

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
        mine = self._mine.claim
        with self._guard():
            self._dead = []
            for filed in filed_claims(self._folder):
                if filed.ticket >= self._mine.ticket:
                    break
                # A record that cannot be read may be about any workspace: it only counts while its owner lives.
                if filed.claim is not None and mine is not None and not filed.claim.overlaps(mine):
                    continue
                if _lives(filed):
                    return filed
                self._dead.append(filed)
        return None


def filed_claims(folder: Path) -> list[Filed]:
    """All claims, oldest first."""
    found = []
    for record in sorted(folder.glob(f"{'[0-9]' * 12}-*.json")):
        claim = None
        with suppress(OSError, ValueError):
            claim = Claim.model_validate(json.loads(record.read_bytes()))
        found.append(Filed(record, claim))
    return found


def chain(workspace: Path) -> tuple[tuple[int, int], ...]:
    """(device, inode) of a folder and of every folder above it."""
    stats = [folder.stat() for folder in (workspace, *workspace.parents)]
    return tuple((stat.st_dev, stat.st_ino) for stat in stats)


def _holds(lock: FileLock) -> bool:
    """Take a lock that nobody else can want; False where the file system has no kernel locks."""
    try:
        lock.acquire(timeout=0)
    except NotImplementedError:
        return False
    return True


def _lives(filed: Filed) -> bool:
    """Whether a claim's owner lives. Asked under the guard, so that asking cannot look like holding."""
    if filed.claim is not None and not filed.claim.kernel:
        return is_alive(filed.claim.owner)
    if not filed.lock.exists():
        return filed.claim is not None and is_alive(filed.claim.owner)
    try:
        with kernel_lock(filed.lock).acquire(timeout=0):
            return False
    except Timeout:
        return True
    except NotImplementedError:
        return filed.claim is None or is_alive(filed.claim.owner)


def _describe(filed: Filed) -> str:
    claim = filed.claim
    if claim is None:
        return f"a claim that cannot be read holds it: {filed.record}"
    return f"goal {claim.goal} (pid {claim.owner.pid}) has {claim.workspace}"


def _remove(filed: Filed) -> None:
    # One that cannot be removed is a dead owner's once this process has ended.
    with suppress(OSError):
        filed.record.unlink(missing_ok=True)
        filed.lock.unlink(missing_ok=True)


class RunLock:
    """Makes a goal's runner the only one, and the only writer of its journal."""

    def __init__(self, folder: Path) -> None:
        self._owner = folder / OWNER
        self._lock = kernel_lock(folder / "run.lock")

    def acquire(self) -> bool:
        """Become the goal's runner; False if somebody else is."""
        owner = runner(self._owner.parent)
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            return False
        except NotImplementedError:
            if owner is not None:
                return False
        reached("runner locked")
        write_whole(self._owner, myself().model_dump_json())
        return True

    def release(self) -> None:
        """Let somebody else become the runner."""
        with suppress(OSError):
            self._owner.unlink(missing_ok=True)
        self._lock.release()
