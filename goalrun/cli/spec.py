"""From flags and files to a goal, frozen by value."""

import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import ValidationError

from goalrun.adapters.agents import READERS
from goalrun.adapters.agents.call import shell_command
from goalrun.adapters.agents.find import bad_find
from goalrun.adapters.agents.probe import older, probe
from goalrun.adapters.deps import detect
from goalrun.adapters.environment import path_for_checks
from goalrun.adapters.sandbox import strongest
from goalrun.core.spec import (
    MAX_OBJECTIVE_CHARS,
    PLAIN_COMMAND,
    AgentCommand,
    AgentSpec,
    FlowUse,
    GoalSpec,
    VerificationSpec,
)
from goalrun.errors import SpecError, meant
from goalrun.settings import AgentSettings, Settings, agents
from goalrun.wiring.session import Session

MAX_FILE_CHARS = 1_000_000
MODEL_JUDGE = "goalrun.adapters.model_judge"


def objective_of(given: str, file: Path | None, configured: str | None) -> str:
    """The objective: the argument's, or the file's.

    Raises:
        SpecError: there is none, there are two, or it is too long.
    """
    if given.strip() and len(given) > MAX_OBJECTIVE_CHARS:
        raise SpecError(
            f"the objective has {len(given)} characters; {MAX_OBJECTIVE_CHARS} are the most on a command line",
            hint="put it in a file and use -f FILE",
        )
    if file is not None and file.suffix != ".toml":
        if given.strip():
            raise SpecError(f"there are two objectives: the argument and {file}", hint="give one of them")
        given = _read(file)
    objective = given.strip() or (configured or "").strip()
    if not objective:
        raise SpecError("the objective is empty", hint='goalrun start "make tests pass"')
    if "\0" in objective:
        raise SpecError("the objective contains a null byte")
    return objective


def _read(file: Path) -> str:
    try:
        with file.open("rb") as opened:
            # A character has at most four bytes; what a device gives has no end.
            text = opened.read(4 * MAX_FILE_CHARS + 1).decode("utf-8")
    except (OSError, UnicodeDecodeError) as failure:
        why = failure.strerror if isinstance(failure, OSError) else "it is not UTF-8 text"
        raise SpecError(f"cannot read {file}: {why}") from failure
    if len(text) > MAX_FILE_CHARS:
        raise SpecError(f"{file} is longer than {MAX_FILE_CHARS} characters")
    return text


def make_spec(
    goal: str,
    objective: str,
    place: tuple[Path, str],
    settings: Settings,
    session: Session,
    *,
    force: bool,
    flow: FlowUse | None = None,
) -> GoalSpec:
    """The goal that these settings describe.

    Raises:
        SpecError: it cannot be run as described.
    """
    workspace, subfolder = place
    alone = flow is not None and flow.alone
    worker = worker_of(settings, session) if flow is None else flow_as_worker(flow, settings)
    try:
        return GoalSpec(
            id=goal,
            flow=flow,
            objective=objective,
            workspace=str(workspace),
            subfolder=subfolder,
            worker=worker,
            checks=() if settings.judge_only or alone else settings.checks,
            hidden_checks=() if alone else settings.hidden_checks,
            judges=() if alone else _judges(settings, worker, session),
            wait_quota=settings.wait_quota,
            limits=settings.limits,
            verification=verification_of(settings, place, session),
            force=force,
            worker_isolation=settings.worker_isolation,
            hooks={name: command for name, command in settings.hooks.model_dump().items() if command},
            notify=settings.notify,
        )
    except ValidationError as failure:
        raise SpecError(f"the goal cannot be run: {failure.errors()[0]['msg']}") from failure


def verification_of(settings: Settings, place: tuple[Path, str], session: Session) -> VerificationSpec:
    """How a goal's turns are checked, with what is found of dependencies and on PATH."""
    asked = settings.verification
    workspace, subfolder = place
    conventional = asked.prepare is None
    deps = detect(asked.deps, workspace, subfolder, session.environment, conventional=conventional)
    path, _ = path_for_checks(session.environment.get("PATH", ""), workspace, deps)
    # Chosen once: a machine on which a worker broke a level must not give a weaker one instead.
    level = strongest() if asked.sandbox == "auto" and not asked.require_sandbox else asked.sandbox
    return VerificationSpec(**{**dict(asked), "deps": deps, "sandbox": level}, path=path)


