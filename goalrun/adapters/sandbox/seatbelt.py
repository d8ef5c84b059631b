"""Level seatbelt: the sandbox of macOS, by sandbox-exec(1)."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from goalrun.adapters import process
from goalrun.adapters.sandbox.place import Place, Surroundings, Wrapped
from goalrun.adapters.sandbox.plain import ProcessSandbox
from goalrun.adapters.sandbox.visible import programs

PROGRAM = "/usr/bin/sandbox-exec"
WRITE = ("/dev/null", "/dev/zero", "/dev/tty", "/dev/ptmx", "/dev/dtracehelper")
ENTERED = f'echo \'{{"entered": true}}\' >&{process.STATUS_FD}; exec {process.STATUS_FD}>&-; exec "$@"'
"""Run by the system's bash inside: the record that the profile was accepted."""
NO_NETWORK = """(deny network*)
(allow network-bind network-inbound (local ip "localhost:*"))
(allow network-outbound (remote ip "localhost:*"))
(allow network* (local unix-socket) (remote unix-socket (subpath (param "WRITE0"))))"""


class SeatbeltSandbox(ProcessSandbox):
    """Seatbelt: a check writes only into its own folders, and reaches loopback alone.

    What is hidden, the workspace and the user's home cannot be read, but for what checks need below them.
    """

    level = "seatbelt"

    def __init__(self, around: Surroundings) -> None:
        super().__init__(around)
        self._hidden = (*around.hidden, around.workspace, Path.home())
        kept = [folder for each in around.frozen for folder in (each.copy, each.stand_in)]
        self._readable = (*programs(around), *kept)
        self._network = around.network

    def wrap(self, argv: Sequence[str], place: Place, cwd: Path, env: Mapping[str, str]) -> Wrapped:
        """Start the command through sandbox-exec; later rules of a profile outrank earlier ones."""
        own = (place.top, place.home, place.tmp, place.reports)
        hidden = () if place.hidden is None else (place.hidden,)
        named = {
            **_named("HIDDEN", self._hidden),
            **_named("READ", (*self._readable, *hidden, *own)),
            **_named("WRITE", own),
        }
        profile = "\n".join(
            [
                "(version 1)",
                "(allow default)",
                "(deny signal)",
                "(allow signal (target same-sandbox))",
                "(deny file-write*)",
                *(f'(deny file-read* (subpath (param "{name}")))' for name in named if name.startswith("HIDDEN")),
                *(f'(allow file-read* (subpath (param "{name}")))' for name in named if name.startswith("READ")),
                *(f'(allow file-write* (subpath (param "{name}")))' for name in named if name.startswith("WRITE")),
                *(f'(allow file-write* (literal "{path}"))' for path in WRITE),
                *(() if self._network else (NO_NETWORK,)),
            ]
        )
        options = [word for name, path in named.items() for word in ("-D", f"{name}={path}")]
        launcher = (PROGRAM, *options, "-p", profile, "/bin/bash", "-c", ENTERED, "bash")
        return Wrapped((*launcher, *argv), cwd, env, recorded=True)


def _named(name: str, paths: Sequence[Path]) -> dict[str, str]:
    """Paths by parameter name; the kernel compares real ones."""
    return {f"{name}{number}": os.path.realpath(path) for number, path in enumerate(paths)}
