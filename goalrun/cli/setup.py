"""init, doctor, clean and config."""

import os
import platform
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import nullcontext
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import typer

from goalrun.adapters import git
from goalrun.adapters.clock import utc_now
from goalrun.adapters.clones import clones_of
from goalrun.adapters.files import remove_tree
from goalrun.adapters.home import Home, home_folder
from goalrun.adapters.isolation import probe as probe_isolation
from goalrun.adapters.lock import kernel_lock, taken
from goalrun.adapters.prepare import forget
from goalrun.adapters.sandbox import probe, strongest
from goalrun.adapters.views import REACHED
from goalrun.cli import projects
from goalrun.cli.render import note, out, paint, print_json
from goalrun.core.evidence import count
from goalrun.core.value import seconds
from goalrun.errors import GoalrunError, SettingsError
from goalrun.settings import agents, load, user_file, write_toml
from goalrun.wiring.session import open_session, workspace_here


def init(*, yes: bool) -> int:
    """Propose checks for the project here and write goalrun.toml."""
    session = open_session()
    workspace, subfolder = workspace_here()
    path = workspace / "goalrun.toml"
    if path.exists():
        raise SettingsError(f"{path} is there already", hint="edit it, or move it away first")
    proposed = projects.proposed_checks(workspace / subfolder, session.environment.get("PATH"))
    if yes or not sys.stdin.isatty():
        if not proposed:
            raise SettingsError(
                f"nothing in {workspace} says how it is tested", hint='write goalrun.toml with: checks = ["CMD"]'
            )
        if not yes:
            raise SettingsError("nobody is here to ask", hint="goalrun init --yes takes what it finds")
        checks = proposed
    else:
        checks = projects.ask_checks(proposed)
    written: dict[str, Any] = {"checks": checks}
    installed = [
        name
        for name, agent in agents(load(workspace).settings).items()
        if agent.order and shutil.which(agent.command[0])
    ]
    if installed:
        written["worker"] = installed[0]
    if not yes:
        note(f"{path} will say:")
        for key, value in written.items():
            note(f"  {key} = {value!r}")
        if not typer.confirm("write it?", default=True, err=True):
            return 0
    write_toml(path, written)
    out(f"wrote {path}")
    note('  next: goalrun start "make tests pass"')
    return 0


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
        mark = paint("ok", "good", sys.stdout) + "  " if finding.ok else paint("no", "bad", sys.stdout) + "  "
        out(f"{mark}  {finding.what:<16} {finding.found}")
        if finding.advice and not finding.ok:
            out(f"      {'':<16} {finding.advice}")
    needed = {"git", "bash", "state folder"}
    return 0 if all(finding.ok for finding in findings if finding.what in needed) else 11


def _findings() -> Iterator[Finding]:
    system = platform.system()
    yield Finding("system", system in {"Linux", "Darwin"}, f"{system} {platform.release()}", "on Windows use WSL")
    yield Finding("python", True, platform.python_version())  # noqa: FBT003
    git.forget_git_variables()
    yield _tried("git", git.require_git)
    bash = shutil.which("bash")
    yield Finding("bash", bash is not None, bash or "not on PATH", "install bash: checks run under it")
    home = Home(home_folder())
    yield _tried("state folder", lambda: _home_works(home))
    yield _tried("kernel locks", lambda: _lock_works(home.path), "owner records are used instead: see docs/state.md")
    adopts = system == "Linux"
    found = "orphans are adopted and ended" if adopts else "orphans that leave their session are not found"
    yield Finding("supervision", adopts, found)
    best = "seatbelt" if system == "Darwin" else "bwrap"
    level, weak = strongest(), probe(best)
    advice = "install bubblewrap; where it is, allow user namespaces (Ubuntu: an AppArmor profile for bwrap)"
    yield Finding("sandbox level", not weak, f"{level} ({best}: {weak})" if weak else level, advice)
    apart = probe_isolation()
    yield Finding("worker", not apart, f"supervisor ({apart})" if apart else "namespaces of its own", advice)
    presets = agents(load(home.path).settings)
    installed = [name for name, agent in presets.items() if shutil.which(agent.command[0])]
    yield Finding("agents", bool(installed), ", ".join(installed) or "none found", "install one, or use --worker-cmd")


