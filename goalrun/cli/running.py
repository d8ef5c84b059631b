"""The commands that run goals, or that act on running ones."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

from goalrun.adapters.agents.call import PLAIN_COMMAND
from goalrun.adapters.clock import TICK_SECONDS
from goalrun.adapters.control import FileControl
from goalrun.adapters.home import GOAL_ID
from goalrun.adapters.journal import replay
from goalrun.adapters.lock import RunLock, WorkspaceLock
from goalrun.adapters.sandbox import choose
from goalrun.adapters.views import JOURNAL, last_record, read_result, runner
from goalrun.cli import projects
from goalrun.cli.flow_spec import FlowAsked, flow_use
from goalrun.cli.goal_files import read_goal_file
from goalrun.cli.limits import after_resume, require_room
from goalrun.cli.progress import LineReporter
from goalrun.cli.reading import find, turn_commit
from goalrun.cli.render import ending, note, out, print_json
from goalrun.cli.spec import hidden_files, make_spec, objective_of
from goalrun.core.events import GoalStopped
from goalrun.core.model import EXIT_CODES, State
from goalrun.core.spec import GoalSpec, Limits
from goalrun.errors import EnvironmentFailure, SettingsError, SpecError, WorkspaceBusy
from goalrun.settings import Loaded, load
from goalrun.wiring import (
    Running,
    Session,
    create_goal,
    note_idle,
    open_session,
    open_store,
    require_outside,
    run_goal,
    start_detached,
    workspace_here,
)

TOP_LEVEL = (
    "worker", "worker_cmd", "judges", "judge_cmd", "judge_only", "wait_quota", "worker_isolation",
    "hidden_checks", "hidden_files",
)  # fmt: skip
VERIFICATION = (
    "protect", "may_change", "pass_env", "protected_edits", "deps", "sandbox", "require_sandbox", "network", "baseline",
    "require_strong", "prepare",
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


class How(NamedTuple):
    """How ``resume`` goes on."""

    hint: str
    no_wait: bool
    detach: bool
    as_json: bool
    one_turn: bool = False


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
    given = _override(asked.flags)
    if goal_file is not None and asked.flow is None:
        loaded, flow_of_file = read_goal_file(goal_file, place[0], given)
        asked = asked._replace(flow=flow_of_file)
    else:
        loaded = load(place[0], goal_file, given)
    objective = objective_of(asked.objective, asked.file, loaded.settings.objective)
    alone = asked.flow is not None and asked.flow.alone
    if not alone:
        loaded = projects.with_limit(_with_checks(loaded, place, session), session.home)
    flow = flow_use(asked.flow, objective, loaded.settings, session) if asked.flow is not None else None
    make = partial(make_spec, place=place, settings=loaded.settings, session=session, force=asked.force, flow=flow)

    # What cannot be isolated as asked is refused before anything exists.
    spec = make("g-unnamed", objective)
    choose(spec, session.home.path)
    _tell_who_works(spec, loaded)
    _tell_what_is_left_out(session, place[0], spec.verification.deps)
    goal = create_goal(
        session,
        lambda goal: make(goal, objective),
        None if alone else hidden_files(loaded.settings, place[0]),
        "f" if alone else "g",
    )
    try:
        return _go(session, goal, None, How("", asked.no_wait, asked.detach, asked.as_json))
    except WorkspaceBusy:
        # With --no-wait a busy workspace means that nothing was started.
        session.home.remove(goal)
        raise


def _override(given: dict[str, Any]) -> dict[str, Any]:
    """A flag that names one of some alternatives takes back the others that a file may name."""
    both = dict(given)
    for rivals in (("worker", "worker_cmd"), ("judge", "judges", "judge_cmd")):
        if any(name in given for name in rivals):
            both |= {name: () if name == "judges" else None for name in rivals if name not in given}
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
    settings = type(settings)(**{**dict(settings), "checks": tuple(chosen)})
    return Loaded(settings, {**loaded.sources, "checks": "asked"})


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
    folder = session.home.folder(goal)
    state = replay(folder / JOURNAL)
    if state.status in {State.ACHIEVED, State.DONE}:
        raise SpecError(f"{goal} is {state.status.value}; there is nothing to resume", hint="start a new one")
    require_outside(Path(state.spec.workspace), session.home)
    limits = after_resume(state, changes)
    require_room(state, limits or state.spec.limits)
    return _go(session, goal, limits, how)


def _go(session: Session, goal: str, limits: Limits | None, how: How) -> int:
    if how.detach:
        return _detach(session, goal, limits, how)
    state = run_goal(
        session,
        goal,
        Running(
            reporter=LineReporter(),
            tell=note,
            limits=limits,
            wait=not how.no_wait,
            one_turn=how.one_turn,
            hint=how.hint,
        ),
    )
    if state.spec.alone:
        from goalrun.cli.wrapping import print_flow

        print_flow(session, goal, as_json=how.as_json)
    else:
        _print_result(session.home.folder(goal), as_json=how.as_json)
    return EXIT_CODES[state.status]


def _print_result(folder: Path, *, as_json: bool) -> None:
    result = read_result(folder)
    if result["state"] != "running":
        # This process is about to end.
        result["pid"] = None
    if as_json:
        print_json(result)
    else:
        for line in ending(result):
            out(line)


def _detach(session: Session, goal: str, limits: Limits | None, how: How) -> int:
    """Run in the background; returns when the goal's own process has taken over."""
    folder = session.home.folder(goal)
    control = FileControl(folder)
    if how.hint:
        control.hint(how.hint)
    arguments = [] if limits is None else ["--limits", limits.model_dump_json()]
    log = folder / "runner.log"
    before = last_record(folder)
    exit_status = start_detached(session, goal, [*arguments, *(["--no-wait"] if how.no_wait else [])])
    end = time.monotonic() + ANSWER_SECONDS
    # One that may not wait is sure of its workspace only once it has recorded its run.
    while (last_record(folder) == before if how.no_wait else runner(folder) is None) and time.monotonic() < end:
        code = exit_status()
        ended = code is not None
        if code == WorkspaceBusy.exit_code:
            raise WorkspaceBusy(_last_line(log).removeprefix("goalrun: "), hint="wait for it, or leave out --no-wait")
        if ended and read_result(folder)["state"] == "interrupted":
            raise EnvironmentFailure(f"the background process ended at once: {_last_line(log)}", hint=f"see {log}")
        if ended:
            break
        time.sleep(TICK_SECONDS / 4)
    if how.as_json:
        from goalrun.cli.wrapping import shown

        print_json(shown(session, goal))
    else:
        out(goal)
        note(f"  goalrun logs --follow {goal}; goalrun stop {goal}")
    return 0


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
        ),
    )
    return EXIT_CODES[state.status]


