"""`goalrun start`: from options and files to a goal that runs."""

import sys
from collections.abc import Callable, Mapping
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from goalrun.adapters.clones import head_of
from goalrun.adapters.environment import path_for_checks
from goalrun.adapters.files import remove_tree
from goalrun.adapters.sandbox import choose
from goalrun.cli import projects
from goalrun.cli.flow_spec import FlowAsked, flow_use, group_use
from goalrun.cli.goal_files import read_goal_file
from goalrun.cli.live import Loudness
from goalrun.cli.render import note
from goalrun.cli.running import How, go, loudness
from goalrun.cli.spec import hidden_files, make_spec, objective_of
from goalrun.core.spec import PLAIN_COMMAND, GoalSpec, Limits
from goalrun.core.value import Value
from goalrun.errors import SettingsError, SpecError, WorkspaceBusy
from goalrun.settings import Loaded, Settings, VerificationSettings, load
from goalrun.wiring.goals import clone_for, create_goal
from goalrun.wiring.session import Session, open_session, require_outside, workspace_here

T = TypeVar("T")
_KEYS = {"check": "checks", "hidden_check": "hidden_checks", "judge": "judges"}
"""What options are called in a configuration file, where that is something else."""
_TABLES: Mapping[str, type[Value]] = {"limits": Limits, "verification": VerificationSettings}
"""The tables of a configuration file that options are in."""
_OFF = {"no_baseline": "baseline", "no_wait_quota": "wait_quota"}
"""Options that switch something off, and what."""


class Asked(NamedTuple):
    """What ``start`` was asked for. ``flags`` have the shape of a configuration file; ``flow`` is the worker."""

    objective: str
    file: Path | None
    flags: dict[str, Any]
    force: bool
    no_wait: bool
    detach: bool
    as_json: bool
    flow: FlowAsked | None = None
    worktree: bool = False
    loud: Loudness = "normal"


class Wanted(NamedTuple):
    """A goal that is to be made.

    Attributes:
        place: the workspace, and the subfolder of it to start in.
        flow: the worker, where it is one.
        worktree: it works in a clone of the workspace.
    """

    objective: str
    place: tuple[Path, str]
    settings: Settings
    flow: FlowAsked | None = None
    force: bool = False
    worktree: bool = False


def asked(**options: Any) -> Asked:  # noqa: ANN401 - options of several types
    """What ``start`` was asked for, out of its options."""
    own = {
        name: options.pop(name) for name in ("objective", "file", "force", "no_wait", "detach", "as_json", "worktree")
    }
    loud = loudness(quiet=options.pop("quiet"), verbose=options.pop("verbose"))
    return Asked(**own, flags=flags(**options), loud=loud)


def flags(**options: Any) -> dict[str, Any]:  # noqa: ANN401 - options of several types
    """Options as a configuration file would say them; what was not given, or is off, is left out."""
    said = {name: value for name, value in options.items() if value is not None and value is not False}
    said |= {key: False for name, key in _OFF.items() if said.pop(name, False)}
    workers = said.pop("worker", None)
    if workers:
        said |= {"worker": workers[0]} if len(workers) == 1 else {"workers": workers}
    if (where := said.pop("verify_in", None)) is not None:
        if where not in {"worktree", "live"}:
            raise SettingsError(f"--verify-in {where!r}: it is worktree or live")
        said["worktree"] = where == "worktree"
    data: dict[str, Any] = {}
    for name, value in said.items():
        key = _KEYS.get(name, name)
        table = next((table for table, model in _TABLES.items() if key in model.model_fields), None)
        (data if table is None else data.setdefault(table, {}))[key] = value
    return data


def override(given: dict[str, Any]) -> dict[str, Any]:
    """A flag that names one of some alternatives takes back the others that a file may name."""
    both = dict(given)
    for rivals in (("worker", "workers", "worker_cmd"), ("judge", "judges", "judge_cmd")):
        if any(name in given for name in rivals):
            both |= {name: () if name in {"judges", "workers"} else None for name in rivals if name not in given}
    if "worker" in given or "worker_cmd" in given:
        both.setdefault("strategy", None)
    return both


def start(asked: Asked) -> int:
    """Make a goal and run it."""
    session = open_session()
    place = workspace_here()
    require_outside(place[0], session.home)
    loaded, flow = _loaded(asked, place[0])
    objective = objective_of(asked.objective, asked.file, loaded.settings.objective)
    if flow is None or not flow.alone:
        loaded = projects.with_limit(_with_checks(loaded, place, session), session.home)
    wanted = Wanted(objective, place, loaded.settings, flow, asked.force, asked.worktree)
    how = How("", asked.no_wait, asked.detach, asked.as_json, loud=asked.loud)
    tell = partial(_tell_before, session, loaded, asked)
    return run_new(session, wanted, lambda goal: go(session, goal, None, how), tell)


