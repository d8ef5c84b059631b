"""A goal's run, here or in the background: what `start` ends with, and `resume`."""

import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from goalrun.adapters.clock import TICK_SECONDS
from goalrun.adapters.control import FileControl
from goalrun.adapters.journal import replay
from goalrun.adapters.notify import ASKED_FOR, on_terminal
from goalrun.adapters.views import JOURNAL, last_record, read_result, runner
from goalrun.cli.limits import after_resume, require_room
from goalrun.cli.live import Loudness, shown
from goalrun.cli.progress import LineReporter
from goalrun.cli.reading import find
from goalrun.cli.render import ending, note, out, print_json, print_result
from goalrun.core.model import EXIT_CODES, GoalState, State
from goalrun.core.spec import Limits
from goalrun.errors import (
    EnvironmentFailure,
    GoalrunError,
    Interrupted,
    SpecError,
    UnknownGoal,
    WorkspaceBusy,
)
from goalrun.wiring.goals import hand_over_again, salvage_goal
from goalrun.wiring.running import Running, run_goal, start_detached
from goalrun.wiring.session import Session, open_session, require_outside, require_workspace

ANSWER_SECONDS = 20.0
"""How long another process may take to do what it was asked for, before we say that it does not."""


def loudness(*, quiet: bool, verbose: bool) -> Loudness:
    """How much a run shows of itself.

    Raises:
        SpecError: both less and more are asked for.
    """
    if quiet and verbose:
        raise SpecError("--quiet and --verbose exclude each other", hint="leave out one of them")
    return "quiet" if quiet else "verbose" if verbose else "normal"


class How(NamedTuple):
    """How ``resume`` goes on."""

    hint: str
    no_wait: bool
    detach: bool
    as_json: bool
    one_turn: bool = False
    salvage: bool = False
    loud: Loudness = "normal"


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
    return go(session, goal, resumable(session, goal, changes), how)


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
    lines = (f"{'resumed' if each['resumed'] else 'not resumed'}  {each['id']}" for each in told)
    print_result({"schema": 1, "goals": told}, lines, as_json=as_json)
    if not told:
        note("no goal is interrupted")
    return max(codes)


def go(session: Session, goal: str, limits: Limits | None, how: How) -> int:
    """Run a goal until it ends, here or in the background, and print what became of it."""
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
    print_result(result, ending(result), as_json=as_json)


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