def flow_as_worker(flow: FlowUse, settings: Settings) -> AgentSpec:
    """What stands for a flow where a goal's worker is spoken of; for several workers, the first."""
    if settings.workers:
        return flow.agents[",".join(settings.workers[0])]
    return AgentSpec(name=flow.flow.name, command=("goalrun", "flow", "run", flow.flow.name))


def hidden_files(settings: Settings, workspace: Path) -> Path | None:
    """The folder of files for hidden checks.

    Raises:
        SpecError: it is missing, in the workspace where the worker would see it, or nobody uses it.
    """
    if settings.hidden_files is None:
        return None
    folder = Path(settings.hidden_files).resolve()
    if not folder.is_dir():
        raise SpecError(f"there is no folder of hidden files: {folder}")
    if folder.is_relative_to(workspace) or workspace.is_relative_to(folder):
        raise SpecError(f"the hidden files in {folder} are not hidden: the workspace is {workspace}", hint="move them")
    if not settings.hidden_checks:
        raise SpecError("hidden files are given, but no hidden check", hint="add --hidden-check CMD")
    return folder


def worker_of(settings: Settings, session: Session) -> AgentSpec:
    """The worker's agent with those that stand in for it.

    Raises:
        SpecError: one of them is unknown, or none is installed.
    """
    if settings.worker_cmd is not None and settings.worker is not None:
        raise SpecError("both a worker and a worker command are given", hint="give -w NAME or --worker-cmd CMD")
    if settings.strategy is not None and not settings.workers:
        raise SpecError(f"--strategy {settings.strategy} needs several workers", hint="-w claude -w codex")
    if settings.worker_cmd is not None:
        return AgentSpec(name=PLAIN_COMMAND, command=shell_command(settings.worker_cmd))
    known = agents(settings)
    path = session.environment.get("PATH")
    names = (
        settings.worker
        or tuple(name for name, agent in known.items() if agent.order and shutil.which(agent.command[0], path=path))[:1]
    )
    if not names:
        looked_for = ", ".join(name for name, agent in known.items() if agent.order)
        raise SpecError(f"no worker: none of {looked_for} is installed", hint="install one, or give --worker-cmd CMD")
    return worker_chain(names, settings, session)


def worker_chain(names: Sequence[str], settings: Settings, session: Session) -> AgentSpec:
    """An agent as a worker, with those that stand in for it."""
    known = agents(settings)
    here = _installed(names, known, session)
    return _chained([worker_agent(name, known_agent(name, known), session) for name in here])


def _installed(names: Sequence[str], known: dict[str, AgentSettings], session: Session) -> Sequence[str]:
    """Those of a chain whose programs are here: they stand in for the others. All of it, where none is."""
    path = session.environment.get("PATH")
    here = [name for name in names if ":" in name or shutil.which(known_agent(name, known).command[0], path=path)]
    return here or names


def worker_agent(name: str, agent: AgentSettings, session: Session) -> AgentSpec:
    """An agent as a worker.

    Raises:
        SpecError: what it prints cannot be read, it is not installed, or too old.
    """
    _require_sound(name, agent)
    if name == PLAIN_COMMAND:
        raise SpecError(f"no agent can be called {name!r}: commands are", hint=f"rename [agents.{name}]")
    if shutil.which(agent.command[0], path=session.environment.get("PATH")) is None:
        raise SpecError(f"worker {name}: {agent.command[0]} is not on PATH", hint=f"install {name}, or choose with -w")
    extra = extra_words(name, agent, session)
    same = {key: getattr(agent, key) for key in AgentCommand.model_fields}
    resume = (*agent.resume, *extra) if agent.resume else ()
    return AgentSpec(**{**same, "name": name, "command": (*agent.command, *extra), "resume": resume})


