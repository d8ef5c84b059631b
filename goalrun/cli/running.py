"""The commands that run goals, or that act on running ones."""

import sys
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from goalrun.adapters.agents.call import PLAIN_COMMAND
from goalrun.adapters.clock import TICK_SECONDS
from goalrun.adapters.clones import head_of
from goalrun.adapters.control import FileControl
from goalrun.adapters.files import remove_tree
from goalrun.adapters.journal import replay
from goalrun.adapters.notify import ASKED_FOR, on_terminal
from goalrun.adapters.sandbox import choose
from goalrun.adapters.views import JOURNAL, last_record, read_result, runner
from goalrun.cli import projects
from goalrun.cli.flow_spec import FlowAsked, flow_use, group_use
from goalrun.cli.goal_files import read_goal_file
from goalrun.cli.limits import after_resume, require_room
from goalrun.cli.live import Loudness, shown
from goalrun.cli.progress import LineReporter
from goalrun.cli.reading import find
from goalrun.cli.render import ending, note, out, print_json
from goalrun.cli.spec import hidden_files, make_spec, objective_of
from goalrun.core.model import EXIT_CODES, GoalState, State
from goalrun.core.spec import GoalSpec, Limits
from goalrun.errors import (
    EnvironmentFailure,
    GoalrunError,
    Interrupted,
    SettingsError,
    SpecError,
    UnknownGoal,
    WorkspaceBusy,
)
from goalrun.settings import Loaded, load
from goalrun.wiring.goals import clone_for, create_goal, hand_over_again, salvage_goal
from goalrun.wiring.running import Running, run_goal, start_detached
from goalrun.wiring.session import Session, open_session, require_outside, require_workspace, workspace_here

TOP_LEVEL = (
    "worker", "workers", "strategy", "worker_cmd", "judges", "judge_cmd", "judge_only", "wait_quota",
    "worker_isolation", "hidden_checks", "hidden_files",
)  # fmt: skip
VERIFICATION = (
    "protect", "may_change", "pass_env", "protected_edits", "deps", "sandbox", "require_sandbox", "network", "baseline",
    "require_strong", "prepare", "jobs",
)  # fmt: skip
ANSWER_SECONDS = 20.0
"""How long another process may take to do what it was asked for, before we say that it does not."""


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


class How(NamedTuple):
    """How ``resume`` goes on."""

    hint: str
    no_wait: bool
    detach: bool
    as_json: bool
    one_turn: bool = False
    salvage: bool = False
    loud: Loudness = "normal"


def flags(**given: Any) -> dict[str, Any]:  # noqa: ANN401 - options of several types
    """Options as a configuration file would say them; what was not given is left out."""
    limits = (
        "max_turns", "max_tokens", "max_usd", "max_time", "turn_timeout", "check_timeout", "stuck_after",
        "allow_unknown_spend",
    )  # fmt: skip
    data: dict[str, Any] = {key: given.get(key) for key in TOP_LEVEL}
    data["checks"] = given.get("checks")
    data["limits"] = _given({key: given.get(key) for key in limits})
    verification = {key: given.get(key) for key in VERIFICATION}
    if given.get("verify_in") is not None:
        if given["verify_in"] not in {"worktree", "live"}:
            raise SettingsError(f"--verify-in {given['verify_in']!r}: it is worktree or live")
        verification["worktree"] = given["verify_in"] == "worktree"
    data["verification"] = _given(verification)
    return _given(data)


def _given(data: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in data.items() if value is not None and value != {}}


def start(asked: Asked) -> int:
    """Make a goal and run it."""
    session = open_session()
    place = workspace_here()
    require_outside(place[0], session.home)
    goal_file = asked.file if asked.file is not None and asked.file.suffix == ".toml" else None
    given = override(asked.flags)
    if goal_file is not None and asked.flow is None:
        loaded, flow_of_file = read_goal_file(goal_file, place[0], given)
        asked = asked._replace(flow=flow_of_file)
    else:
        loaded = load(place[0], goal_file, given)
    objective = objective_of(asked.objective, asked.file, loaded.settings.objective)
    alone = asked.flow is not None and asked.flow.alone
    if not alone:
        loaded = projects.with_limit(_with_checks(loaded, place, session), session.home)
    settings = loaded.settings
    several = group_use(settings, session) if asked.flow is None else None
    flow = several if asked.flow is None else flow_use(asked.flow, objective, settings, session)
    make = partial(make_spec, place=place, settings=loaded.settings, session=session, force=asked.force, flow=flow)

    # What cannot be isolated as asked is refused before anything exists.
    spec = make("g-unnamed", objective)
    choose(spec, session.home.path)
    _tell_before(session, spec, loaded, asked)
    if asked.worktree:
        head_of(place[0])

    hidden = None if alone else hidden_files(loaded.settings, place[0])
    create = partial(_in_clone, session, place, make) if asked.worktree else make
    goal = create_goal(session, place[0], lambda goal: create(goal, objective), hidden, "f" if alone else "g")
    try:
        return _go(session, goal, None, How("", asked.no_wait, asked.detach, asked.as_json, loud=asked.loud))
    except WorkspaceBusy:
        # With --no-wait a busy workspace means that nothing was started; unless somebody has resumed it already.
        session.home.remove(goal)
        raise


