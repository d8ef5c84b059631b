"""Many processes that want one workspace under several names, and are killed; run by the torture tests.

    racer.py STATE WITNESS SEED PROCESSES HOLDS ONE_IN NAME...

It forks processes that take the workspace, again and again, each under a name of its own. Whoever has it takes a POSIX
record lock on the witness's file, which has nothing to do with goalrun's own locks and is never waited for: that it is
held already means that two had the workspace. What happens is appended to the witness's history, a line per fact:

    hold TICKET GOAL PID NAME    while the witness's lock is held, so that the lines are in the order of the holds
    free TICKET GOAL             before the workspace is let go
    overlap GOAL PID             the witness's lock was held by somebody else
    kill PID POINT               it is about to die: at a named point, of its own; or at no point, by the racer's hand

It ends, and ends its processes, after a number of holds of its own. At each named point one process in ONE_IN dies;
twenty times as often a hold is followed by a kill from outside.
"""

import fcntl
import os
import random
import select
import signal
import sys
from pathlib import Path

from goalrun.adapters.lock import WorkspaceLock
from goalrun.adapters.points import EVENT

LOOK_SECONDS = 0.2
POINTS = frozenset({"lock choosing", "lock claimed", "lock held", "lock released", "file written", "file renamed"})


def tell(witness: Path, line: str) -> None:
    """Append a line to the history, whole."""
    descriptor = os.open(witness / "history", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(descriptor, f"{line}\n".encode())
    os.close(descriptor)


def compete(state: Path, witness: Path, name: Path, chance: random.Random, one_in: int, begun: int) -> None:
    """Take the workspace again and again, until killed."""

    def die_sometimes(event: str, arguments: tuple[object, ...]) -> None:
        if event == EVENT and arguments[0] in POINTS and not chance.randrange(one_in):
            tell(witness, f"kill {os.getpid()} {arguments[0]}")
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(die_sometimes)
    number = 0
    while True:
        number += 1
        goal = f"g-{os.getpid()}-{number}"
        lock = WorkspaceLock(state, name, goal)
        lock.acquire(wait=True, poll=lambda: None, on_wait=lambda _: None)
        inside = os.open(witness / "inside", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.lockf(inside, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            tell(witness, f"overlap {goal} {os.getpid()}")
            os._exit(3)
        ticket = next((state / "locks").glob(f"*-{goal}.json")).name.partition("-")[0]
        tell(witness, f"hold {ticket} {goal} {os.getpid()} {name}")
        os.write(begun, b".")
        lock.forget_dead()
        tell(witness, f"free {ticket} {goal}")
        os.close(inside)
        lock.release()


def main() -> None:
    """Fork, kill and fork again, until there were enough holds."""
    state, witness = map(Path, sys.argv[1:3])
    seed, count, holds, one_in = map(int, sys.argv[3:7])
    names = [Path(name) for name in sys.argv[7:]]
    chance = random.Random(seed)  # noqa: S311 - no secret
    ready, begun = os.pipe()
    living: set[int] = set()

    def fork() -> None:
        name, own = chance.choice(names), random.Random(chance.random())  # noqa: S311
        pid = os.fork()
        if pid == 0:
            os.close(ready)
            compete(state, witness, name, own, one_in, begun)
        living.add(pid)

    for _ in range(count):
        fork()
    while holds > 0:
        if select.select([ready], [], [], LOOK_SECONDS)[0]:
            os.read(ready, 1)
            holds -= 1
            if not chance.randrange(max(1, one_in // 20)):
                victim = chance.choice(sorted(living))
                tell(witness, f"kill {victim} -")
                os.kill(victim, signal.SIGKILL)
        # The dead are replaced, whatever they died of.
        for pid in [pid for pid in living if os.waitpid(pid, os.WNOHANG)[0]]:
            living.remove(pid)
            fork()
    for pid in living:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


if __name__ == "__main__":
    main()
