"""Large state folders and long journals, written by the product's own code."""

import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

from values import PROCESS, RED, checked, reported

from goalrun.adapters.clock import SystemClock
from goalrun.adapters.home import Home
from goalrun.adapters.journal import SqliteJournal, replay
from goalrun.adapters.views import JOURNAL
from goalrun.core.events import (
    BaseTaken,
    Event,
    GoalCreated,
    GoalStopped,
    ProcessStarted,
    RunStarted,
    TurnFinished,
    TurnStarted,
    VerificationFinished,
    WorkerEnded,
    WorkerFinished,
)
from goalrun.core.feedback import feedback
from goalrun.core.model import Continue, Snapshot, State, TurnOutcome, TurnRecord, Usage, WorkerReport
from goalrun.core.spec import AgentSpec, GoalSpec, Limits

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)


def write_journal(folder: Path, *events: Event) -> None:
    """Append records, without the wait for the disk that makes each of them durable."""
    path = folder / JOURNAL
    journal, state = SqliteJournal(path, SystemClock(lambda: None)), None
    journal._db.execute("PRAGMA synchronous=OFF")
    if not isinstance(events[0], GoalCreated):
        state = replay(path)
    for event in events:
        _, state = journal.append(event, state)
    journal.close()


def many_goals(home: Home, workspace: Path, count: int, begin: datetime = BEGIN) -> list[str]:
    """So many goals of a workspace that have ended, a minute apart: one, and copies of it."""
    home.prepare()
    first = home.new_goal(begin, workspace)
    home.appear(first)
    spec = GoalSpec(
        id=first,
        objective="make tests pass",
        workspace=str(workspace),
        worker=AgentSpec(name="command", command=("agent",)),
        checks=("make test",),
        limits=Limits(max_turns=1000, stuck_after=0),
    )
    begun = (GoalCreated(spec=spec), RunStarted(runner=PROCESS), BaseTaken(snapshot=Snapshot(commit="c", tree="t")))
    write_journal(home.folder(first), *begun, GoalStopped(state=State.STOPPED, detail="goalrun stop"))
    made, letters = [first], "234567abcdefghijklmnopqrstuvwxyz"
    for number in range(1, count):
        chance = "".join(letters[number >> shift & 31] for shift in (15, 10, 5, 0))
        goal = f"g-{begin + timedelta(minutes=number):%Y%m%d}-bbbbb{chance}"
        shutil.copytree(home.folder(first), home.folder(goal))
        (home._marks(workspace) / goal).touch()
        made.append(goal)
    return made


def long_journal(folder: Path, records: int, turns: int) -> None:
    """A life of so many turns, with about so many records in all; what is said in each is as long as it may be."""
    each = max(1, records // turns - 5)
    events: list[Event] = [RunStarted(runner=PROCESS)]
    for turn in range(1, turns + 1):
        outcome = _outcome(turn)
        told = feedback(outcome, Continue(reason="so"))
        events += [
            TurnStarted(turn=turn, attempt=1),
            *[ProcessStarted(role="check", process=PROCESS)] * each,
            WorkerEnded(turn=turn, report=outcome.worker),
            WorkerFinished(turn=turn, report=outcome.worker, snapshot=outcome.snapshot),
            VerificationFinished(turn=turn, report=outcome.verification),
            TurnFinished(record=TurnRecord(outcome=outcome, decision="continue", reason="so", feedback=told)),
        ]
    write_journal(folder, *events, GoalStopped(state=State.STOPPED, detail="goalrun stop"))


def _outcome(turn: int) -> TurnOutcome:
    failed = checked("fail", failing=tuple(f"tests/test_{n}.py::test" for n in range(50)), excerpt="x" * 4000)
    return TurnOutcome(
        turn=turn,
        worker=WorkerReport(outcome="ok", text="y" * 2000, usage=Usage(input_tokens=1, output_tokens=1), seconds=1),
        snapshot=Snapshot(commit=f"c{turn}", tree=f"t{turn}", changed_files=1),
        verification=reported(failed) if turn % 2 else RED,
    )
