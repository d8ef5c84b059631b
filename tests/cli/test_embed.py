"""Goals from Python, in this very process."""

import os
import signal
import threading
from pathlib import Path

import pytest
from pydantic import ValidationError
from support import CHECK, GOOD_WORKER, Program, write

from goalrun import Goal, resume_goal, run_goal
from goalrun.core.events import Event, Record, TurnFinished, WorkerFinished
from goalrun.core.model import GoalState, State
from goalrun.errors import SpecError, WorkspaceBusy


@pytest.fixture
def embedded(program: Program, monkeypatch: pytest.MonkeyPatch) -> Program:
    """The same state folder and configuration for this process as for the program."""
    for name, value in program.env().items():
        monkeypatch.setenv(name, value)
    return program


def goal(program: Program, **keys: object) -> Goal:
    return Goal.model_validate(
        {"objective": "make tests pass", "workspace": program.cwd, "checks": (CHECK,), "worker_cmd": GOOD_WORKER} | keys
    )


def test_a_goal_is_run_and_its_events_are_typed(embedded: Program) -> None:
    events: list[Event] = []
    states: list[State] = []

    def on_event(record: Record, state: GoalState) -> None:
        events.append(record.event)
        states.append(state.status)

    ended = run_goal(goal(embedded), on_event)
    assert (ended.state, ended.exit_code) == (State.ACHIEVED, 0)
    worked = [event for event in events if isinstance(event, WorkerFinished)]
    assert [event.report.outcome for event in worked] == ["ok"]
    assert isinstance(events[-1], TurnFinished)
    assert states[0] is State.RUNNING
    assert states[-1] is State.ACHIEVED
    assert ended.result == embedded.run("show", ended.id, "--json").json


def test_the_projects_configuration_counts_and_what_is_given_outranks_it(embedded: Program) -> None:
    write(embedded.cwd, {"goalrun.toml": 'worker = "nobody"\nchecks = ["false"]\n[limits]\nmax_turns = 1\n'})
    given = Goal(objective="make tests pass", workspace=embedded.cwd, worker_cmd="true")
    ended = run_goal(given)
    assert (ended.state, ended.result["turns"]) == (State.MAX_TURNS, 1)
    more = resume_goal(ended.id, hint="go on", limits={"max_turns": "+1"})
    assert (more.state, more.result["turns"]) == (State.MAX_TURNS, 2)
    with pytest.raises(SpecError, match="limit of goal"):
        resume_goal(ended.id)


def test_what_is_wrong_is_said_before_anything_exists(embedded: Program) -> None:
    with pytest.raises(ValidationError, match="chekcs"):
        goal(embedded, chekcs=("true",))
    with pytest.raises(SpecError, match="no check"):
        run_goal(goal(embedded, checks=()))
    with pytest.raises(SpecError, match="unknown agent 'nobody'"):
        run_goal(goal(embedded, worker_cmd=None, worker="nobody"))
    assert embedded.goals() == []


def test_an_exception_of_the_caller_ends_the_run_and_the_goal_goes_on_later(embedded: Program) -> None:
    def on_event(record: Record, _: GoalState) -> None:
        if record.event.kind == "worker_finished":
            raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        run_goal(goal(embedded, worker_cmd=f"echo ran >> ran; {GOOD_WORKER}"), on_event)
    (left,) = embedded.goals()
    assert left["state"] == "interrupted"
    ended = resume_goal(left["id"])
    assert ended.state is State.ACHIEVED
    # The turn that was recorded is not paid for again.
    assert (embedded.cwd / "ran").read_text(encoding="utf-8") == "ran\n"


def test_a_thread_can_run_a_goal_and_signals_stay_the_programs_own(embedded: Program) -> None:
    before = signal.getsignal(signal.SIGINT)
    seen: list[object] = []
    ended: list[State] = []

    def run() -> None:
        ended.append(run_goal(goal(embedded), lambda *_: seen.append(signal.getsignal(signal.SIGINT))).state)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert ended == [State.ACHIEVED]
    assert set(seen) == {before}


def test_a_busy_workspace_is_said_and_leaves_nothing(embedded: Program) -> None:
    refused: list[str] = []

    def on_event(record: Record, _: GoalState) -> None:
        if isinstance(record.event, WorkerFinished):
            with pytest.raises(WorkspaceBusy) as busy:
                run_goal(goal(embedded, objective="another"), wait=False)
            refused.append(str(busy.value))

    first = run_goal(goal(embedded), on_event)
    assert first.state is State.ACHIEVED
    assert len(refused) == 1
    assert [each["objective"] for each in embedded.goals()] == ["make tests pass"]


def test_a_flow_can_be_the_worker(embedded: Program, tmp_path: Path) -> None:
    flow = """
[args.what]
required = true

[[step]]
id = "write"
run = ["sh", "-c", 'echo "$0" > made', "{args.what}"]
"""
    (tmp_path / "make.toml").write_text(flow, encoding="utf-8")
    made = goal(
        embedded, worker_cmd=None, flow=str(tmp_path / "make.toml"), args={"what": "it"}, checks=("test -s made",)
    )
    ended = run_goal(made)
    assert ended.state is State.ACHIEVED
    assert (embedded.cwd / "made").read_text(encoding="utf-8") == "it\n"
    assert os.environ["GOALRUN_HOME"] == str(embedded.home)