def extra_words(name: str, agent: AgentSettings, session: Session) -> tuple[str, ...]:
    """The words that the installed version of an agent's program takes beside those that all do.

    Raises:
        SpecError: it is too old.
    """
    if agent.least is None and not agent.optional:
        return ()
    program = shutil.which(agent.command[0], path=session.environment.get("PATH")) or agent.command[0]
    found = probe(Path(program), session.home.path, session.environment)
    if agent.least is not None and found.version and older(found.version, agent.least):
        raise SpecError(
            f"{name} {found.version} is too old: {agent.least} or newer is needed",
            hint=f"upgrade {name}, or -w another",
        )
    return tuple(word for words in agent.optional if words[0] in found.flags for word in words)


def known_agent(name: str, known: Mapping[str, AgentSettings]) -> AgentSettings:
    """An agent by its name.

    Raises:
        SpecError: there is none.
    """
    if name not in known:
        otherwise = f"known: {', '.join(known)}; or add [agents.{name}]"
        raise SpecError(f"unknown agent {name!r}", hint=meant(name, known, otherwise))
    return known[name]


def _require_sound(name: str, agent: AgentSettings) -> None:
    for reads in (agent.reads, agent.judge_reads or agent.reads):
        if reads not in {*READERS, "find"}:
            near = ", ".join(sorted({*READERS, "find"}))
            raise SpecError(f"agents.{name} reads {reads!r}, which nobody knows", hint=f"one of {near}")
    if why := bad_find(agent.find):
        raise SpecError(f"agents.{name}.find: {why}", hint="docs/agents.md says what it can hold")


def _judges(settings: Settings, worker: AgentSpec, session: Session) -> tuple[AgentSpec, ...]:
    if (settings.judge or settings.judges) and settings.judge_cmd is not None:
        raise SpecError("both a judge and a judge command are given", hint="give -j NAME or --judge-cmd CMD")
    judges = _named_judges(settings, worker, session)
    if settings.judge_only and settings.verification.require_strong:
        raise SpecError("--judge-only and --require-strong exclude each other: without checks nothing is strong")
    if settings.judge_only and not judges:
        raise SpecError("--judge-only needs a judge", hint="add --judge-cmd CMD, or -j NAME")
    return judges


def _named_judges(settings: Settings, worker: AgentSpec, session: Session) -> tuple[AgentSpec, ...]:
    if settings.judge_cmd is not None:
        return (AgentSpec(name=PLAIN_COMMAND, command=shell_command(settings.judge_cmd)),)
    known = agents(settings)
    chains = settings.judges or ((settings.judge,) if settings.judge else ())
    if chains == (("none",),):
        return ()
    if chains:
        here = [_installed(chain, known, session) for chain in chains]
        return tuple(_chained([_as_judge(name, known, session) for name in chain]) for chain in here)
    own = known.get(worker.name)
    if own is not None and own.judge and worker.name != PLAIN_COMMAND:
        return (_as_judge(worker.name, known, session),)
    return ()


def _chained(chain: list[AgentSpec]) -> AgentSpec:
    """The first of them, with the others as its stand-ins."""
    return chain[0].but(fallbacks=tuple(chain[1:]))


def _as_judge(name: str, known: dict[str, AgentSettings], session: Session) -> AgentSpec:
    if ":" in name:
        return AgentSpec(name=name, command=(sys.executable, "-P", "-m", MODEL_JUDGE, name), reads="model")
    agent = known_agent(name, known)
    _require_sound(name, agent)
    if not agent.judge:
        able = ", ".join(name for name, agent in known.items() if agent.judge)
        raise SpecError(
            f"agent {name!r} cannot judge: it cannot be locked down", hint=f"one of {able}, or PROVIDER:MODEL"
        )
    program = agent.command[0]
    if shutil.which(program, path=session.environment.get("PATH")) is None:
        raise SpecError(f"judge {name}: {program} is not on PATH", hint=f"install {name}, or -j none")
    extra_words(name, agent, session)
    return AgentSpec(
        name=name,
        command=agent.judge,
        model=agent.model,
        reads=agent.judge_reads or agent.reads,
        find=agent.find,
        files=agent.files,
        env=agent.env,
        timeout=agent.judge_timeout,
    )
