"""The commands that ask something of a goal, whoever runs it: step, pause, stop, hint, restore."""

import time
from pathlib import Path
from typing import Literal

from goalrun.adapters.clock import TICK_SECONDS
from goalrun.adapters.control import FileControl
from goalrun.adapters.home import GOAL_ID
from goalrun.adapters.journal import replay
from goalrun.adapters.views import JOURNAL, OWNER, REACHED, read_result, runner, runs_here
from goalrun.cli.reading import find, turn_commit
from goalrun.cli.render import note, print_json, print_result
from goalrun.cli.running import ANSWER_SECONDS, How, resume
from goalrun.core.events import GoalStopped
from goalrun.core.model import State
from goalrun.errors import EnvironmentFailure, SpecError
from goalrun.wiring.goals import holding, note_idle
from goalrun.wiring.parts import open_store
from goalrun.wiring.session import Session, open_session


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
    result = session.home.result(goal)
    # What it was before does not count while somebody runs it, or is about to.
    now = result["state"] if result["pid"] is None else "running"
    if result["state"] in REACHED:
        raise SpecError(f"goal {goal} is achieved; there is nothing to {verb}")
    if now == wanted.value or _at_rest(now, verb):
        note(f"{goal} is {now} already")
    else:
        _end_running(session, goal, verb, wanted)
        now = read_result(folder)["state"]
        if now in REACHED:
            raise SpecError(f"goal {goal} was achieved before it could {verb}; there is nothing to {verb}")
        if now != wanted.value:
            note(f"{goal} came to an end of its own first")
    result = read_result(folder)
    print_result(result, [f"{result['state']}  {goal}"], as_json=as_json)
    return 0


def _end_running(session: Session, goal: str, verb: Literal["pause", "stop"], wanted: State) -> None:
    folder = session.home.folder(goal)
    control = FileControl(folder)
    until = time.monotonic() + ANSWER_SECONDS
    while time.monotonic() < until:
        now = read_result(folder)
        if now["pid"] is None and (now["state"] in {wanted.value, *REACHED} or _at_rest(now["state"], verb)):
            # Done as asked, or the goal came to an end of its own first.
            return
        # One of another host counts as a runner, but a lock that is free says better.
        if (
            not runs_here(folder)
            and note_idle(session, goal, GoalStopped(state=wanted, detail=f"goalrun {verb}")) is not None
        ):
            return
        if now["pid"] is not None and not control.asked(verb):
            # Again after a resume that began meanwhile and dropped what was asked of the run before it.
            control.ask(verb)
        time.sleep(TICK_SECONDS / 4)
    raise EnvironmentFailure(
        f"goal {goal} (pid {runner(folder)}) does not {verb} within {ANSWER_SECONDS:.0f} s",
        hint=f"look at that process, which {folder / OWNER} names; the request stays in {folder / 'control'}",
    )


def _at_rest(state: str, verb: Literal["pause", "stop"]) -> bool:
    """Whether a goal that no process runs is as good as paused."""
    return verb == "pause" and state not in {"running", "interrupted"}


def hint(name: str, text: str) -> int:
    """Leave a hint for the next turn."""
    session = open_session()
    goal = find(session.home, name)
    if not text.strip() or GOAL_ID.fullmatch(text.strip()):
        raise SpecError("the hint is empty", hint="goalrun hint GOAL TEXT")
    state = session.home.result(goal)["state"]
    if state in REACHED:
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
    with holding(session, goal, Path(state.spec.workspace)):
        store = open_store(folder, state.spec)
        now = store.snapshot("before-restore", last=False)
        known = {record.outcome.snapshot.tree for record in state.turns}
        known |= {found.tree for found in (state.base, state.last_snapshot) if found is not None}
        unsaved = store.unsaved(now.tree, known)
        if unsaved:
            raise SpecError(
                f"the workspace {state.spec.workspace} holds work that is in no snapshot of {goal}: {unsaved[0]}",
                hint="commit or move it away first",
            )
        store.check_out(now.tree, target.tree)
    told = f"restored turn {turn} of {goal}: snapshot {target.commit[:12]}"
    print_result(read_result(folder), [told], as_json=as_json)
    return 0
