"""Many processes under many names of one workspace, killed at random: never two inside, always in order, never stuck.

The witness is a POSIX record lock of the test's own, and a history that the holders append to; see ``racer.py``. By
default a small share runs; all of it, with its history in figures, is ``GOALRUN_LOCKS=all pytest -s tests/locks``.
"""

import os
import subprocess
import sys
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest
from locks.shims import ALL, HERE, NEEDS_LINUX, NO_FLOCK, shim

from goalrun.adapters.lock import WorkspaceLock, filed_claims

pytestmark = [NEEDS_LINUX, pytest.mark.timeout(3000 if ALL else 120)]
PROCESSES = 50 if ALL else 30
HOLDS = 1000 if ALL else 30
DAY = 86_400
KERNEL: dict[str, str] = {}


def namespace() -> list[str]:
    """What runs a command in a mount namespace of its own, where it may bind; nothing where that is not allowed."""
    for prefix in (["unshare", "--mount"], ["unshare", "--map-root-user", "--mount"]):
        tried = subprocess.run([*prefix, "true"], capture_output=True, check=False)
        if tried.returncode == 0:
            return prefix
    return []


def race(tmp_path: Path, environments: list[dict[str, str]], processes: int, holds: int, one_in: int) -> list[str]:
    """Let some racers run, each with an environment of its own, all in one workspace; what happened."""
    workspace, witness = tmp_path / "ws", tmp_path / "witness"
    for folder in (workspace / "sub", witness, tmp_path / "mounted"):
        folder.mkdir(parents=True)
    (tmp_path / "alias").symlink_to(workspace)
    names = [workspace, tmp_path / "alias", workspace / "sub"]
    bound = namespace()
    if bound:
        names.append(tmp_path / "mounted")
        bound = [*bound, "sh", "-c", f'mount --bind "{workspace}" "{tmp_path}/mounted" && exec "$@"', "sh"]
    racers = []
    for seed, environment in enumerate(environments):
        share = [processes // len(environments), holds // len(environments), one_in]
        command = [sys.executable, HERE / "racer.py", tmp_path / "state", witness, seed, *share, *names]
        racers.append(
            subprocess.Popen([*bound, *map(str, command)], env={**os.environ, **environment}, stderr=subprocess.PIPE)
        )
    ends = [racer.communicate()[1].decode() for racer in racers]
    assert [(racer.returncode, end) for racer, end in zip(racers, ends, strict=True)] == [(0, "")] * len(racers)
    return (witness / "history").read_text("ascii").splitlines()


def judge(history: list[str], state: Path, workspace: Path) -> None:
    """No overlap, the order of the queue, and a workspace that can be had at once when all are dead."""
    facts = [line.split() for line in history]
    told = Counter(fact[0] for fact in facts)
    order = [(fact[1], fact[2]) for fact in facts if fact[0] == "hold"]
    wrong = [(before, after) for before, after in pairwise(order) if before >= after]
    names = Counter(Path(fact[4]).name for fact in facts if fact[0] == "hold")
    deaths = Counter(" ".join(fact[2:]) for fact in facts if fact[0] == "kill")
    held = told["hold"] - told["free"]
    print(  # noqa: T201 - what a person wants to see of it
        f"\n{told['hold']} holds {dict(names)}; {told['kill']} kills {dict(deaths)}; {held} died holding; "
        f"{told['overlap']} overlaps; {len(wrong)} out of order"
    )
    assert told["overlap"] == 0, [fact for fact in facts if fact[0] == "overlap"]
    assert wrong == []
    assert told["kill"] > 0
    assert len(names) >= (3 if ALL else 2)
    lock = WorkspaceLock(state, workspace, "g-last")
    lock.acquire(wait=False, poll=lambda: None, on_wait=lambda _: None)
    lock.forget_dead()
    lock.release()
    assert filed_claims(state / "locks") == []


def test_with_kernel_locks(tmp_path: Path) -> None:
    judge(race(tmp_path, [KERNEL], PROCESSES, HOLDS, 150), tmp_path / "state", tmp_path / "ws")


@pytest.mark.parametrize("name", sorted(NO_FLOCK) if ALL else ["ENOLCK"])
def test_without_kernel_locks_and_with_clocks_that_are_off(name: str, tmp_path: Path) -> None:
    off = [{"SHIM_SECONDS": str(seconds)} for seconds in (0, DAY, -DAY, 3600)]
    without = [{**shim(tmp_path), **NO_FLOCK[name], **each} for each in off]
    judge(race(tmp_path, without, 20, HOLDS // 2, 150), tmp_path / "state", tmp_path / "ws")


def test_with_kernel_locks_and_clocks_that_are_off(tmp_path: Path) -> None:
    off = [{**shim(tmp_path), "SHIM_SECONDS": str(seconds)} for seconds in (DAY, -DAY)]
    judge(race(tmp_path, off, 10, HOLDS // 3, 150), tmp_path / "state", tmp_path / "ws")