def _tried(what: str, look: Any, advice: str = "") -> Finding:  # noqa: ANN401 - any callable that returns text
    try:
        return Finding(what, True, look())  # noqa: FBT003
    except GoalrunError as failure:
        return Finding(what, False, str(failure), advice or failure.hint)  # noqa: FBT003


def _home_works(home: Home) -> str:
    home.prepare()
    return str(home.path)


def _lock_works(folder: Path) -> str:
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        lock = kernel_lock(Path(scratch, "probe"))
        if not taken(lock, 0):
            raise SettingsError("not in the state folder's file system")
        lock.release()
    return "work in the state folder"


def clean(older_than: str, keep: int, *, dry_run: bool, as_json: bool) -> int:
    """Remove achieved goals, and cached results of ``--prepare``, that are old enough."""
    try:
        age = timedelta(seconds=float(str(seconds(older_than))))
    except (ValueError, OverflowError) as failure:
        raise SettingsError(f"--older-than: {failure}") from failure
    home = open_session().home
    with home.removing() if not dry_run else nullcontext():
        known = home.ids()
        wanted = list(_to_remove(home, known, age, keep))
        busy = [] if dry_run else [goal for goal in wanted if not home.set_aside(goal)]
    gone = [goal for goal in wanted if goal not in busy]
    for goal in [] if dry_run else gone:
        remove_tree(clones_of(home.path) / goal)
    kept = len(known) - len(gone)
    for goal in busy:
        note(f"{goal} is kept: another command has it in its hands")
    before = (utc_now() - age).timestamp()
    prepared = forget(home.path, lambda used: used <= before, dry_run=dry_run)
    if as_json:
        print_json({"schema": 1, "removed": gone, "kept": kept, "prepared": prepared, "dry_run": dry_run})
    else:
        verb = "would remove" if dry_run else "removed"
        out(f"{verb} {len(gone)} achieved goal{'s' if len(gone) != 1 else ''}, kept {kept}")
        for goal in gone:
            out(f"  {goal}")
        if prepared:
            out(f"{verb} {count(prepared, 'cached result')} of --prepare")
    return 0


def _to_remove(home: Home, known: list[str], age: timedelta, keep: int) -> Iterator[str]:
    """The achieved goals that are old enough, but for the newest ``keep`` of each workspace."""
    met: Counter[str] = Counter()
    for result in home.results(known, turns=False):
        if result["state"] not in REACHED or result.get("unreadable"):
            continue
        met[result["workspace"]] += 1
        old = utc_now() - datetime.fromisoformat(result["created_at"]) >= age
        if old and met[result["workspace"]] > keep:
            yield str(result["id"])


def config(*, as_json: bool) -> int:
    """The settings in force here."""
    open_session(write=False)
    workspace, _ = workspace_here()
    loaded = load(workspace)
    values = loaded.settings.model_dump(mode="json")
    if as_json:
        print_json({"schema": 1, "settings": values, "sources": loaded.sources})
        return 0
    for key, value in _flat(values):
        source = next(
            (found for name, found in loaded.sources.items() if key == name or key.startswith(f"{name}.")), ""
        )
        out(f"{key} = {value!r}" + (f"   # {source}" if source else ""))
    note(f"looked in {user_file()}, {workspace / 'goalrun.toml'}, {workspace / 'pyproject.toml'}")
    note(f"state is in {home_folder()}{' (GOALRUN_HOME)' if os.environ.get('GOALRUN_HOME') else ''}")
    return 0


def _flat(values: dict[str, Any], at: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{at}{key}.")
        else:
            yield f"{at}{key}", value
