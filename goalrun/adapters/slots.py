"""How many agents run at once on this machine, over all goals: numbered kernel locks in the state folder.

The kernel frees the slot of a process that died.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import sleep

from goalrun.adapters.clock import TICK_SECONDS
from goalrun.adapters.files import private_folder
from goalrun.adapters.lock import try_lock


class Slots:
    """So many places; see ``flows.ports.Slots``."""

    def __init__(self, home: Path, count: int) -> None:
        self._folder = private_folder(home / "slots")
        self._count = count

    @contextmanager
    def __call__(self, poll: Callable[[], None]) -> Iterator[None]:
        """Wait for a place, and hold it."""
        while True:
            for number in range(self._count):
                lock = try_lock(self._folder / f"{number}.lock")
                if lock is not None:
                    try:
                        yield
                    finally:
                        lock()
                    return
            poll()
            sleep(TICK_SECONDS)
