"""The composition root: which adapters a goal gets. The only place that picks classes."""

import os
import secrets
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

from goalrun.adapters import crates, git, identity
from goalrun.adapters.agents.call import Means
from goalrun.adapters.checks import CheckRunner
from goalrun.adapters.clock import SystemClock, utc_now
from goalrun.adapters.control import FileControl
from goalrun.adapters.deps import PREPARED, freeze, index
from goalrun.adapters.deps import load as load_deps
from goalrun.adapters.desk import StoreDesk
from goalrun.adapters.files import remove_tree, write_whole
from goalrun.adapters.home import Home, home_folder
from goalrun.adapters.hooks import Hooks
from goalrun.adapters.isolation import probe as probe_isolation
from goalrun.adapters.journal import SqliteJournal, replay
from goalrun.adapters.judge import AgentJudge
from goalrun.adapters.lock import RunLock, WorkspaceLock
from goalrun.adapters.prepare import Preparation, shelf_of
from goalrun.adapters.process import spawn_detached
from goalrun.adapters.sandbox import ProcessSandbox, choose
from goalrun.adapters.shelf import FileShelf
from goalrun.adapters.slots import Slots
from goalrun.adapters.store import GitStore, find_workspace
from goalrun.adapters.verifier import HIDDEN, WorktreeVerifier
from goalrun.adapters.views import JOURNAL, WAITING
from goalrun.adapters.worker import AgentWorker
from goalrun.asking import explained
from goalrun.core.events import Answered, FlowReplaced, GoalCreated, GoalStopped, RunStarted
from goalrun.core.evidence import redact, secrets_of
from goalrun.core.model import GoalState, State
from goalrun.core.ports import Reporter, Worker
from goalrun.core.protection import Protection
from goalrun.core.spec import AgentSpec, GoalSpec, Limits, VerificationSpec
from goalrun.errors import EnvironmentFailure, Interrupted, SpecError, WorkspaceBusy
from goalrun.flows.ports import FlowPorts
from goalrun.flows.worker import FlowWorker
from goalrun.loop import GoalLoop, Ports

TOKEN_BYTES = 9
NAMESPACES = "namespaces"


class Session(NamedTuple):
    """What a command has in hand: the state folder, and the user's environment as it came."""

    home: Home
    environment: Mapping[str, str]


def open_session(*, write: bool = True) -> Session:
    """Begin a command.

    Raises:
        UserError: git or the state folder cannot be used.
    """
    environment = dict(os.environ)
    git.forget_git_variables()
    home = Home(home_folder().absolute())
    if write:
        home.prepare()
        git.require_git()
    return Session(home, environment)


def workspace_here() -> tuple[Path, str]:
    """The workspace of the current folder, and the subfolder of it that the current folder is."""
    try:
        here = Path.cwd().resolve(strict=True)
    except OSError as failure:
        raise SpecError("the current folder is gone", hint="change into a folder that exists") from failure
    workspace = find_workspace(here)
    if ".git" in workspace.parts:
        raise SpecError(f"{here} is inside a repository's own folder", hint="change into its working tree")
    try:
        str(here).encode("utf-8")
    except UnicodeEncodeError as failure:
        raise SpecError(f"the name of the current folder is not UTF-8: {here!r}", hint="rename it") from failure
    subfolder = here.relative_to(workspace) if here.is_relative_to(workspace) else Path()
    return workspace, "" if subfolder == Path() else str(subfolder)


def require_outside(workspace: Path, home: Home) -> None:
    """Refuse a workspace in which the worker could reach goalrun or its state.

    Raises:
        SpecError: the workspace contains the state folder or goalrun's own code.
    """
    if Path(os.path.realpath(home.path)).is_relative_to(workspace):
        raise SpecError(
            f"the workspace {workspace} contains the state folder {home.path}: the worker could rewrite it",
            hint="point GOALRUN_HOME outside the workspace, or start in a smaller folder",
        )
    code = Path(__file__).resolve().parent
    if code.is_relative_to(workspace):
        raise SpecError(
            f"the workspace {workspace} contains goalrun's own code in {code}: the worker could rewrite it",
            hint="install goalrun outside the workspace, for example with pipx or uv tool",
        )


