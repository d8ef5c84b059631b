"""Which adapters a goal gets: the only place that picks classes."""

import hashlib
import secrets
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

from goalrun.adapters import crates
from goalrun.adapters.agents.call import Means
from goalrun.adapters.checks import CheckRunner
from goalrun.adapters.clock import SystemClock
from goalrun.adapters.control import FileControl
from goalrun.adapters.deps import PREPARED, freeze, index
from goalrun.adapters.deps import load as load_deps
from goalrun.adapters.desk import StoreDesk
from goalrun.adapters.isolation import probe as probe_isolation
from goalrun.adapters.journal import SqliteJournal
from goalrun.adapters.judge import AgentJudge
from goalrun.adapters.prepare import Preparation, shelf_of
from goalrun.adapters.sandbox import ProcessSandbox, Surroundings, choose
from goalrun.adapters.shelf import FileShelf
from goalrun.adapters.slots import Slots
from goalrun.adapters.store import GitStore
from goalrun.adapters.verifier import WorktreeVerifier
from goalrun.adapters.wire import listen
from goalrun.adapters.worker import AgentWorker
from goalrun.core.evidence import redact, secrets_of
from goalrun.core.flow.model import Step
from goalrun.core.model import GoalState, Snapshot, VerificationReport
from goalrun.core.ports import OnProcess, Reporter, Worker
from goalrun.core.protection import Protection
from goalrun.core.spec import AgentSpec, GoalSpec
from goalrun.errors import EnvironmentFailure
from goalrun.flows.ports import FlowPorts, Verify, both
from goalrun.flows.proof import asked_of
from goalrun.flows.worker import FlowWorker
from goalrun.loop import Ports
from goalrun.wiring.session import Session

TOKEN_BYTES = 9
NAMESPACES = "namespaces"


def isolation(spec: GoalSpec) -> str:
    """How the worker is kept from goalrun: by namespaces, or only by the supervisor, and why."""
    reason = "it is switched off" if spec.worker_isolation == "off" else probe_isolation()
    return NAMESPACES if not reason else f"supervisor ({reason})"


def ports_of(
    session: Session,
    folder: Path,
    state: GoalState,
    journal: SqliteJournal,
    control: FileControl,
    reporter: Reporter,
    clock: SystemClock,
) -> Ports:
    """What the loop of a goal gets of the world."""
    spec = state.spec
    floor = state.base_verification.floor if state.base_verification is not None else ""
    known = secrets_of(session.environment)
    means = Means(session.environment, known, control.check)
    hidden = None if isolation(spec) != NAMESPACES else session.home.path
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
        there = spec.but(workspace=folder)
        return AgentWorker(agent, there, own, hidden, means._replace(poll=both(means.poll, poll)), writes=writes)

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
        if state.base is None:
            raise AssertionError("a step is checked before there is a base")
        spec, ended = asked_of(goal, step), both(of_goal, poll)
        # What a score reads is protected like what a check reads.
        scored = spec.but(checks=(*spec.checks, *filter(None, [step.score])))
        store = open_store(folder, scored)
        store.base = state.base.commit
        name = hashlib.sha256(repr((spec.checks, spec.verification)).encode()).hexdigest()[:12] if step.check else ""
        floor = state.base_verification.floor if state.base_verification is not None and not name else ""
        with lock:
            if name and name not in floors and spec.verification.baseline:
                first = open_verifier(session, folder, spec, store, ended, name=name)
                floors[name] = first.verify_base(state.base, on_process).floor
        found = open_verifier(session, folder, spec, store, ended, floors.get(name, floor), name)
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
        sandbox = ProcessSandbox(Surroundings(workspace, session.environment.get("PATH", "")))
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
    asked = spec.verification.but(network=True)
    online = spec.but(verification=asked)
    sandbox = choose(online, session.home.path, load_deps(folder, Path(spec.workspace)))
    known = secrets_of(session.environment)
    runner = CheckRunner(online, folder, sandbox, session.environment, known, poll)
    shelf = shelf_of(session.home.path, spec.workspace)
    return Preparation(online, open_store(folder, spec), folder, runner, sandbox.level, shelf)
