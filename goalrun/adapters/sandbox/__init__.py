"""How far a check is kept from everything else: the levels, behind one small interface.

A level is tried with the full set of options before it is trusted; what it is called is printed and stored with every
result. A sandbox that cannot be set up is never a result of the check.
"""

import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path

from goalrun.adapters import process
from goalrun.adapters.deps import Frozen
from goalrun.adapters.sandbox.bwrap import BwrapSandbox, bwrap
from goalrun.adapters.sandbox.landlock import LandlockSandbox
from goalrun.adapters.sandbox.place import Place, Sandbox, Surroundings
from goalrun.adapters.sandbox.plain import ProcessSandbox
from goalrun.adapters.sandbox.seatbelt import PROGRAM as SEATBELT
from goalrun.adapters.sandbox.seatbelt import SeatbeltSandbox
from goalrun.adapters.sandbox.visible import compilers, named_tools
from goalrun.core.spec import GoalSpec
from goalrun.errors import EnvironmentFailure, SpecError

__all__ = ["Place", "ProcessSandbox", "Sandbox", "Surroundings", "choose", "probe", "strongest"]
PROBE_SECONDS = 20.0
LEVELS: Mapping[str, Callable[[Surroundings], Sandbox]] = {
    "bwrap": BwrapSandbox,
    "seatbelt": SeatbeltSandbox,
    "landlock": LandlockSandbox,
    "process": ProcessSandbox,
}
"""The strongest first."""
ENOUGH = frozenset({"bwrap", "seatbelt"})
"""What ``--require-sandbox`` is satisfied with."""


def choose(spec: GoalSpec, home: Path, frozen: Sequence[Frozen] = ()) -> Sandbox:
    """The sandbox that a goal asks for; ``auto`` is the strongest that works here.

    Args:
        spec: the goal.
        home: the state folder, which no check may see.
        frozen: the goal's dependencies.

    Raises:
        SpecError: what was asked for does not work here.
    """
    asked = spec.verification
    level = strongest() if asked.sandbox == "auto" else asked.sandbox
    if asked.require_sandbox and level not in ENOUGH:
        reasons = "; ".join(f"{name}: {probe(name)}" for name in sorted(ENOUGH)) if asked.sandbox == "auto" else ""
        raise SpecError(
            f"no sandbox of the level that --require-sandbox asks for ({reasons or f'the goal asks for {level}'})",
            hint="goalrun doctor says more",
        )
    if reason := probe(level):
        raise SpecError(f"sandbox level {level} cannot be had: {reason}", hint="goalrun doctor says more")
    tools = [*named_tools([*spec.checks, asked.prepare or ""]), *compilers()]
    around = Surroundings(Path(spec.workspace), asked.path, tools, frozen, (home,), asked.network)
    return LEVELS[level](around)


@cache
def strongest() -> str:
    """The strongest level that works here."""
    return next(level for level in LEVELS if not probe(level))


@cache
def probe(level: str) -> str:
    """Why a level cannot be used here; "" when a trial with the full set of options kept what the level promises."""
    if level == "process":
        return ""
    if level == "bwrap" and bwrap() is None:
        return "bubblewrap is not installed"
    if level == "seatbelt" and not os.access(SEATBELT, os.X_OK):
        return "there is no sandbox-exec: it is part of macOS"
    if level == "landlock" and sys.platform != "linux":
        return "only Linux has it"
    with tempfile.TemporaryDirectory(prefix="goalrun-probe-", ignore_cleanup_errors=True) as scratch:
        try:
            return _tried(level, Path(scratch))
        except (EnvironmentFailure, OSError) as failure:
            return " ".join(str(failure).split())


TRIAL = """
echo -n works > probe
! cat "$HIDDEN/secret" || echo -n 'it read what is hidden' > probe
! echo seen > "$HIDDEN/written" || echo -n 'it wrote outside' > probe
"""


def _tried(level: str, scratch: Path) -> str:
    folders = [scratch / name for name in ("workspace", "home", "tmp", "reports")]
    hidden = scratch / "hidden"
    for folder in (*folders, hidden):
        folder.mkdir()
    (hidden / "secret").write_text("hidden", encoding="ascii")
    place = Place(*folders)
    sandbox = LEVELS[level](Surroundings(place.top, "", hidden=(hidden,)))
    bash = shutil.which("bash", path="/usr/local/bin:/usr/bin:/bin") or "/bin/bash"
    environment: Mapping[str, str] = {"HIDDEN": str(hidden), "PATH": "/usr/bin:/bin"}
    wrapped = sandbox.wrap((bash, "-c", TRIAL), place, place.top, environment)
    command = process.Command(
        argv=wrapped.argv,
        cwd=wrapped.cwd,
        env=wrapped.env,
        stdout=scratch / "out",
        timeout=PROBE_SECONDS,
        status=scratch / "status",
        launcher=wrapped.stays,
    )
    ignore: Callable[[object], None] = lambda _: None  # noqa: E731
    process.run(command, ignore, lambda: None)
    found = (place.top / "probe").read_text(encoding="utf-8")
    if (hidden / "written").exists():
        return "it wrote outside"
    return "" if found == "works" else found or "a trial run left nothing"
