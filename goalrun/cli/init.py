"""`goalrun init`: a short conversation with good guesses, and the file that comes of it."""

import re
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tomli_w
import typer

from goalrun.cli import projects
from goalrun.cli.render import note, out
from goalrun.core.evidence import one_line
from goalrun.core.value import duration
from goalrun.errors import SettingsError
from goalrun.settings import AgentSettings, Loaded, agents, load, write_toml
from goalrun.wiring.session import Session, open_session, workspace_here

NUMBERS = re.compile(r"\d{1,2}(?:[\s,]+\d{1,2})*")


def init(*, yes: bool) -> int:
    """Propose settings for the project here and write goalrun.toml."""
    session = open_session()
    workspace, subfolder = workspace_here()
    path = workspace / "goalrun.toml"
    if path.exists():
        raise SettingsError(f"{path} is there already", hint="edit it, or move it away first")
    folder = workspace / subfolder
    proposed = projects.proposed_checks(folder, session.environment.get("PATH"))
    loaded = load(workspace)
    if yes or not sys.stdin.isatty():
        written = _unasked(proposed, loaded, workspace, yes=yes)
    else:
        written = _asked(proposed, folder, loaded, session)
        note(f"\n{path} will say:\n")
        for line in tomli_w.dumps(written).splitlines():
            note(f"  {line}")
        if not typer.confirm("\nwrite it?", default=True, err=True):
            return 0
        # Who was asked here is not asked again at the first start.
        (session.home.path / projects.ASKED).touch()
    write_toml(path, written)
    out(f"wrote {path}")
    worker = "worker" in written or loaded.settings.worker or loaded.settings.worker_cmd
    note('  next: goalrun start "make tests pass"' + ("" if worker else " --worker-cmd CMD"))
    return 0


def _unasked(proposed: list[str], loaded: Loaded, workspace: Path, *, yes: bool) -> dict[str, Any]:
    if not proposed:
        raise SettingsError(
            f"nothing in {workspace} says how it is tested", hint='write goalrun.toml with: checks = ["CMD"]'
        )
    if not yes:
        raise SettingsError("nobody is here to ask", hint="goalrun init --yes takes what it finds")
    installed = _installed(agents(loaded.settings))
    return {"checks": proposed, **({"worker": installed[0]} if installed else {})}


def _installed(known: Mapping[str, AgentSettings]) -> list[str]:
    return [name for name, agent in known.items() if agent.order and shutil.which(agent.command[0])]


def _asked(proposed: list[str], folder: Path, loaded: Loaded, session: Session) -> dict[str, Any]:
    """What a person answers; what another file sets already is not asked."""
    written: dict[str, Any] = {}
    known = agents(loaded.settings)
    if "checks" not in loaded.sources:
        written["checks"] = _checks(proposed, projects.more_checks(folder, session.environment.get("PATH")))
    if "worker" not in loaded.sources and "worker_cmd" not in loaded.sources:
        written |= _worker(known)
    if not {"judge", "judges", "judge_cmd"} & set(loaded.sources):
        written |= _judge(known, str(written.get("worker", (loaded.settings.worker or ("",))[0])))
    limits = {} if any(key.startswith("limits.") for key in loaded.sources) else _limits()
    return {**written, **({"limits": limits} if limits else {})}


def _checks(proposed: list[str], more: dict[str, str]) -> list[str]:
    """The commands that decide: some of those that were found, others, or both."""
    typer.echo("A goal is achieved when all its checks succeed: commands that the agent cannot touch.", err=True)
    found = {**dict.fromkeys(proposed, ""), **more}
    for number, (check, source) in enumerate(found.items(), start=1):
        typer.echo(f"  {number}  {check}{f'   ({source})' if source else ''}", err=True)
    if not found:
        typer.echo("  nothing here says how it is tested", err=True)
    what = "which (numbers, or a command)" if found else "check (a command)"
    default = "1" if found else None
    chosen: list[str] = []
    while answer := str(typer.prompt(what, default=default, show_default=not chosen, err=True)).strip():
        meant = _chosen(answer, list(found))
        if not meant:
            typer.echo(f"  {one_line(answer, 60)} is none of them", err=True)
            continue
        chosen += meant
        what, default = "another (empty to go on)", ""
    return list(dict.fromkeys(chosen))


def _chosen(answer: str, found: list[str]) -> list[str]:
    """The checks that an answer means: numbers of those that were found, or a command; none for a wrong number."""
    if not NUMBERS.fullmatch(answer):
        return [answer]
    numbers = [int(text) for text in re.split(r"[\s,]+", answer)]
    known = all(1 <= number <= len(found) for number in numbers)
    return [found[number - 1] for number in numbers] if known else []


def _worker(known: Mapping[str, AgentSettings]) -> dict[str, str]:
    installed = _installed(known)
    if not installed:
        typer.echo(f"No agent is installed here (looked for {', '.join(known)}): give --worker-cmd at start.", err=True)
        return {}
    if len(installed) == 1:
        typer.echo(f"worker: {installed[0]}, the one agent that is installed", err=True)
        return {"worker": installed[0]}
    return {"worker": _one_of("worker", installed, installed[0])}


def _judge(known: Mapping[str, AgentSettings], worker: str) -> dict[str, str]:
    able = [name for name in _installed(known) if known[name].judge]
    if not able:
        return {}
    typer.echo("A judge reads what the checks cannot see, without tools; it can only say no.", err=True)
    answer = _one_of("judge", [*able, "none"], worker if worker in able else able[0])
    return {} if answer == worker else {"judge": answer}


def _one_of(what: str, known: list[str], default: str) -> str:
    while True:
        answer = str(typer.prompt(f"{what} ({', '.join(known)})", default=default, err=True)).strip()
        if answer in known:
            return answer
        typer.echo(f"  {one_line(answer, 60)} is none of them", err=True)


def _limits() -> dict[str, Any]:
    typer.echo("A goal can spend a lot while you are away; 0 is no limit.", err=True)
    usd = typer.prompt("US dollars at most", default=0, type=float, err=True)
    time = _time()
    return {**({"max_usd": usd} if usd > 0 else {}), **({"max_time": time} if time else {})}


def _time() -> str:
    while True:
        answer = str(typer.prompt("running time at most (as in 30m, 2h)", default="0", err=True)).strip()
        try:
            given = duration(answer)
        except ValueError as failure:
            typer.echo(f"  {failure}", err=True)
            continue
        if not given or given >= 1:
            return answer if given else ""
        typer.echo("  at least one second", err=True)
