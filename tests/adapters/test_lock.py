"""One goal at a time in a workspace, in order, whoever dies; witnessed from outside."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import pytest
from support import wait_until

from goalrun.adapters.identity import myself
from goalrun.adapters.lock import Claim, RunLock, WorkspaceLock, chain, filed_claims, kernel_lock
from goalrun.errors import Interrupted, WorkspaceBusy

HOLDER = """
import sys
from pathlib import Path
from goalrun.adapters.lock import WorkspaceLock
from goalrun.errors import WorkspaceBusy

def say(*words):
    print(*words, flush=True)

home, workspace, goal, wait = sys.argv[1:]
lock = WorkspaceLock(Path(home), Path(workspace), goal)
try:
    dead = lock.acquire(wait=wait == "wait", poll=lambda: None, on_wait=lambda who: say("waits", who))
except WorkspaceBusy as busy:
    say("busy", busy)
    sys.exit(8)
say("holds", *dead)
sys.stdin.readline()
lock.forget_dead()
lock.release()
say("released")
"""
RACER = """
import os, sys
from pathlib import Path
from goalrun.adapters.lock import WorkspaceLock

home, workspace, witness = sys.argv[1:]
for round in range(2):
    lock = WorkspaceLock(Path(home), Path(workspace), f"g-{os.getpid()}-{round}")
    lock.acquire(wait=True, poll=lambda: None, on_wait=lambda who: None)
    os.close(os.open(witness, os.O_CREAT | os.O_EXCL))
    os.unlink(witness)
    lock.release()
"""
RUNNER = """
import sys
from pathlib import Path
from goalrun.adapters.lock import RunLock
lock = RunLock(Path(sys.argv[1]))
free = not lock.acquire()
if free:
    lock.announce()
print(free, flush=True)
sys.stdin.readline()
"""


class Holder:
    """A process that wants a workspace and holds it until it is told to let it go."""

    def __init__(self, home: Path, workspace: Path, goal: str, wait: str = "wait") -> None:
        self.goal = goal
        self.process = subprocess.Popen(
            [sys.executable, "-c", HOLDER, home, workspace, goal, wait],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def says(self) -> str:
        """Its next line."""
        return _stream(self.process.stdout).readline().strip()

    def holding(self) -> "Holder":
        """Wait until it has the workspace."""
        assert self.says() == "holds"
        return self

    def waiting(self) -> "Holder":
        """Wait until it is in the queue."""
        assert self.says().startswith("waits")
        return self

    def lets_go(self) -> None:
        """Tell it to release, and wait until it has."""
        _stream(self.process.stdin).write("\n")
        _stream(self.process.stdin).flush()
        assert self.says() == "released"

    def kill(self) -> None:
        """Let it die."""
        self.process.kill()
        self.process.wait()


def _stream(stream: IO[str] | None) -> IO[str]:
    assert stream is not None
    return stream


Hold = Callable[..., Holder]


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A state folder."""
    return tmp_path / "state"


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """A workspace with a subfolder."""
    (tmp_path / "ws" / "sub").mkdir(parents=True)
    return tmp_path / "ws"


@pytest.fixture
def hold(state: Path, workspace: Path) -> Iterator[Hold]:
    """Starts holders; they are ended after the test."""
    started: list[Holder] = []

    def start(goal: str, where: Path = workspace, wait: str = "wait") -> Holder:
        started.append(Holder(state, where, goal, wait))
        return started[-1]

    yield start
    for holder in started:
        holder.process.kill()
        holder.process.communicate()


def taken(state: Path, workspace: Path) -> str:
    """Why the workspace cannot be had now; "" if it can."""
    lock = WorkspaceLock(state, workspace, "g-probe")
    try:
        lock.acquire(wait=False, poll=lambda: None, on_wait=lambda _: None)
    except WorkspaceBusy as busy:
        return str(busy)
    lock.release()
    return ""


def test_one_process_has_a_workspace_and_the_other_gets_it_after(hold: Hold, state: Path, workspace: Path) -> None:
    first = hold("g-first").holding()
    second = hold("g-second").waiting()
    first.lets_go()
    second.holding()
    assert taken(state, workspace)
    second.lets_go()
    assert not taken(state, workspace)
    assert filed_claims(state / "locks") == []


def test_who_does_not_want_to_wait_is_told_goal_pid_and_workspace(hold: Hold, workspace: Path) -> None:
    first = hold("g-first").holding()
    second = hold("g-second", wait="no")
    assert second.says() == f"busy workspace busy: goal g-first (pid {first.process.pid}) has {workspace}"
    assert second.process.wait() == 8
    first.lets_go()
    hold("g-third", wait="no").holding()


