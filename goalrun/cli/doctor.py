"""What works on this machine and in this project, and what to do about the rest."""

import os
import platform
import shutil
import sys
import tempfile
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from goalrun import __version__
from goalrun.adapters import git
from goalrun.adapters.home import Home, home_folder
from goalrun.adapters.isolation import probe as probe_isolation
from goalrun.adapters.lock import kernel_lock, taken
from goalrun.adapters.notify import on_desktop
from goalrun.adapters.sandbox import probe, strongest
from goalrun.cli.render import note, out, paint, print_json
from goalrun.core.evidence import count, one_line
from goalrun.errors import GoalrunError, SettingsError
from goalrun.settings import Loaded, agents, load
from goalrun.wiring.session import workspace_here

NEEDED = {"system", "git", "bash", "state folder"}
"""Without these nothing works."""
WIDTH = 100
LEAST_FREE_BYTES = 1 << 30
BELOW = 11
"""Exit code where something is missing without which nothing works."""


class Finding(NamedTuple):
    """One line of the doctor's table."""

    what: str
    ok: bool
    found: str
    advice: str = ""


def doctor(*, as_json: bool) -> int:
    """What works here."""
    findings = list(_findings())
    if as_json:
        print_json({"schema": 1, "findings": [finding._asdict() for finding in findings]})
    for finding in [] if as_json else findings:
        for line in _lines(finding):
            out(line)
    missing = [finding for finding in findings if not finding.ok and finding.what in NEEDED]
    less = sum(not finding.ok for finding in findings) - len(missing)
    if not as_json:
        note(_summary(len(missing), less))
    return BELOW if missing else 0


def _summary(missing: int, less: int) -> str:
    if missing:
        return f"{count(missing, 'thing')} (no) that goalrun cannot do without"
    return "all that goalrun needs is here" + (f"; {less} (--) could be better" if less else "")


def _lines(finding: Finding) -> Iterator[str]:
    mark = "ok" if finding.ok else "no" if finding.what in NEEDED else "--"
    painted = paint(mark, {"ok": "good", "no": "bad", "--": "busy"}[mark], sys.stdout)
    wide = max(40, min(WIDTH, shutil.get_terminal_size((WIDTH, 24)).columns) - 20)
    text = textwrap.wrap(one_line(finding.found, 600), wide) or [""]
    advice = textwrap.wrap(f"→ {finding.advice}", wide) if finding.advice and not finding.ok else []
    yield f"{painted}  {finding.what:<15} {text[0]}"
    for line in (*text[1:], *advice):
        yield f"{'':<20}{line}"


def _findings() -> Iterator[Finding]:
    system = platform.system()
    yield Finding("system", system in {"Linux", "Darwin"}, f"{system} {platform.release()}", "on Windows use WSL")
    yield _good("python", f"{platform.python_version()}, goalrun {__version__}")
    git.forget_git_variables()
    yield _tried("git", git.require_git)
    bash = shutil.which("bash")
    yield Finding("bash", bash is not None, bash or "not on PATH", "install bash: checks run under it")
    home = Home(home_folder())
    yield _tried("state folder", lambda: _home_works(home))
    yield _tried("free space", lambda: _room(home.path), "make room: a goal keeps every turn's files")
    yield _tried("kernel locks", lambda: _lock_works(home.path), "owner records are used instead: see docs/state.md")
    yield from _apart(system)
    yield from _project()
    yield _terminal()
    notifier = on_desktop("", "", os.environ.get("PATH"))
    found = Path(notifier[0]).name if notifier else "no notify-send and no osascript"
    advice = "install libnotify-bin for desktop = true under [notify]; terminal = true and webhook work without"
    yield Finding("notifications", bool(notifier), found, advice)


def _good(what: str, found: str) -> Finding:
    return Finding(what, True, found)  # noqa: FBT003


def _apart(system: str) -> Iterator[Finding]:
    """How worker and checks are kept apart from all else."""
    adopts = system == "Linux"
    found = "orphans are adopted and ended" if adopts else "orphans that leave their session are not found"
    yield Finding("supervision", adopts, found, "nothing can be done about it on this system")
    best = "seatbelt" if system == "Darwin" else "bwrap"
    level, weak = strongest(), probe(best)
    advice = "install bubblewrap; where it is, allow user namespaces (Ubuntu: an AppArmor profile for bwrap)"
    yield Finding("sandbox level", not weak, f"{level} ({best}: {weak})" if weak else level, advice)
    apart = probe_isolation()
    yield Finding("worker", not apart, f"supervisor ({apart})" if apart else "namespaces of its own", advice)


def _project() -> Iterator[Finding]:
    """Agents, and what is set for the workspace here."""
    try:
        workspace, _ = workspace_here()
        loaded = load(workspace)
    except GoalrunError as failure:
        yield Finding("settings", False, str(failure), failure.hint)  # noqa: FBT003
        loaded, workspace = load(home_folder()), home_folder()
    presets = agents(loaded.settings)
    installed = [name for name, agent in presets.items() if shutil.which(agent.command[0])]
    yield Finding("agents", bool(installed), ", ".join(installed) or "none found", "install one, or use --worker-cmd")
    judges = [name for name in installed if presets[name].judge]
    advice = "install an agent that can judge (goalrun agents), or name PROVIDER:MODEL; checks alone work too"
    yield Finding("judges", bool(judges), ", ".join(judges) or "none found", advice)
    yield _checks(loaded, workspace)


def _checks(loaded: Loaded, workspace: Path) -> Finding:
    checks = loaded.settings.checks
    if not checks:
        return Finding("checks", False, f"none are set for {workspace}", "goalrun init proposes some")  # noqa: FBT003
    return _good("checks", f"{'; '.join(checks)}  ({loaded.sources['checks']})")


def _terminal() -> Finding:
    from goalrun.cli.screen import can_take_over

    if not sys.stderr.isatty():
        return _good("live view", "standard error is no terminal here: lines are shown")
    works = can_take_over(sys.stderr)
    advice = "set TERM to your terminal's name, and make it at least 20 x 6"
    return Finding("live view", works, "works in this terminal" if works else "this terminal cannot show it", advice)


def _tried(what: str, look: Callable[[], str], advice: str = "") -> Finding:
    try:
        return _good(what, look())
    except GoalrunError as failure:
        return Finding(what, False, str(failure), advice or failure.hint)  # noqa: FBT003


def _home_works(home: Home) -> str:
    home.prepare()
    return str(home.path)


def _room(folder: Path) -> str:
    try:
        free = shutil.disk_usage(folder).free
    except OSError as failure:
        raise SettingsError(f"the state folder's disk cannot be asked: {failure.strerror}") from failure
    told = f"{free / (1 << 30):.1f} GiB where the state folder is"
    if free < LEAST_FREE_BYTES:
        raise SettingsError(f"only {told}")
    return told


def _lock_works(folder: Path) -> str:
    try:
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            lock = kernel_lock(Path(scratch, "probe"))
            if not taken(lock, 0):
                raise SettingsError("not in the state folder's file system")
            lock.release()
    except OSError as failure:
        raise SettingsError(f"not tried: the state folder cannot be written: {failure.strerror}") from failure
    return "work in the state folder"