def _loaded(asked: Asked, workspace: Path) -> tuple[Loaded, FlowAsked | None]:
    """The settings, and the flow that is the worker."""
    goal_file = asked.file if asked.file is not None and asked.file.suffix == ".toml" else None
    given = override(asked.flags)
    if goal_file is not None and asked.flow is None:
        return read_goal_file(goal_file, workspace, given)
    return load(workspace, goal_file, given), asked.flow


def run_new(
    session: Session, wanted: Wanted, run: Callable[[str], T], tell: Callable[[GoalSpec], None] = lambda _: None
) -> T:
    """Make a goal, and run it.

    Args:
        session: the command's.
        wanted: what is to be made.
        run: runs the goal with this id.
        tell: is told what is about to be made.

    Raises:
        SpecError: it cannot be run as described; nothing was made.
        WorkspaceBusy: somebody else has its workspace, and ``run`` does not wait; it is gone again.
    """
    top, settings, asked = wanted.place[0], wanted.settings, wanted.flow
    flow = group_use(settings, session) if asked is None else flow_use(asked, wanted.objective, settings, session)

    def make(goal: str, place: tuple[Path, str] = wanted.place) -> GoalSpec:
        return make_spec(goal, wanted.objective, place, settings, session, force=wanted.force, flow=flow)

    # What cannot be isolated as asked is refused before anything exists.
    spec = make("g-unnamed")
    choose(spec, session.home.path)
    tell(spec)
    if wanted.worktree:
        head_of(top)
    alone = asked is not None and asked.alone
    hidden = None if alone else hidden_files(settings, top)
    create = partial(_in_clone, session, wanted.place, make) if wanted.worktree else make
    goal = create_goal(session, top, create, hidden, "f" if alone else "g")
    try:
        return run(goal)
    except WorkspaceBusy:
        # With --no-wait a busy workspace means that nothing was started; unless somebody has resumed it already.
        session.home.remove(goal)
        raise


def _in_clone(session: Session, place: tuple[Path, str], make: Callable[..., GoalSpec], goal: str) -> GoalSpec:
    """The goal in a clone of the repository, which is made here."""
    top = clone_for(session, goal, place[0])
    note(f"it works in {top}")
    try:
        return make(goal, (top, place[1])).but(origin=str(place[0]), origin_head=head_of(top))
    except BaseException:
        remove_tree(top.parent)
        raise


def _with_checks(loaded: Loaded, place: tuple[Path, str], session: Session) -> Loaded:
    """Settings that say when the goal is reached: theirs, or in a terminal what the user agrees to."""
    settings = loaded.settings
    if settings.judge_only and "checks" in loaded.sources and loaded.sources["checks"] == "command line":
        raise SpecError("--judge-only and --check exclude each other", hint="leave out one of them")
    if settings.checks or settings.judge_only:
        return loaded
    proposed = projects.proposed_checks(place[0] / place[1], session.environment.get("PATH"))
    if not sys.stdin.isatty() or not sys.stderr.isatty():
        example = proposed[0] if proposed else "python -m pytest -q"
        raise SpecError(
            "no check is given: nothing could say when the goal is achieved",
            hint=f'add -c "{example}" (or --judge-only with a judge, or run goalrun init)',
        )
    chosen = projects.ask_checks(proposed)
    settings = settings.but(checks=tuple(chosen))
    return Loaded(settings, {**loaded.sources, "checks": "asked"})


def _tell_before(session: Session, loaded: Loaded, asked: Asked, spec: GoalSpec) -> None:
    if asked.loud != "quiet":
        _tell_who_works(spec, loaded)
        _tell_what_is_left_out(session, Path(spec.workspace), spec.verification.deps)


def _tell_who_works(spec: GoalSpec, loaded: Loaded) -> None:
    """Before anything is spent: who works, if nobody said so, and what bounds the spend."""
    settings = loaded.settings
    asked = {*(settings.worker or () if spec.flow is None else ()), *(settings.judge or ()), *chain(*settings.judges)}
    there = {agent.name for first in (spec.worker, *spec.judges) for agent in first.chain}
    for name in sorted(asked - {"none"} - there):
        note(f"{name} is not installed: another one that was named stands in")
    if spec.worker.name == PLAIN_COMMAND or spec.flow is not None:
        return
    if settings.worker is None:
        note(f"worker: {spec.worker.name}, the first agent found here; choose with -w, see goalrun agents")
    limits = spec.limits
    if limits.max_usd is None and limits.max_tokens is None and limits.max_time is None:
        note(f"no limit but {limits.max_turns} turns; set one with --max-usd, --max-tokens, --max-time or --max-turns")


def _tell_what_is_left_out(session: Session, workspace: Path, deps: tuple[str, ...]) -> None:
    _, dropped = path_for_checks(session.environment.get("PATH", ""), workspace, deps)
    if deps:
        note(f"checks get {', '.join(deps)} as it is now: what the worker changes there does not count")
    for entry in dropped:
        note(f"checks do not get {entry}: it is in the workspace, where the worker could change it")
