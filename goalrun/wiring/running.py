"""One run of a goal, from its locks to its end."""

import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple

from goalrun.adapters import git, identity, pool, tools
from goalrun.adapters.clock import SystemClock
from goalrun.adapters.control import FileControl
from goalrun.adapters.files import write_whole
from goalrun.adapters.hooks import hooked
from goalrun.adapters.journal import SqliteJournal, replay
from goalrun.adapters.lock import WorkspaceLock, only_runner
from goalrun.adapters.prepare import BASE_PACK, shelf_of
from goalrun.adapters.process import Detached, spawn_detached
from goalrun.adapters.store import EMPTY_TREE
from goalrun.adapters.views import JOURNAL, WAITING
from goalrun.asking import explained
from goalrun.core.events import GoalStopped, Record, RunStarted
from goalrun.core.model import GoalState, Snapshot, State
from goalrun.core.ports import Reporter
from goalrun.core.spec import GoalSpec, Limits
from goalrun.errors import EnvironmentFailure, Interrupted, SpecError
from goalrun.loop import GoalLoop
from goalrun.wiring.goals import hand_over, reap_goals
from goalrun.wiring.parts import furnish_checks, isolation, open_store, ports_of
from goalrun.wiring.session import Session, require_workspace


class Running(NamedTuple):
    """How to take a goal up.

    Attributes:
        tell: shows a line about what happens before the first turn.
        limits: new limits, or None to keep those that it has.
        wait: queue for the workspace; False fails with ``WorkspaceBusy``.
        one_turn: pause after one turn.
        hint: something for the next turn.
        detached: nobody sits in front of it: a signal means that the machine or the session ends, not the goal.
        journal: opens the goal's journal.
    """

    reporter: Reporter
    tell: Callable[[str], None]
    limits: Limits | None = None
    wait: bool = True
    one_turn: bool = False
    hint: str = ""
    detached: bool = False
    journal: Callable[[Path, SystemClock], SqliteJournal] = SqliteJournal


class SilentReporter:
    """For where nobody looks; see ``core.ports.Reporter``."""

    def show(self, record: Record, state: GoalState) -> None:
        """Nothing."""


def run_goal(session: Session, goal: str, how: Running) -> GoalState:
    """Run a goal in this process until it ends.

    Raises:
        WorkspaceBusy: it runs already, or its workspace is held and ``how.wait`` is False.
        EnvironmentFailure: not even its end could be recorded.
    """
    folder = session.home.folder(goal)
    with only_runner(folder) as runner:
        git.mark(goal)
        control = FileControl(folder)
        control.clear()
        if how.hint:
            control.hint(how.hint)
        if how.one_turn:
            control.ask("step")
        # Only now others see a runner that they can ask: what they ask is not cleared with what was there before.
        runner.announce()
        state = replay(folder / JOURNAL)
        if state.status in {State.ACHIEVED, State.DONE}:
            raise SpecError(f"goal {goal} is {state.status.value}; there is nothing to resume", hint="start a new goal")
        with control.signals("leave" if how.detached else "pause"):
            spec = state.spec
            with hooked(how.reporter, folder, spec, session.environment) as reporter:
                state = _hold_and_run(session, folder, state, control, how._replace(reporter=reporter))
        if state.spec.origin:
            how.tell(hand_over(folder, state))
        return state


def _hold_and_run(session: Session, folder: Path, state: GoalState, control: FileControl, how: Running) -> GoalState:
    spec = state.spec
    workspace = Path(spec.workspace)
    require_workspace(workspace)
    clock = SystemClock(control.check)
    lock = WorkspaceLock(session.home.path, workspace, spec.id)
    journal = how.journal(folder / JOURNAL, clock)
    try:
        dead = lock.acquire(wait=how.wait, poll=control.check, on_wait=partial(_tell_wait, folder, how))
        (folder / WAITING).unlink(missing_ok=True)
        if not lock.kernel:
            how.tell("note: the state folder's file system has no kernel locks; owner records are used (docs/state.md)")
        reap_goals(session, {*dead, spec.id})
        lock.forget_dead()
        # Its running time begins now: waiting for the workspace is not running.
        journal.close()
        journal = how.journal(folder / JOURNAL, clock)
        begun = RunStarted(runner=identity.myself(), limits=how.limits, worker_isolation=isolation(state.spec))
        record, state = journal.append(begun, state)
        how.reporter.show(record, state)
        _furnish(session, folder, state, how.tell, control.check)
        ports = ports_of(session, folder, state, journal, control, how.reporter, clock)
        return GoalLoop(state, ports).run()
    except (EnvironmentFailure, OSError) as failure:
        # Before the loop, which records its own failures, could begin.
        return journal.append(GoalStopped(state=State.ERROR, detail=explained(failure)), state)[1]
    except Interrupted as asked:
        # Asked to end while it was waiting for the workspace; the loop handles what comes later.
        if asked.verb == "leave":
            return state
        ended = State.STOPPED if asked.verb == "stop" else State.PAUSED
        return journal.append(GoalStopped(state=ended, detail=str(asked)), state)[1]
    finally:
        with suppress(OSError):
            (folder / WAITING).unlink(missing_ok=True)
        _tidy(session, folder, spec)
        lock.release()
        journal.close()


def _tell_wait(folder: Path, how: Running, message: str) -> None:
    write_whole(folder / WAITING, message)
    how.tell(f"queued: {message}")


def _furnish(
    session: Session, folder: Path, state: GoalState, tell: Callable[[str], None], poll: Callable[[], None]
) -> None:
    """Make what a goal needs before its first turn, and clear what a killed run left half done."""
    pool.clear(folder)
    store = open_store(folder, state.spec)
    if state.base is None:
        store.create()
        store.fill(_shelf(session, state.spec), tell, poll)
    else:
        last = state.last_snapshot or state.base
        store.require(state.base, last)
        _require_files(Path(state.spec.workspace), last)
    if state.spec.flow is not None:
        # Before any step runs: what checks of a later one find by name.
        tools.note(folder, state.spec.verification.path, Path(state.spec.workspace))
    furnish_checks(
        session,
        folder,
        state.spec,
        lambda: state.base.tree if state.base is not None else store.snapshot("prepare", last=False).tree,
        tell,
        poll,
    )


def _tidy(session: Session, folder: Path, spec: GoalSpec) -> None:
    """Remove the worktrees that were kept for the next turn, and keep the base for the next goal."""
    # What cannot be done now, the next run does.
    with suppress(EnvironmentFailure, OSError):
        pool.clear(folder)
        open_store(folder, spec).keep(_shelf(session, spec))


def _shelf(session: Session, spec: GoalSpec) -> Path:
    return shelf_of(session.home.path, spec.workspace) / BASE_PACK


def _require_files(workspace: Path, last: Snapshot) -> None:
    """Refuse an empty folder in the place of a workspace that had files: it may not be mounted."""
    if last.tree != EMPTY_TREE and not any(workspace.iterdir()):
        raise EnvironmentFailure(
            f"the workspace {workspace} is empty, and its last snapshot is not",
            hint="mount it or bring it back, then goalrun resume; goalrun restore --turn N (0: the base) fills it",
        )


def start_detached(session: Session, goal: str, options: list[str]) -> Detached:
    """Run a goal in a process of its own, which outlives this one."""
    folder = session.home.folder(goal)
    # -P: the workspace, which is the current folder, must not be able to offer modules.
    argv = [sys.executable, "-P", "-m", "goalrun", "run-detached", goal, *options]
    return spawn_detached(argv, session.environment, folder / "runner.log")
