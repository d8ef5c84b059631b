"""A goal from outside of its run: made, held, answered, delivered."""

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from goalrun.adapters import clones, git, identity
from goalrun.adapters.clock import SystemClock, utc_now
from goalrun.adapters.files import remove_tree
from goalrun.adapters.journal import SqliteJournal, replay, salvage
from goalrun.adapters.lock import RunLock, WorkspaceLock, held, only_runner
from goalrun.adapters.points import reached
from goalrun.adapters.store import GitStore
from goalrun.adapters.verifier import HIDDEN
from goalrun.adapters.views import JOURNAL, RUN_LOCK
from goalrun.core.events import Answered, FlowReplaced, GoalCreated, GoalStopped
from goalrun.core.model import GoalState, State
from goalrun.core.protection import Protection
from goalrun.core.spec import GoalSpec, VerificationSpec
from goalrun.errors import EnvironmentFailure, GitFailed
from goalrun.wiring.parts import open_store
from goalrun.wiring.session import Session


def create_goal(
    session: Session,
    workspace: Path,
    make_spec: Callable[[str], GoalSpec],
    hidden: Path | None = None,
    letter: str = "g",
) -> str:
    """Write a goal's first record, and take a copy of the files for its hidden checks; nothing runs yet."""
    goal = session.home.new_goal(utc_now(), workspace, letter)
    folder = session.home.unfinished(goal)
    try:
        with held(folder / RUN_LOCK, lambda: None):
            journal = SqliteJournal(folder / JOURNAL, SystemClock(lambda: None))
            if hidden is not None:
                shutil.copytree(hidden, folder / HIDDEN, symlinks=True)
            journal.append(GoalCreated(spec=make_spec(goal)), None)
            journal.close()
            session.home.appear(goal)
        reached("goal made")
    except BaseException:
        with suppress(EnvironmentFailure):
            remove_tree(folder)
        raise
    return goal


def clone_for(session: Session, goal: str, repository: Path) -> Path:
    """A clone of the user's repository, for one goal to work in.

    Raises:
        EnvironmentFailure: it cannot be made.
    """
    top = clones.clones_of(session.home.path) / goal / repository.name
    with tempfile.TemporaryDirectory(dir=session.home.unfinished(goal)) as scratch:
        # Its base is taken as the goal's is, and nothing is protected from being copied.
        store = GitStore(
            Path(scratch), repository, lambda files: Protection(spec=VerificationSpec(), checks=(), base_files=files)
        )
        clones.clone(repository, store, top)
    return top


def hand_over(folder: Path, state: GoalState) -> str:
    """What becomes of a goal's clone: its result as a branch in the user's repository, else kept; in one line.

    Raises:
        GitFailed: the branch could not be made; the clone is kept, and this can be done again.
    """
    spec = state.spec
    if state.status is not State.ACHIEVED:
        return f"the worktree is kept: {spec.workspace}"
    if not state.turns:
        told = "there is nothing to deliver, so no branch was made"
    else:
        branch = f"goalrun/{spec.id}"
        tree = state.turns[-1].outcome.snapshot.tree
        try:
            clones.deliver(open_store(folder, spec), tree, Path(spec.origin), spec.origin_head, branch)
        except GitFailed as failure:
            hint = f"the files are in {spec.workspace}; make room for it, then goalrun resume {spec.id}"
            raise GitFailed(str(failure), hint=hint) from failure
        told = f"the result is the branch {branch} of {spec.origin}"
    remove_tree(Path(spec.workspace).parent)
    return told


def hand_over_again(session: Session, goal: str) -> str:
    """The same for a goal that was achieved, and whose result did not reach the user; "" where that is not so."""
    folder = session.home.folder(goal)
    with only_runner(folder):
        state = replay(folder / JOURNAL)
        left = state.status is State.ACHIEVED and state.spec.origin and Path(state.spec.workspace).exists()
        return hand_over(folder, state) if left else ""


@contextmanager
def holding(session: Session, goal: str, workspace: Path) -> Iterator[None]:
    """A goal and its workspace, held by this command, with nothing of a dead run left in either.

    Raises:
        WorkspaceBusy: one of them is in use.
    """
    with only_runner(session.home.folder(goal)):
        git.mark(goal)
        lock = WorkspaceLock(session.home.path, workspace, goal)
        try:
            reap_goals(session, {*lock.acquire(wait=False, poll=lambda: None, on_wait=lambda _: None), goal})
            lock.forget_dead()
            yield
        finally:
            lock.release()


def salvage_goal(session: Session, goal: str) -> str:
    """Go back to the good records of a goal's journal; see ``journal.salvage``."""
    folder = session.home.folder(goal)
    with only_runner(folder):
        return salvage(folder / JOURNAL, SystemClock(lambda: None))


def note_idle(session: Session, goal: str, event: GoalStopped | Answered | FlowReplaced) -> GoalState | None:
    """Record something of a goal that no process runs; None if one does after all."""
    folder = session.home.folder(goal)
    lock = RunLock(folder)
    if lock.acquire():
        return None
    try:
        before = replay(folder / JOURNAL)
        going = before.status in {State.RUNNING, State.RATE_LIMITED}
        asked = event.state if isinstance(event, GoalStopped) else None
        over = before.status in {State.ACHIEVED, State.DONE}
        if asked is not None and (over or (asked is State.PAUSED and not going)):
            # It has come to an end of its own meanwhile.
            return before
        reap_goals(session, {goal})
        journal = SqliteJournal(folder / JOURNAL, SystemClock(lambda: None))
        try:
            return journal.append(event, before)[1]
        finally:
            journal.close()
    finally:
        lock.release()


def reap_goals(session: Session, goals: set[str]) -> None:
    """Kill what dead runs of these goals left, before anything looks at the workspace."""
    for goal in goals:
        path = session.home.folder(goal) / JOURNAL
        identity.reap(replay(path).processes if path.exists() else (), goal)
