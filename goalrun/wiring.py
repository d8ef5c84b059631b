"""The composition root: which adapters a goal gets. The only place that picks classes."""

import hashlib
import os
import secrets
import shutil
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple

from goalrun.adapters import clones, crates, git, identity, tools
from goalrun.adapters.agents.call import Means
from goalrun.adapters.checks import CheckRunner
from goalrun.adapters.clock import SystemClock, utc_now
from goalrun.adapters.control import FileControl
from goalrun.adapters.deps import PREPARED, freeze, index
from goalrun.adapters.deps import load as load_deps
from goalrun.adapters.desk import StoreDesk
from goalrun.adapters.files import remove_tree, write_whole
from goalrun.adapters.home import Home, home_folder
from goalrun.adapters.hooks import hooked
from goalrun.adapters.isolation import probe as probe_isolation
from goalrun.adapters.journal import SqliteJournal, replay, salvage
from goalrun.adapters.judge import AgentJudge
from goalrun.adapters.lock import RunLock, WorkspaceLock, held, only_runner
from goalrun.adapters.prepare import Preparation, shelf_of
from goalrun.adapters.process import Detached, spawn_detached
from goalrun.adapters.sandbox import ProcessSandbox, choose
from goalrun.adapters.shelf import FileShelf
from goalrun.adapters.slots import Slots
from goalrun.adapters.store import EMPTY_TREE, GitStore, find_workspace
from goalrun.adapters.verifier import HIDDEN, WorktreeVerifier
from goalrun.adapters.views import JOURNAL, RUN_LOCK, WAITING
from goalrun.adapters.wire import listen
from goalrun.adapters.worker import AgentWorker
from goalrun.asking import explained
from goalrun.core.events import Answered, FlowReplaced, GoalCreated, GoalStopped, RunStarted
from goalrun.core.evidence import redact, secrets_of
from goalrun.core.flow.model import Step
from goalrun.core.model import GoalState, Snapshot, State, VerificationReport
from goalrun.core.ports import OnProcess, Reporter, Worker
from goalrun.core.protection import Protection
from goalrun.core.spec import AgentSpec, GoalSpec, Limits, VerificationSpec
from goalrun.errors import EnvironmentFailure, GitFailed, Interrupted, SpecError
from goalrun.flows.ports import FlowPorts, Verify
from goalrun.flows.proof import asked_of
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
    if not write:
        home.refuse_other()
    else:
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
    except BaseException:
        with suppress(EnvironmentFailure):
            remove_tree(folder)
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
        detached: nobody sits in front of it: a signal means that the machine or the session ends, not the goal.
    """

    reporter: Reporter
    tell: Callable[[str], None]
    limits: Limits | None = None
    wait: bool = True
    one_turn: bool = False
    hint: str = ""
    detached: bool = False


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
            with hooked(how.reporter, folder, Path(spec.workspace), spec.hooks, session.environment) as reporter:
                state = _hold_and_run(session, folder, state, control, how._replace(reporter=reporter))
        if state.spec.origin:
            how.tell(hand_over(folder, state))
        return state


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


def _hold_and_run(session: Session, folder: Path, state: GoalState, control: FileControl, how: Running) -> GoalState:
    spec = state.spec
    workspace = Path(spec.workspace)
    require_workspace(workspace)
    clock = SystemClock(control.check)
    lock = WorkspaceLock(session.home.path, workspace, spec.id)
    journal = SqliteJournal(folder / JOURNAL, clock)
    try:
        dead = lock.acquire(wait=how.wait, poll=control.check, on_wait=partial(_tell_wait, folder, how))
        (folder / WAITING).unlink(missing_ok=True)
        if not lock.kernel:
            how.tell("note: the state folder's file system has no kernel locks; owner records are used (docs/state.md)")
        _reap(session, {*dead, spec.id})
        lock.forget_dead()
        journal = _reopened(journal, folder, clock)
        begun = RunStarted(runner=identity.myself(), limits=how.limits, worker_isolation=_isolation(state.spec))
        record, state = journal.append(begun, state)
        how.reporter.show(record, state)
        _furnish(session, folder, state, how.tell, control.check)
        ports = _ports(session, folder, state, journal, control, how.reporter, clock)
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
        lock.release()
        journal.close()


def require_workspace(workspace: Path) -> None:
    """Refuse to run a goal whose folder is not there.

    Raises:
        SpecError: it is gone.
    """
    if not workspace.is_dir():
        raise SpecError(f"the workspace {workspace} is gone", hint="bring it back, then resume")


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
    if state.base is None:
        store.create()
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


def _require_files(workspace: Path, last: Snapshot) -> None:
    """Refuse an empty folder in the place of a workspace that had files: it may not be mounted."""
    if last.tree != EMPTY_TREE and not any(workspace.iterdir()):
        raise EnvironmentFailure(
            f"the workspace {workspace} is empty, and its last snapshot is not",
            hint="mount it or bring it back, then goalrun resume; goalrun restore --turn N (0: the base) fills it",
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
    wanted = asked.prepare is not None and bool(spec.checks or spec.hidden_checks or spec.flow)
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

    def missing(agent: AgentSpec) -> str:
        path = means.environment.get("PATH")
        there = any(shutil.which(each.command[0], path=path) is not None for each in agent.chain)
        return "" if there else f"{agent.command[0]} is not on PATH"

    ports = FlowPorts(
        listen=listen,
        hire=hire,
        missing=missing,
        verify=_step_verifier(session, own, spec, means.poll),
        slots=Slots(session.home.path, spec.flow.slots),
        desk=StoreDesk(store, Path(spec.workspace), spec.subfolder),
        shelf=FileShelf(own),
        clock=clock,
        poll=means.poll,
    )
    return [FlowWorker(spec.flow, ports)]


def _step_verifier(session: Session, folder: Path, goal: GoalSpec, of_goal: Callable[[], None]) -> Verify:
    """What runs the checks of a flow's steps, as those of a goal; their floor is taken once in each run."""
    floors: dict[str, str] = {}
    lock = threading.Lock()

    def verify(
        state: GoalState, step: Step, snapshot: Snapshot, label: str, on_process: OnProcess, poll: Callable[[], None]
    ) -> VerificationReport:
        def both() -> None:
            of_goal()
            poll()

        if state.base is None:
            raise AssertionError("a step is checked before there is a base")
        spec = asked_of(goal, step)
        # What a score reads is protected like what a check reads.
        scored = GoalSpec(**{**dict(spec), "checks": (*spec.checks, *filter(None, [step.score]))})
        store = open_store(folder, scored)
        store.base = state.base.commit
        name = hashlib.sha256(repr((spec.checks, spec.verification)).encode()).hexdigest()[:12] if step.check else ""
        floor = state.base_verification.floor if state.base_verification is not None and not name else ""
        with lock:
            if name and name not in floors and spec.verification.baseline:
                first = open_verifier(session, folder, spec, store, both, name=name)
                floors[name] = first.verify_base(state.base, on_process).floor
        found = open_verifier(session, folder, spec, store, both, floors.get(name, floor), name)
        return found.verify(snapshot, label, on_process)

    return verify


def open_verifier(
    session: Session,
    folder: Path,
    spec: GoalSpec,
    store: GitStore,
    poll: Callable[[], None],
    floor: str = "",
    name: str = "",
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
    return WorktreeVerifier(spec, store, folder, runner, sandbox.level, floor, name)


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


def start_detached(session: Session, goal: str, options: list[str]) -> Detached:
    """Run a goal in a process of its own, which outlives this one."""
    folder = session.home.folder(goal)
    # -P: the workspace, which is the current folder, must not be able to offer modules.
    argv = [sys.executable, "-P", "-m", "goalrun", "run-detached", goal, *options]
    return spawn_detached(argv, session.environment, folder / "runner.log")


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
            _reap(session, {*lock.acquire(wait=False, poll=lambda: None, on_wait=lambda _: None), goal})
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
        _reap(session, {goal})
        journal = SqliteJournal(folder / JOURNAL, SystemClock(lambda: None))
        try:
            return journal.append(event, before)[1]
        finally:
            journal.close()
    finally:
        lock.release()