def test_who_waits_is_told_for_whom(hold: Hold, workspace: Path) -> None:
    first = hold("g-first").holding()
    assert hold("g-second").says() == f"waits goal g-first (pid {first.process.pid}) has {workspace}"


@pytest.mark.parametrize("where", ["alias", "ws/sub", ".", "ws/sub/..", "alias/sub"])
def test_other_names_parts_and_parents_of_a_workspace_conflict(
    where: str, hold: Hold, state: Path, workspace: Path
) -> None:
    (workspace.parent / "alias").symlink_to(workspace)
    holder = hold("g-first").holding()
    assert "g-first" in taken(state, workspace.parent / where)
    holder.lets_go()
    holder = hold("g-second", workspace.parent / where).holding()
    assert "g-second" in taken(state, workspace)


def test_a_bind_mount_of_a_workspace_conflicts(hold: Hold, state: Path, workspace: Path) -> None:
    other = workspace.parent / "mounted"
    other.mkdir()
    if subprocess.run(["mount", "--bind", workspace, other], capture_output=True, check=False).returncode:
        pytest.skip("bind mounts are not allowed here")
    try:
        hold("g-first", other / "sub").holding()
        assert "g-first" in taken(state, workspace)
    finally:
        subprocess.run(["umount", "--lazy", other], check=True)


@pytest.mark.parametrize("name", ["ws-2", "w", "sibling/sub"])
def test_different_workspaces_do_not_conflict(name: str, hold: Hold, state: Path, workspace: Path) -> None:
    hold("g-first").holding()
    other = workspace.parent / name
    other.mkdir(parents=True)
    assert not taken(state, other)
    hold("g-second", other).holding()


def test_the_queue_keeps_its_order_also_when_one_in_it_dies(hold: Hold) -> None:
    first = hold("g-0").holding()
    queue = [hold(f"g-{number}").waiting() for number in range(1, 5)]
    queue.pop(1).kill()
    first.lets_go()
    for holder in queue:
        while (said := holder.says()).startswith("waits"):
            pass
        assert said.startswith("holds")
        holder.lets_go()


def test_a_newcomer_does_not_overtake_who_waits_for_a_part(hold: Hold, workspace: Path) -> None:
    first = hold("g-first", workspace / "sub").holding()
    second = hold("g-second", workspace).waiting()
    third = hold("g-third", workspace / "sub").waiting()
    first.lets_go()
    second.holding().lets_go()
    while third.says().startswith("waits"):
        pass


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV])
def test_a_dead_owner_frees_the_workspace_and_is_named_to_the_next_until_forgotten(
    number: signal.Signals, hold: Hold, state: Path, workspace: Path
) -> None:
    first = hold("g-first").holding()
    second = hold("g-second").waiting()
    first.process.send_signal(number)
    first.process.wait()
    assert second.says() == "holds g-first"
    second.kill()
    assert hold("g-third").says() == "holds g-first g-second"
    assert [filed.claim.goal for filed in filed_claims(state / "locks") if filed.claim] == [
        "g-first",
        "g-second",
        "g-third",
    ]
    assert "g-third" in taken(state, workspace)


def test_what_is_forgotten_is_not_named_again(hold: Hold) -> None:
    hold("g-first").holding().kill()
    second = hold("g-second")
    assert second.says() == "holds g-first"
    second.lets_go()
    hold("g-third").holding()


def test_releasing_twice_is_harmless_and_the_lock_can_be_had_again(state: Path, workspace: Path) -> None:
    lock = WorkspaceLock(state, workspace, "g-first")
    for _ in range(2):
        assert lock.acquire(wait=False, poll=lambda: None, on_wait=lambda _: None) == ()
        lock.release()
        lock.release()
    assert not taken(state, workspace)


def test_who_is_interrupted_while_waiting_leaves_the_queue(hold: Hold, state: Path, workspace: Path) -> None:
    first = hold("g-first").holding()

    def poll() -> None:
        raise Interrupted("pause", "asked to")

    with pytest.raises(Interrupted):
        WorkspaceLock(state, workspace, "g-second").acquire(wait=True, poll=poll, on_wait=lambda _: None)
    assert [filed.claim.goal for filed in filed_claims(state / "locks") if filed.claim] == ["g-first"]
    first.lets_go()


@pytest.mark.parametrize("record", [b"", b"{", b'{"ticket": 1}', b"\xff\x00", b"[]", b"null"])
def test_a_record_that_cannot_be_read_blocks_only_while_its_owner_lives(
    record: bytes, state: Path, workspace: Path
) -> None:
    assert not taken(state, workspace)
    path = state / "locks" / "000000000001-g-old.json"
    path.write_bytes(record)
    assert not taken(state, workspace)
    held = kernel_lock(path.with_suffix(".lock"))
    held.acquire(timeout=0)
    why = f"a claim that cannot be read holds it: {path}; if no goal runs here, remove that file"
    assert taken(state, workspace) == f"workspace busy: {why}"
    held.release()
    assert not taken(state, workspace)