def _in_clone(
    session: Session, place: tuple[Path, str], make: Callable[..., GoalSpec], goal: str, objective: str
) -> GoalSpec:
    """The goal in a clone of the repository, which is made here."""
    top = clone_for(session, goal, place[0])
    note(f"it works in {top}")
    try:
        there = make(goal, objective, place=(top, place[1]))
        return there.but(origin=str(place[0]), origin_head=head_of(top))
    except BaseException:
        remove_tree(top.parent)
        raise


def override(given: dict[str, Any]) -> dict[str, Any]:
    """A flag that names one of some alternatives takes back the others that a file may name."""
    both = dict(given)
    for rivals in (("worker", "workers", "worker_cmd"), ("judge", "judges", "judge_cmd")):
        if any(name in given for name in rivals):
            both |= {name: () if name in {"judges", "workers"} else None for name in rivals if name not in given}
    if "worker" in given or "worker_cmd" in given:
        both.setdefault("strategy", None)
    return both


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


def _tell_before(session: Session, spec: GoalSpec, loaded: Loaded, asked: Asked) -> None:
    if asked.loud != "quiet":
        _tell_who_works(spec, loaded)
        _tell_what_is_left_out(session, Path(spec.workspace), spec.verification.deps)


def _tell_who_works(spec: GoalSpec, loaded: Loaded) -> None:
    """Before anything is spent: who works, if nobody said so, and what bounds the spend."""
    if spec.worker.name == PLAIN_COMMAND or spec.flow is not None:
        return
    if loaded.settings.worker is None:
        note(f"worker: {spec.worker.name}, the first agent found here; choose with -w, see goalrun agents")
    limits = spec.limits
    if limits.max_usd is None and limits.max_tokens is None and limits.max_time is None:
        note(f"no limit but {limits.max_turns} turns; set one with --max-usd, --max-tokens, --max-time or --max-turns")


def _tell_what_is_left_out(session: Session, workspace: Path, deps: tuple[str, ...]) -> None:
    from goalrun.adapters.environment import path_for_checks

    _, dropped = path_for_checks(session.environment.get("PATH", ""), workspace, deps)
    if deps:
        note(f"checks get {', '.join(deps)} as it is now: what the worker changes there does not count")
    for entry in dropped:
        note(f"checks do not get {entry}: it is in the workspace, where the worker could change it")


def resume(name: str, changes: dict[str, str], how: How) -> int:
    """Go on with a goal."""
    session = open_session()
    goal = find(session.home, name)
    if how.salvage:
        note(f"{goal}: {salvage_goal(session, goal) or 'the journal is sound: nothing to salvage'}")
    if told := hand_over_again(session, goal):
        # It was cut, or refused, after the goal was achieved.
        out(told)
        return 0
    return _go(session, goal, resumable(session, goal, changes), how)


def resumable(session: Session, goal: str, changes: dict[str, str]) -> Limits | None:
    """The limits to go on with, None for those that it has; refuses what could not go on."""
    state = replay(session.home.folder(goal) / JOURNAL)
    if state.status in {State.ACHIEVED, State.DONE}:
        raise SpecError(f"goal {goal} is {state.status.value}; there is nothing to resume", hint="start a new one")
    require_outside(Path(state.spec.workspace), session.home)
    require_workspace(Path(state.spec.workspace))
    limits = after_resume(state, changes)
    require_room(state, limits or state.spec.limits)
    return limits


def resume_all(*, as_json: bool) -> int:
    """Go on, in the background, with every goal whose process is gone; the worst exit code of any."""
    session = open_session()
    told: list[dict[str, Any]] = []
    codes = [0]
    # The oldest first: those of one workspace get it in the order in which they were made.
    results = session.home.results(session.home.ids(), turns=False)
    for goal in [str(each["id"]) for each in results if each["state"] == "interrupted"][::-1]:
        try:
            limits = resumable(session, goal, {})
            _spawn(session, goal, limits, How("", no_wait=False, detach=True, as_json=as_json))
            told.append({"id": goal, "resumed": True, "detail": ""})
        except GoalrunError as failure:
            told.append({"id": goal, "resumed": False, "detail": str(failure)})
            codes.append(failure.exit_code)
            note(f"goalrun: {goal}: {failure}" + (f"\n  try: {failure.hint}" if failure.hint else ""))
    if as_json:
        print_json({"schema": 1, "goals": told})
    for each in [] if as_json else told:
        out(f"{'resumed' if each['resumed'] else 'not resumed'}  {each['id']}")
    if not told:
        note("no goal is interrupted")
    return max(codes)