def create_goal(
    session: Session, make_spec: Callable[[str], GoalSpec], hidden: Path | None = None, letter: str = "g"
) -> str:
    """Write a goal's first record, and take a copy of the files for its hidden checks; nothing runs yet."""
    goal = session.home.new_goal(utc_now(), letter)
    folder = session.home.folder(goal)
    try:
        journal = SqliteJournal(folder / JOURNAL, SystemClock(lambda: None))
        if hidden is not None:
            shutil.copytree(hidden, folder / HIDDEN, symlinks=True)
        journal.append(GoalCreated(spec=make_spec(goal)), None)
        journal.close()
    except BaseException:
        session.home.remove(goal)
        raise
    return goal


class Running(NamedTuple):
    """How to take a goal up.

    Attributes:
        tell: shows a line about what happens before the first turn.
        limits: new limits, or None to keep those that it has.
        wait: queue for the workspace; False fails with ``WorkspaceBusy``.
        one_turn: pause after one turn.
        hint: something for the next turn.
    """

    reporter: Reporter
    tell: Callable[[str], None]
    limits: Limits | None = None
    wait: bool = True
    one_turn: bool = False
    hint: str = ""


def run_goal(session: Session, goal: str, how: Running) -> GoalState:
    """Run a goal in this process until it ends.

    Raises:
        WorkspaceBusy: it runs already, or its workspace is held and ``how.wait`` is False.
        EnvironmentFailure: not even its end could be recorded.
    """
    folder = session.home.folder(goal)
    with _only_runner(folder, goal):
        control = FileControl(folder)
        control.clear()
        if how.hint:
            control.hint(how.hint)
        if how.one_turn:
            control.ask("step")
        state = replay(folder / JOURNAL)
        with control.signals():
            return _hold_and_run(session, folder, state, control, how)


@contextmanager
def _only_runner(folder: Path, goal: str) -> Iterator[None]:
    lock = RunLock(folder)
    if not lock.acquire():
        raise WorkspaceBusy(f"goal {goal} is running already", hint=f"goalrun status {goal}, or goalrun stop {goal}")
    try:
        yield
    finally:
        lock.release()


def _hold_and_run(session: Session, folder: Path, state: GoalState, control: FileControl, how: Running) -> GoalState:
    spec = state.spec
    workspace = Path(spec.workspace)
    if not workspace.is_dir():
        raise SpecError(f"the workspace {workspace} is gone", hint="bring it back, then resume")
    clock = SystemClock(control.check)
    lock = WorkspaceLock(session.home.path, workspace, spec.id)
    journal = SqliteJournal(folder / JOURNAL, clock)
    hooks = Hooks(how.reporter, folder, workspace, spec.hooks, session.environment)
    how = how._replace(reporter=hooks)
    try:
        dead = lock.acquire(wait=how.wait, poll=control.check, on_wait=partial(_tell_wait, folder, how))
        (folder / WAITING).unlink(missing_ok=True)
        _reap(session, {*dead, spec.id})
        lock.forget_dead()
        journal = _reopened(journal, folder, clock)
        begun = RunStarted(runner=identity.myself(), limits=how.limits, worker_isolation=_isolation(state.spec))
        record, state = journal.append(begun, state)
        how.reporter.show(record, state)
        _furnish(session, folder, state, how.tell, control.check)
        ports = _ports(session, folder, state, journal, control, how.reporter, clock)
        return GoalLoop(state, ports).run()
    except EnvironmentFailure as failure:
        # Before the loop, which records its own failures, could begin.
        return journal.append(GoalStopped(state=State.ERROR, detail=explained(failure)), state)[1]
    except Interrupted as asked:
        # Asked to end while it was waiting for the workspace; the loop handles what comes later.
        ended = State.STOPPED if asked.verb == "stop" else State.PAUSED
        return journal.append(GoalStopped(state=ended, detail=str(asked)), state)[1]
    finally:
        (folder / WAITING).unlink(missing_ok=True)
        lock.release()
        journal.close()
        hooks.close()


