"""Which agents there are, how each is driven, and a trial of one."""

import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from goalrun.adapters import git
from goalrun.adapters.agents import REPORTS
from goalrun.adapters.agents.call import Means
from goalrun.adapters.agents.probe import probe
from goalrun.adapters.worker import AgentWorker
from goalrun.cli.render import note, out, paint, print_json, print_result
from goalrun.cli.spec import known_agent, worker_agent
from goalrun.core.evidence import secrets_of
from goalrun.core.model import WorkerReport
from goalrun.core.ports import AgentFailure, Task
from goalrun.core.spec import AgentSpec, GoalSpec
from goalrun.settings import AgentSettings, agents, load
from goalrun.wiring.session import Session, open_session, workspace_here

PROOF = "goalrun-was-here.txt"
PROMPT = (
    f"Write the word done into a new file named {PROOF} in the current folder. Change nothing else. Then say: done."
)
TRIAL_SECONDS = 300.0
WORKS, DOES_NOT = 0, 11


def listed(*, as_json: bool) -> int:
    """All agents that are known here."""
    session = open_session()
    workspace, _ = workspace_here()
    known = agents(load(workspace).settings)
    found = [_described(name, agent, session) for name, agent in known.items()]
    if as_json:
        print_json({"schema": 1, "agents": found})
        return WORKS
    for each in found:
        where = f"{each['version'] or 'version unknown'}  {each['program']}" if each["program"] else "not installed"
        mark = paint("ok", "good", sys.stdout) if each["program"] else "--"
        out(f"{mark}  {each['name']:<10} {where}")
        if each["program"]:
            out(f"      {'':<8} {' '.join(each['command'])}")
            judges = "; judges" if each["judges"] else ""
            out(f"      {'':<8} reports {', '.join(each['reports']) or 'its text alone'}{judges}")
    note("the first that is installed is used where no worker is named; goalrun agents test NAME tries one")
    return WORKS


def _described(name: str, agent: AgentSettings, session: Session) -> dict[str, Any]:
    program = shutil.which(agent.command[0], path=session.environment.get("PATH"))
    # What nobody asked for is not run: a program of that name in a project's own [agents] may be anything.
    version = probe(Path(program), session.home.path, session.environment).version if program and agent.order else ""
    return {
        "name": name,
        "program": program,
        "version": version or None,
        "command": list(agent.command),
        "judges": bool(agent.judge),
        "session": agent.session,
        "reports": list(_reports(agent)),
    }


def _reports(agent: AgentSettings) -> tuple[str, ...]:
    if agent.reads != "find":
        return REPORTS.get(agent.reads, ())
    names = {
        "tokens": ("total_tokens", "input_tokens"),
        "cost": ("usd",),
        "session": ("session",),
        "quota": ("limited",),
    }
    return tuple(name for name, keys in names.items() if any(key in agent.find for key in keys))


def trial(name: str, *, as_json: bool) -> int:
    """One small real call of an agent in a folder that is thrown away."""
    session = open_session()
    workspace, _ = workspace_here()
    known = agents(load(workspace).settings)
    agent = worker_agent(name, known_agent(name, known), session)
    scratch = Path(tempfile.mkdtemp(prefix="goalrun-trial-"))
    try:
        found = _tried(agent, known[name], scratch, session)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    lines = (f"{what:<8} {value if value is not None else 'unknown'}" for what, value in found.items())
    print_result({"schema": 1, "agent": name, **found}, lines, as_json=as_json)
    return WORKS if found["edit"] == "works" else DOES_NOT


def _tried(agent: AgentSpec, settings: AgentSettings, scratch: Path, session: Session) -> dict[str, Any]:
    project = scratch / "project"
    project.mkdir()
    git.checked(["init", "--quiet", str(project)], scratch)
    spec = GoalSpec(id="g-trial", objective="trial", workspace=str(project), worker=agent, checks=("true",))
    means = Means(session.environment, secrets_of(session.environment), lambda: None)
    worker = AgentWorker(agent, spec, scratch, None, means)
    try:
        report = worker.run(Task(PROMPT, 1, 1, TRIAL_SECONDS), lambda _role, _process: None)
    except AgentFailure as failure:
        kind = {"limited": "its provider's limit is reached", "refused": "its credentials were refused"}
        return {"edit": f"not tried: {kind.get(failure.kind, 'it failed')}", "said": str(failure)}
    return _found(report, settings, edited=(project / PROOF).is_file())


def _found(report: WorkerReport, settings: AgentSettings, *, edited: bool) -> dict[str, Any]:
    usage = report.usage
    quota = "quota" in _reports(settings)
    return {
        "edit": "works" if edited else f"no file was written ({report.outcome}: {report.reason or report.text[:200]})",
        "usage": f"{usage.total_tokens} tokens" if usage is not None and usage.total_tokens is not None else None,
        "cost": f"{usage.usd:.6f} USD" if usage is not None and usage.usd is not None else None,
        "model": report.model or None,
        "session": report.session.id if report.session is not None else None,
        "quota": "recognised by the fields that it reports" if quota else "it reports none that could be recognised",
    }