def claim_in(state: Path, workspace: Path, owner: dict[str, object], *, kernel: bool, locked: bool = False) -> None:
    """A claim that lies in front."""
    claim = Claim(
        ticket=1,
        goal="g-old",
        workspace=str(workspace),
        chain=chain(workspace),
        owner=myself().but(**owner),
        kernel=kernel,
    )
    path = state / "locks" / "000000000001-g-old.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(claim.model_dump_json(), "utf-8")
    if locked:
        path.with_suffix(".lock").touch()


@pytest.mark.parametrize(
    ("owner", "lives"),
    [({}, True), ({"host": "elsewhere", "boot": "another"}, True), ({"start": "another"}, False),
     ({"start": ""}, False), ({"boot": "another"}, False), ({"pid": 2**22 - 1}, False)],
    ids=["this process", "another machine", "recycled pid", "no start time", "another boot", "no such pid"],
)  # fmt: skip
def test_without_kernel_locks_the_owners_identity_decides(
    owner: dict[str, object],
    lives: bool,  # noqa: FBT001 - a parameter of the table
    state: Path,
    workspace: Path,
) -> None:
    claim_in(state, workspace, owner, kernel=False)
    assert bool(taken(state, workspace)) is lives


def test_with_kernel_locks_a_free_lock_is_a_dead_owner_whatever_the_record_says(state: Path, workspace: Path) -> None:
    claim_in(state, workspace, {}, kernel=True, locked=True)
    assert not taken(state, workspace)


def test_age_does_not_free_a_workspace(hold: Hold, state: Path, workspace: Path) -> None:
    hold("g-first").holding()
    for path in (state / "locks").iterdir():
        os.utime(path, (0, 0))
    assert "g-first" in taken(state, workspace)


@pytest.mark.parametrize("counter", [None, "", "garbage", "0"])
def test_a_lost_counter_lets_nobody_overtake(counter: str | None, hold: Hold, state: Path, workspace: Path) -> None:
    first = hold("g-first").holding()
    path = state / "locks" / "ticket"
    path.unlink() if counter is None else path.write_text(counter, "ascii")
    second = hold("g-second").waiting()
    assert "g-first" in taken(state, workspace)
    first.lets_go()
    second.holding()


def test_racing_processes_never_overlap(state: Path, workspace: Path) -> None:
    where = [workspace, workspace / "sub"]
    arguments = [map(str, (state, where[number % 2], workspace.parent / "witness")) for number in range(12)]
    racers = [subprocess.Popen([sys.executable, "-c", RACER, *names], stderr=subprocess.PIPE) for names in arguments]
    ends = [racer.communicate()[1].decode() for racer in racers]
    assert [racer.returncode for racer in racers] == [0] * 12, ends
    assert filed_claims(state / "locks") == []


def test_claims_are_private_to_their_owner(state: Path, workspace: Path) -> None:
    taken(state, workspace)
    assert (state / "locks").stat().st_mode & 0o777 == 0o700


# The runner of a goal


@pytest.fixture
def runner(tmp_path: Path) -> Iterator[Callable[[], "subprocess.Popen[str]"]]:
    """Starts processes that try to become the goal's runner."""
    started: list[subprocess.Popen[str]] = []

    def start() -> "subprocess.Popen[str]":
        command = [sys.executable, "-c", RUNNER, str(tmp_path)]
        started.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_a_goal_has_one_runner_whose_death_frees_it(
    runner: Callable[[], "subprocess.Popen[str]"], tmp_path: Path
) -> None:
    first = runner()
    assert _stream(first.stdout).readline() == "True\n"
    assert json.loads((tmp_path / "owner.json").read_text("utf-8"))["pid"] == first.pid
    assert RunLock(tmp_path).acquire()
    assert _stream(runner().stdout).readline() == "False\n"
    assert json.loads((tmp_path / "owner.json").read_text("utf-8"))["pid"] == first.pid
    first.kill()
    first.wait()
    lock = RunLock(tmp_path)
    wait_until(lambda: not lock.acquire(), "the lock is free")
    lock.announce()
    assert _stream(runner().stdout).readline() == "False\n"
    lock.release()
    assert not (tmp_path / "owner.json").exists()
    assert _stream(runner().stdout).readline() == "True\n"


@pytest.mark.parametrize("record", [b"", b"{", b"[]", b'{"pid": "x"}'])
def test_a_garbage_owner_record_keeps_nobody_out(record: bytes, tmp_path: Path) -> None:
    (tmp_path / "owner.json").write_bytes(record)
    lock = RunLock(tmp_path)
    assert not lock.acquire()
    lock.release()