def _tell_wait(folder: Path, how: Running, message: str) -> None:
    write_whole(folder / WAITING, message)
    how.tell(f"waiting: {message}")


def _isolation(spec: GoalSpec) -> str:
    """How the worker is kept from goalrun: by namespaces, or only by the supervisor, and why."""
    reason = "it is switched off" if spec.worker_isolation == "off" else probe_isolation()
    return NAMESPACES if not reason else f"supervisor ({reason})"


def _reopened(journal: SqliteJournal, folder: Path, clock: SystemClock) -> SqliteJournal:
    """The journal with its running time beginning now: waiting for the workspace is not running."""
    journal.close()
    return SqliteJournal(folder / JOURNAL, clock)


def _reap(session: Session, goals: set[str]) -> None:
    """Kill what dead runs of these goals left, before anything looks at the workspace."""
    for goal in goals:
        path = session.home.folder(goal) / JOURNAL
        identity.reap(replay(path).processes if path.exists() else (), goal)


def _furnish(
    session: Session, folder: Path, state: GoalState, tell: Callable[[str], None], poll: Callable[[], None]
) -> None:
    """Make what a goal needs before its first turn, and clear what a killed run left half done."""
    remove_tree(folder / "verify")
    store = open_store(folder, state.spec)
    store.create()
    furnish_checks(
        session,
        folder,
        state.spec,
        lambda: state.base.tree if state.base is not None else store.snapshot("prepare", last=False).tree,
        tell,
        poll,
    )


def furnish_checks(
    session: Session,
    folder: Path,
    spec: GoalSpec,
    base: Callable[[], str],
    tell: Callable[[str], None],
    poll: Callable[[], None],
) -> None:
    """Freeze the dependencies of a goal's checks; done once, and not again for what is there.

    Args:
        session: the command's.
        folder: the goal's folder, with its store.
        spec: the goal.
        base: finds the tree that dependencies are prepared on.
        tell: shows a line of progress.
        poll: see ``process.run``.

    Raises:
        EnvironmentFailure: they could not be copied or prepared.
        Interrupted: the goal was asked to pause or stop.
    """
    workspace, asked = Path(spec.workspace), spec.verification
    wanted = asked.prepare is not None and bool(spec.checks or spec.hidden_checks)
    try:
        freeze(folder, workspace, asked.deps, tell, poll)
        crates.freeze(folder, workspace, spec.subfolder, session.environment)
        if wanted and index(folder / PREPARED) is None:
            _preparation(session, folder, spec, poll).run(base(), tell, poll)
    except OSError as failure:
        raise EnvironmentFailure(f"the dependencies of the checks cannot be kept: {failure}") from failure


def _preparation(session: Session, folder: Path, spec: GoalSpec, poll: Callable[[], None]) -> Preparation:
    asked = VerificationSpec(**{**dict(spec.verification), "network": True})
    online = GoalSpec(**{**dict(spec), "verification": asked})
    sandbox = choose(online, session.home.path, load_deps(folder, Path(spec.workspace)))
    known = secrets_of(session.environment)
    runner = CheckRunner(online, folder, sandbox, session.environment, known, poll)
    shelf = shelf_of(session.home.path, spec.workspace)
    return Preparation(online, open_store(folder, spec), folder, runner, sandbox.level, shelf)


def _ports(
    session: Session,
    folder: Path,
    state: GoalState,
    journal: SqliteJournal,
    control: FileControl,
    reporter: Reporter,
    clock: SystemClock,
) -> Ports:
    spec = state.spec
    floor = state.base_verification.floor if state.base_verification is not None else ""
    known = secrets_of(session.environment)
    means = Means(session.environment, known, control.check)
    hidden = None if _isolation(spec) != NAMESPACES else session.home.path
    store = open_store(folder, spec)
    if state.base is not None:
        store.base = state.base.commit
    return Ports(
        journal=journal,
        store=store,
        workers=_workers(session, folder, spec, store, means, hidden, clock),
        verifier=open_verifier(session, folder, spec, store, control.check, floor),
        judges=[[AgentJudge(agent, spec, folder, means) for agent in judge.chain] for judge in spec.judges],
        control=control,
        reporter=reporter,
        clock=clock,
        new_token=lambda: secrets.token_urlsafe(TOKEN_BYTES),
        redact=lambda text: redact(text, known),
    )