def _go(session: Session, goal: str, limits: Limits | None, how: How) -> int:
    if how.detach:
        return _detach(session, goal, limits, how)
    with shown(session.home, goal, how.loud) as (reporter, tell):
        state = run_goal(
            session,
            goal,
            Running(
                reporter=reporter,
                tell=tell,
                limits=limits,
                wait=not how.no_wait,
                one_turn=how.one_turn,
                hint=how.hint,
            ),
        )
    _ring(state)
    if state.spec.alone:
        from goalrun.cli.wrapping import print_flow

        print_flow(session, goal, as_json=how.as_json)
    else:
        _print_result(session.home.folder(goal), as_json=how.as_json)
    return EXIT_CODES[state.status]


def _ring(state: GoalState) -> None:
    if state.spec.notify.terminal and state.status not in ASKED_FOR and sys.stderr.isatty():
        with suppress(OSError):
            sys.stderr.write(on_terminal(state))


def _print_result(folder: Path, *, as_json: bool) -> None:
    try:
        result = read_result(folder)
    except UnknownGoal as failure:
        raise EnvironmentFailure(
            f"the goal has ended, but its folder is gone: {folder}", hint="bring it back"
        ) from failure
    if result["state"] != "running":
        # This process is about to end.
        result["pid"] = None
    if as_json:
        print_json(result)
    else:
        for line in ending(result):
            out(line)


def _detach(session: Session, goal: str, limits: Limits | None, how: How) -> int:
    _spawn(session, goal, limits, how)
    if how.as_json:
        from goalrun.cli.wrapping import shown

        print_json(shown(session, goal))
    else:
        out(goal)
        note(f"  goalrun watch {goal}; goalrun logs --follow {goal}; goalrun stop {goal}")
    return 0


def _spawn(session: Session, goal: str, limits: Limits | None, how: How) -> None:
    """Run in the background; returns when the goal's own process has taken over, or has ended well.

    Raises:
        WorkspaceBusy: another process runs the goal, or has the workspace and ``how.no_wait`` is set.
        EnvironmentFailure: the process ended at once.
    """
    folder = session.home.folder(goal)
    control = FileControl(folder)
    if how.hint:
        control.hint(how.hint)
    arguments = [] if limits is None else ["--limits", limits.model_dump_json()]
    log = folder / "runner.log"
    before = last_record(folder)
    process = start_detached(session, goal, [*arguments, *(["--no-wait"] if how.no_wait else [])])
    end = time.monotonic() + ANSWER_SECONDS
    # One that may not wait is sure of its workspace only once it has recorded its run.
    while time.monotonic() < end:
        code = process.ended()
        ended = code is not None
        if not ended and runner(folder) == process.pid and not (how.no_wait and last_record(folder) == before):
            return
        if code == WorkspaceBusy.exit_code:
            hint = "wait for it, or leave out --no-wait" if how.no_wait else f"goalrun status {goal}"
            raise WorkspaceBusy(_last_line(log).removeprefix("goalrun: "), hint=hint)
        if ended and read_result(folder)["state"] == "interrupted":
            raise EnvironmentFailure(f"the background process ended at once: {_last_line(log)}", hint=f"see {log}")
        if ended:
            return
        time.sleep(TICK_SECONDS / 4)
    raise EnvironmentFailure(
        f"the background process (pid {process.pid}) of goal {goal} has not begun within {ANSWER_SECONDS:.0f} s",
        hint=f"it may still do so: goalrun status {goal}; see {log}",
    )


def _last_line(log: Path) -> str:
    """What the background process complained about: the first line of its last complaint."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.exists() else []
    return next((line for line in reversed(lines) if line.startswith("goalrun: ")), lines[-1] if lines else "no word")


def run_detached(goal: str, limits: str, *, no_wait: bool) -> int:
    """The background process itself."""
    session = open_session()
    state = run_goal(
        session,
        find(session.home, goal),
        Running(
            reporter=LineReporter(),
            tell=note,
            limits=Limits.model_validate_json(limits) if limits else None,
            wait=not no_wait,
            detached=True,
        ),
    )
    return EXIT_CODES.get(state.status, Interrupted.exit_code)
