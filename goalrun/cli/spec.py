"""From flags and files to a goal, frozen by value."""

import shutil
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from goalrun.adapters.deps import detect
from goalrun.adapters.environment import path_for_checks
from goalrun.adapters.worker import PLAIN_COMMAND, shell_worker
from goalrun.core.model import MAX_OBJECTIVE_CHARS, GoalSpec, JudgeSpec, VerificationSpec, WorkerSpec
from goalrun.errors import SpecError
from goalrun.settings import AgentSettings, Settings, agents
from goalrun.wiring import Session

MAX_FILE_CHARS = 1_000_000


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
        text = file.read_text(encoding="utf-8")
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
) -> GoalSpec:
    """The goal that these settings describe.

    Raises:
        SpecError: it cannot be run as described.
    """
    workspace, subfolder = place
    worker = _worker(settings, session)
    verification = settings.verification
    conventional = verification.prepare is None
    deps = detect(verification.deps, workspace, subfolder, session.environment, conventional=conventional)
    path, _ = path_for_checks(session.environment.get("PATH", ""), workspace, deps)
    try:
        return GoalSpec(
            id=goal,
            objective=objective,
            workspace=str(workspace),
            subfolder=subfolder,
            worker=worker,
            checks=() if settings.judge_only else settings.checks,
            hidden_checks=settings.hidden_checks,
            judge=_judge(settings, worker),
            limits=settings.limits.limits(),
            verification=VerificationSpec(**{**verification.model_dump(), "deps": deps}, path=path),
            force=force,
            worker_isolation=settings.worker_isolation,
        )
    except ValidationError as failure:
        raise SpecError(f"the goal cannot be run: {failure.errors()[0]['msg']}") from failure


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


def _worker(settings: Settings, session: Session) -> WorkerSpec:
    if settings.worker_cmd is not None and settings.worker is not None:
        raise SpecError("both a worker and a worker command are given", hint="give -w NAME or --worker-cmd CMD")
    if settings.worker_cmd is not None:
        return WorkerSpec(name=PLAIN_COMMAND, command=shell_worker(settings.worker_cmd))
    known = agents(settings)
    path = session.environment.get("PATH")
    name = settings.worker or next(
        (name for name, agent in known.items() if agent.order and shutil.which(agent.command[0], path=path)), None
    )
    if name is None:
        looked_for = ", ".join(name for name, agent in known.items() if agent.order)
        raise SpecError(f"no worker: none of {looked_for} is installed", hint="install one, or give --worker-cmd CMD")
    agent = _agent(name, known)
    if shutil.which(agent.command[0], path=path) is None:
        raise SpecError(f"worker {name}: {agent.command[0]} is not on PATH", hint=f"install {name}, or choose with -w")
    return WorkerSpec(name=name, command=agent.command, blocked_line=agent.blocked_line, env=agent.env)


def _agent(name: str, known: dict[str, AgentSettings]) -> AgentSettings:
    if name not in known:
        raise SpecError(f"unknown agent {name!r}", hint=f"known: {', '.join(known)}; or add [agents.{name}]")
    return known[name]


def _judge(settings: Settings, worker: WorkerSpec) -> JudgeSpec | None:
    if settings.judge is not None and settings.judge_cmd is not None:
        raise SpecError("both a judge and a judge command are given", hint="give -j NAME or --judge-cmd CMD")
    judge = _named_judge(settings, worker)
    if settings.judge_only and settings.verification.require_strong:
        raise SpecError("--judge-only and --require-strong exclude each other: without checks nothing is strong")
    if settings.judge_only and judge is None:
        raise SpecError("--judge-only needs a judge", hint="add --judge-cmd CMD, or -j NAME")
    return judge


def _named_judge(settings: Settings, worker: WorkerSpec) -> JudgeSpec | None:
    if settings.judge_cmd is not None:
        return JudgeSpec(name=PLAIN_COMMAND, command=shell_worker(settings.judge_cmd))
    known = agents(settings)
    if settings.judge == "none":
        return None
    if settings.judge is not None:
        agent = _agent(settings.judge, known)
        if not agent.judge:
            able = ", ".join(name for name, agent in known.items() if agent.judge)
            raise SpecError(f"agent {settings.judge!r} cannot judge: it cannot be locked down", hint=f"one of {able}")
        return JudgeSpec(name=settings.judge, command=agent.judge, env=agent.env)
    own = known.get(worker.name)
    if own is not None and own.judge and worker.name != PLAIN_COMMAND:
        return JudgeSpec(name=worker.name, command=own.judge, env=own.env)
    return None


def changed_limits(before: dict[str, Any], changes: dict[str, str]) -> dict[str, Any]:
    """Limits after a resume's flags: a value replaces, ``+value`` adds, ``none`` takes the limit away.

    Raises:
        SpecError: a value that is no number or duration.
    """
    from goalrun.settings import seconds

    after = dict(before)
    for name, text in changes.items():
        timed = name in {"max_time", "turn_timeout", "check_timeout"}
        plus = text.startswith("+")
        if text == "none" and name in {"max_tokens", "max_usd", "max_time"}:
            after[name] = None
            continue
        try:
            value = float(str(seconds(text.removeprefix("+")))) if timed else _number(text.removeprefix("+"))
        except ValueError as failure:
            flag = "--" + name.replace("_", "-")
            raise SpecError(f"{flag} {text!r}: {failure}", hint=f"{flag} +5 raises, {flag} 5 sets") from failure
        after[name] = (before[name] or 0) + value if plus else value
    return after


def _number(text: str) -> float | int:
    try:
        return int(text)
    except ValueError:
        try:
            return float(text)
        except ValueError:
            raise ValueError("not a number") from None