def _workers(
    session: Session,
    folder: Path,
    spec: GoalSpec,
    store: GitStore,
    means: Means,
    hidden: Path | None,
    clock: SystemClock,
) -> list[Worker]:
    """The worker's agent and those that stand in for it, or a flow."""
    if spec.flow is None:
        return [AgentWorker(agent, spec, folder, hidden, means) for agent in spec.worker.chain]
    own = folder

    def hire(agent: AgentSpec, folder: str, *, writes: bool, poll: Callable[[], None]) -> Worker:
        def both() -> None:
            means.poll()
            poll()

        there = GoalSpec(**{**dict(spec), "workspace": folder})
        return AgentWorker(agent, there, own, hidden, means._replace(poll=both), writes=writes)

    ports = FlowPorts(
        hire=hire,
        slots=Slots(session.home.path, spec.flow.slots),
        desk=StoreDesk(store, Path(spec.workspace), spec.subfolder),
        shelf=FileShelf(own),
        clock=clock,
        poll=means.poll,
    )
    return [FlowWorker(spec.flow, ports)]


def open_verifier(
    session: Session, folder: Path, spec: GoalSpec, store: GitStore, poll: Callable[[], None], floor: str = ""
) -> WorktreeVerifier:
    """What runs the checks of a goal, at the level that it asks for; ``floor`` as the journal has it.

    Raises:
        SpecError: that level cannot be had.
    """
    workspace = Path(spec.workspace)
    frozen = load_deps(folder, workspace)
    if spec.verification.worktree:
        sandbox = choose(spec, session.home.path, frozen)
    else:
        # The live workspace brings its dependencies along.
        sandbox = ProcessSandbox(workspace, session.environment.get("PATH", ""))
    known = secrets_of(session.environment)
    runner = CheckRunner(spec, folder, sandbox, session.environment, known, poll)
    return WorktreeVerifier(spec, store, folder, runner, sandbox.level, floor)


def open_store(folder: Path, spec: GoalSpec) -> GitStore:
    """The store of a goal."""
    workspace = Path(spec.workspace)

    def protection(files: frozenset[str]) -> Protection:
        folders = (each.path for each in load_deps(folder, workspace) if each.copy.is_dir())
        return Protection(
            spec=spec.verification,
            checks=spec.checks,
            subfolder=spec.subfolder,
            base_files=files,
            frozen=tuple(str(path.relative_to(workspace)) for path in folders),
        )

    return GitStore(folder, workspace, protection)


def start_detached(session: Session, goal: str, options: list[str]) -> Callable[[], int | None]:
    """Run a goal in a process of its own, which outlives this one; what tells its exit status once it has ended."""
    folder = session.home.folder(goal)
    # -P: the workspace, which is the current folder, must not be able to offer modules.
    argv = [sys.executable, "-P", "-m", "goalrun", "run-detached", goal, *options]
    return spawn_detached(argv, session.environment, folder / "runner.log")


def note_idle(session: Session, goal: str, event: GoalStopped | Answered | FlowReplaced) -> GoalState | None:
    """Record something of a goal that no process runs; None if one does after all."""
    folder = session.home.folder(goal)
    lock = RunLock(folder)
    if not lock.acquire():
        return None
    try:
        before = replay(folder / JOURNAL)
        _reap(session, {goal})
        journal = SqliteJournal(folder / JOURNAL, SystemClock(lambda: None))
        try:
            return journal.append(event, before)[1]
        finally:
            journal.close()
    finally:
        lock.release()
