"""Goals from Python: what ``goalrun start`` and ``resume`` do, for programs that embed it."""

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from pydantic import Field

from goalrun.adapters.views import read_result
from goalrun.cli.flow_spec import FlowAsked
from goalrun.cli.flows import flow_folders, proven
from goalrun.cli.running import resumable
from goalrun.cli.starting import Wanted, override, run_new
from goalrun.core.events import Record
from goalrun.core.model import EXIT_CODES, GoalState, State
from goalrun.core.ports import Reporter
from goalrun.core.value import Json, JsonObject, Text
from goalrun.errors import SpecError
from goalrun.flows.files import load_flow
from goalrun.settings import Settings, load
from goalrun.wiring import running
from goalrun.wiring.session import Session, open_session, require_outside, workspace_of

OnEvent = Callable[[Record, GoalState], None]
"""Called after each record is durable, with the state that it led to; from several threads for a flow's steps."""


class Goal(Settings):
    """A goal: the keys of a goal file (docs/configuration.md), and where it is about.

    What is not given comes from the project's and the user's configuration, as on the command line.

    Attributes:
        objective: what has to become true.
        workspace: the folder that it is about; the git top level around it is the workspace.
        flow: the name or file of a flow that is the worker, with ``args`` as its arguments.
        force: run the worker even if everything passes already.

    Raises:
        pydantic.ValidationError: a key is unknown, or a value not allowed.
    """

    objective: Text
    workspace: Path = Path()
    flow: Text | None = None
    args: JsonObject = Field(default_factory=dict)
    force: bool = False


class Ended(NamedTuple):
    """How a run of a goal ended.

    Attributes:
        id: for ``resume_goal``, and for every command of ``goalrun``.
        state: the state that it is in now; ``ACHIEVED`` alone is success.
        exit_code: what the command line would have exited with.
        result: the result JSON (docs/cli.md).
    """

    id: str
    state: State
    exit_code: int
    result: dict[str, Json]


def run_goal(goal: Goal, on_event: OnEvent | None = None, *, wait: bool = True) -> Ended:
    """Make a goal and run it until it ends; blocks.

    Args:
        goal: what to do.
        on_event: told of every record. What it raises ends the run; the goal can then be resumed.
        wait: queue for the workspace where another goal has it.

    Raises:
        UserError: the goal cannot be run as it is described; nothing was started.
        WorkspaceBusy: another goal has the workspace, and ``wait`` is False; nothing was started.
        EnvironmentFailure: the machine failed before a record of that could be made.
    """
    session = open_session()
    place = workspace_of(goal.workspace)
    require_outside(place[0], session.home)
    given = goal.model_dump(exclude_unset=True, exclude={"objective", "workspace", "flow", "args", "force"})
    settings = load(place[0], flags=override(given)).settings
    if not settings.checks and not settings.judge_only:
        raise SpecError("no check is given: nothing could say when the goal is achieved", hint="checks=('pytest -q',)")
    flow = None
    if goal.flow is not None:
        found, _ = proven(load_flow(goal.flow, flow_folders(place[0])), place[0])
        flow = FlowAsked(found, (), alone=False, given=goal.args)
    how = running.Running(_reporter(on_event), _tell, wait=wait)
    wanted = Wanted(goal.objective, place, settings, flow, goal.force)
    return run_new(session, wanted, lambda made: _run(session, made, how))


def resume_goal(
    goal: str,
    on_event: OnEvent | None = None,
    *,
    hint: str = "",
    limits: Mapping[str, str] | None = None,
    wait: bool = True,
) -> Ended:
    """Go on with a goal; blocks.

    Args:
        goal: its id, or a unique beginning of one.
        on_event: as for ``run_goal``; of what happens from now on.
        hint: something for the next turn.
        limits: as the options of ``goalrun resume`` say them: ``{"max_turns": "+5"}``.
        wait: as for ``run_goal``.

    Raises:
        UserError: it cannot be resumed, or not like this.
    """
    session = open_session()
    found = session.home.find(goal, None)
    changed = resumable(session, found, dict(limits or {}))
    return _run(session, found, running.Running(_reporter(on_event), _tell, changed, wait=wait, hint=hint))


class _Told:
    """The caller's function as a reporter; see ``core.ports.Reporter``."""

    def __init__(self, on_event: OnEvent) -> None:
        self._on_event = on_event

    def show(self, record: Record, state: GoalState) -> None:
        """Tell it."""
        self._on_event(record, state)


def _reporter(on_event: OnEvent | None) -> Reporter:
    return running.SilentReporter() if on_event is None else _Told(on_event)


def _tell(message: str) -> None:
    logging.getLogger("goalrun").info(message)


def _run(session: Session, goal: str, how: running.Running) -> Ended:
    state = running.run_goal(session, goal, how)
    result = {**read_result(session.home.folder(goal)), "pid": None}
    return Ended(goal, state.status, EXIT_CODES[state.status], result)
