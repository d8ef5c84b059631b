"""Level landlock: the kernel refuses a check every file but its own; no namespaces are needed."""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from goalrun.adapters import process
from goalrun.adapters.sandbox.place import Place, Surroundings, Wrapped
from goalrun.adapters.sandbox.plain import ProcessSandbox
from goalrun.adapters.sandbox.visible import SYSTEM, programs

LAUNCHER = Path(__file__).with_name("landlock_run.py")
READ = (*SYSTEM, "/proc", "/sys", "/dev")
WRITE = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty", "/dev/ptmx", "/dev/pts")
SHARED_MEMORY = "/dev/shm"  # noqa: S108 - where the C library keeps semaphores


class LandlockSandbox(ProcessSandbox):
    """Landlock: a check reads the system, its tools and its own folders, and writes only the latter.

    It does not see the user's home or the state folder, and on newer kernels signals nobody outside. It shares the
    machine's processes, paths and network: no path parity, no network isolation.
    """

    level = "landlock"

    def __init__(self, around: Surroundings) -> None:
        super().__init__(around)
        kept = (folder for each in around.frozen for folder in (each.copy, each.stand_in))
        self._readable = (*READ, *map(str, programs(around)), *map(str, kept))

    def wrap(self, argv: Sequence[str], place: Place, cwd: Path, env: Mapping[str, str]) -> Wrapped:
        """Start the command through a launcher that restricts itself first, and says so."""
        read = [*self._readable, *([str(place.hidden)] if place.hidden is not None else [])]
        write = [*WRITE, SHARED_MEMORY, *map(str, (place.top, place.home, place.tmp, place.reports))]
        order = {
            "read": [path for path in read if Path(path).exists()],
            "write": [path for path in write if Path(path).exists()],
            "status": process.STATUS_FD,
        }
        launcher = (sys.executable, "-I", "-S", str(LAUNCHER), json.dumps(order), "--")
        return Wrapped((*launcher, *argv), cwd, env, recorded=True)
