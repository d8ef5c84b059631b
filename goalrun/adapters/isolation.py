"""The worker's own namespaces: it sees no process but its own, and an empty folder where goalrun's state is.

It is no jail: a worker may change everything that its user may change. It only cannot reach goalrun, and everything
that it starts dies with it. The first process of the namespaces is bubblewrap; when it ends, the kernel ends the rest.
"""

import os
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from goalrun.adapters import process
from goalrun.adapters.sandbox import PROBE_SECONDS
from goalrun.adapters.sandbox.bwrap import bwrap
from goalrun.errors import EnvironmentFailure

MOUNT, SETPRIV = Path("/usr/bin/mount"), Path("/usr/bin/setpriv")
GIVEN_UP = "--bounding-set=-sys_admin,-sys_ptrace,-sys_chroot"
"""With these a root worker would take the cover off its eyes, or look around it; nothing else needs them here."""
AS_ROOT = f'{MOUNT} -t proc proc /proc && exec {SETPRIV} {GIVEN_UP} -- "$@"'
"""Root mounts /proc itself: bubblewrap would cover parts of it, and then no sandbox inside could have a /proc."""


def isolated(
    argv: Sequence[str], cwd: Path, state: Path, *, root: bool | None = None, frozen: Path | None = None
) -> tuple[str, ...]:
    """A command line that runs another one with the state folder hidden, among processes of its own.

    Args:
        argv: the other one.
        cwd: where it starts.
        state: the folder that it gets to see empty.
        root: whether root will run it; None is whoever runs this.
        frozen: a folder that it may only read.
    """
    program = [str(bwrap()), "--dev-bind", "/", "/", "--tmpfs", str(state), "--unshare-pid", "--die-with-parent"]
    if frozen is not None:
        program += ["--ro-bind", str(frozen), str(frozen)]
    options = ["--chdir", str(cwd), "--json-status-fd", str(process.STATUS_FD)]
    if root if root is not None else os.geteuid() == 0:
        return (*program, "--cap-add", "ALL", *options, "--", "/bin/sh", "-c", AS_ROOT, "sh", *argv)
    return (*program, "--proc", "/proc", *options, "--", *argv)


@cache
def probe() -> str:
    """Why workers cannot be isolated here; "" when a trial went well."""
    if bwrap() is None:
        return "bubblewrap is not installed"
    if os.geteuid() == 0 and not (MOUNT.exists() and SETPRIV.exists()):
        return "mount and setpriv (util-linux) are needed for a root worker"
    with tempfile.TemporaryDirectory(prefix="goalrun-probe-") as name:
        scratch = Path(name)
        (scratch / "state").mkdir()
        (scratch / "state" / "secret").touch()
        # Its own /proc, and nothing of the state folder.
        trial = f"test -d /proc/self && test ! -e {scratch}/state/secret && echo -n works > {scratch}/result"
        command = process.Command(
            argv=isolated(("/bin/sh", "-c", trial), scratch, scratch / "state"),
            cwd=scratch,
            env={"PATH": "/usr/bin:/bin"},
            stdout=scratch / "out",
            timeout=PROBE_SECONDS,
            status=scratch / "status",
            launcher=str(bwrap()),
        )
        try:
            process.run(command, lambda _: None, lambda: None)
            works = (scratch / "result").read_text(encoding="utf-8") == "works"
        except (EnvironmentFailure, OSError) as failure:
            return " ".join(str(failure).split())
        return "" if works else "a trial run could still see the state folder"