def step(name: str, *, as_json: bool) -> int:
    """One turn, then pause."""
    session = open_session()
    goal = find(session.home, name)
    folder = session.home.folder(goal)
    if runner(folder) is not None:
        FileControl(folder).ask("step")
        note(f"{goal} pauses after this turn")
        if as_json:
            print_json(read_result(folder))
        return 0
    return resume(goal, {}, How("", no_wait=False, detach=False, as_json=as_json, one_turn=True))


def end(name: str, verb: Literal["pause", "stop"], *, as_json: bool) -> int:
    """Pause or stop a goal, and wait until it is done."""
    session = open_session()
    goal = find(session.home, name)
    folder = session.home.folder(goal)
    wanted = State.STOPPED if verb == "stop" else State.PAUSED
    now = read_result(folder)["state"]
    if now == "achieved":
        raise SpecError(f"goal {goal} is achieved; there is nothing to {verb}")
    if now == wanted.value or (verb == "pause" and now not in {"running", "interrupted"}):
        note(f"{goal} is {now} already")
    else:
        _end_running(session, goal, verb, wanted)
    if as_json:
        print_json(read_result(folder))
    else:
        out(f"{read_result(folder)['state']}  {goal}")
    return 0


def _end_running(session: Session, goal: str, verb: Literal["pause", "stop"], wanted: State) -> None:
    folder = session.home.folder(goal)
    control = FileControl(folder)
    until = time.monotonic() + ANSWER_SECONDS
    while time.monotonic() < until:
        now = read_result(folder)["state"]
        if runner(folder) is not None:
            if not control.asked(verb):
                # Also after a resume that began meanwhile and dropped what was asked of the run before it.
                control.ask(verb)
        elif now == wanted.value or (verb == "pause" and now != "interrupted") or now == "achieved":
            # Done as asked, or the goal came to an end of its own first.
            control.clear()
            return
        elif note_idle(session, goal, GoalStopped(state=wanted, detail=f"goalrun {verb}")) is not None:
            control.clear()
            return
        time.sleep(TICK_SECONDS / 4)
    raise EnvironmentFailure(
        f"goal {goal} (pid {runner(folder)}) does not {verb} within {ANSWER_SECONDS:.0f} s",
        hint=f"look at that process; the request stays in {folder / 'control'}",
    )


def hint(name: str, text: str) -> int:
    """Leave a hint for the next turn."""
    session = open_session()
    goal = find(session.home, name)
    if not text.strip() or GOAL_ID.fullmatch(text.strip()):
        raise SpecError("the hint is empty", hint="goalrun hint GOAL TEXT")
    state = session.home.result(goal)["state"]
    if state == "achieved":
        raise SpecError(f"goal {goal} is achieved; nobody would read the hint")
    FileControl(session.home.folder(goal)).hint(text)
    note(f"{goal}: the next turn will read it" + ("" if state == "running" else f"; goalrun resume {goal}"))
    return 0


def restore(name: str, turn: str, *, as_json: bool) -> int:
    """Put a turn's files into the workspace."""
    session = open_session()
    goal = find(session.home, name)
    folder = session.home.folder(goal)
    state = replay(folder / JOURNAL)
    target = turn_commit(state, turn)
    with _held(session, goal, folder, Path(state.spec.workspace)):
        store = open_store(folder, state.spec)
        now = store.snapshot("before-restore", last=False)
        known = {record.outcome.snapshot.tree for record in state.turns}
        known |= {found.tree for found in (state.base, state.last_snapshot) if found is not None}
        if now.tree not in known:
            raise SpecError(
                f"the workspace {state.spec.workspace} holds work that is in no snapshot of {goal}",
                hint="commit or move it away first",
            )
        store.check_out(now.tree, target.tree)
    if as_json:
        print_json(read_result(folder))
    else:
        out(f"restored turn {turn} of {goal}: snapshot {target.commit[:12]}")
    return 0


@contextmanager
def _held(session: Session, goal: str, folder: Path, workspace: Path) -> Iterator[None]:
    """A goal and its workspace, held by this command."""
    run = RunLock(folder)
    if not run.acquire():
        raise WorkspaceBusy(f"goal {goal} is running", hint=f"goalrun pause {goal} first")
    lock = WorkspaceLock(session.home.path, workspace, goal)
    try:
        lock.acquire(wait=False, poll=lambda: None, on_wait=lambda _: None)
        yield
    finally:
        lock.release()
        run.release()
