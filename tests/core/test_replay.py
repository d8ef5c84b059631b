from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from values import GREEN, JUDGE, PROCESS, RED, goal, judged, numbered, settled, snapshot, spent, turned

from goalrun.core.decide import decide
from goalrun.core.events import (
    AgentFailed,
    BaseTaken,
    BaseVerified,
    Event,
    GoalCreated,
    GoalStopped,
    JudgementFinished,
    ProcessStarted,
    Record,
    RunStarted,
    TurnFinished,
    TurnInterrupted,
    TurnStarted,
    VerificationFinished,
    WorkerFinished,
)
from goalrun.core.model import NOTHING_SPENT, GoalState, State, Stop, TurnRecord, Usage, WorkerReport
from goalrun.core.replay import apply, fold
from goalrun.core.spec import Limits

CREATED = GoalCreated(spec=goal(judge=JUDGE, max_turns=50, stuck_after=0))
BEGUN = (CREATED, RunStarted(runner=PROCESS), BaseTaken(snapshot=snapshot("base")))


def next_events(draw: Callable[[st.SearchStrategy[int]], int], state: GoalState) -> list[Event]:
    """The events that may follow a state."""
    turn, opened = len(state.turns) + 1, state.open
    if state.status is not State.RUNNING:
        return [RunStarted(runner=PROCESS, limits=Limits(max_turns=50 + draw(st.integers(0, 9)), stuck_after=0))]
    ever: list[Event] = [
        ProcessStarted(role="check", process=PROCESS),
        GoalStopped(state=State.PAUSED, detail="asked"),
        RunStarted(runner=PROCESS),
    ]
    if opened is None or (opened.worker is None and not opened.launched):
        attempt = opened.attempt + 1 if opened is not None else 1
        return [TurnStarted(turn=turn, attempt=attempt, hints=("look",)), *ever]
    if opened.worker is None:
        report = WorkerReport(outcome="ok", usage=spent(draw(st.integers(0, 99))), text="\u200b done")
        return [
            WorkerFinished(turn=turn, report=report, snapshot=snapshot(f"t{draw(st.integers(0, 5))}")),
            AgentFailed(role="worker", agent="agent", reason="gone", usage=NOTHING_SPENT),
            TurnInterrupted(turn=turn, reason="cut", snapshot=snapshot("cut")),
            *ever,
        ]
    if opened.verification is None:
        return [VerificationFinished(turn=turn, report=RED), VerificationFinished(turn=turn, report=GREEN), *ever]
    if opened.verification.green and opened.judgement is None:
        return [JudgementFinished(turn=turn, judgement=judged(reason="no", usage=spent(3))), *ever]
    outcome = turned(turn, opened.verification, opened.judgement, usage=opened.worker.usage)
    decision = decide(state, outcome)
    ends = decision.state.value if isinstance(decision, Stop) else "continue"
    return [TurnFinished(record=TurnRecord(outcome=outcome, decision=ends, reason="so", feedback="told")), *ever]


@st.composite
def journals(draw: st.DrawFn) -> tuple[list[Record], list[GoalState]]:
    """Records that may follow one another, and the live state after each."""
    records, states = [], []
    state: GoalState | None = None
    events: list[Event] = list(BEGUN)
    for place in range(draw(st.integers(1, 40))):
        event = events[place] if place < len(BEGUN) else None
        if event is None:
            assert state is not None
            following = next_events(draw, state)
            if state.open is not None and not state.open.launched:
                following.append(ProcessStarted(role="worker", process=PROCESS))
            event = draw(st.sampled_from(following))
        elapsed = draw(st.floats(0, 1e6))
        record = Record(seq=place + 1, at="2026-01-01T00:00:00.000+00:00", elapsed=elapsed, event=event)
        state = apply(state, record)
        records.append(record)
        states.append(state)
    return records, states


@given(journals())
def test_the_fold_of_the_journal_is_the_live_state_also_when_read_back_from_json(
    journal: tuple[list[Record], list[GoalState]],
) -> None:
    records, states = journal
    read = [Record.model_validate_json(record.model_dump_json()) for record in records]
    assert read == records
    for place, state in enumerate(states, start=1):
        assert fold(read[:place]) == state
    assert GoalState.model_validate_json(states[-1].model_dump_json()) == states[-1]


@given(journals())
def test_spend_is_counted_once_a_turn_and_running_time_never_goes_back(
    journal: tuple[list[Record], list[GoalState]],
) -> None:
    records, states = journal
    seconds = [state.usage.seconds for state in states]
    assert seconds == sorted(seconds)
    cut = any(isinstance(record.event, TurnInterrupted) for record in records)
    tokens = [
        (record.outcome.worker.usage or Usage()).total_tokens for record in states[-1].turns
    ] + [3 for record in states[-1].turns if record.outcome.judgement is not None]  # fmt: skip
    assert states[-1].usage.total_tokens == (None if cut else sum(amount or 0 for amount in tokens))


def record(event: Event, elapsed: float = 0.0) -> Record:
    return Record(seq=1, at="", elapsed=elapsed, event=event)


def test_running_time_adds_up_over_runs_and_leaves_out_what_lies_between() -> None:
    stopped = GoalStopped(state=State.PAUSED, detail="")
    started = RunStarted(runner=PROCESS)
    state = fold(
        [
            record(CREATED, 99),
            record(started),
            record(stopped, 30),
            record(started),
            record(stopped, 12),
            record(started),
        ]
    )
    assert state.usage.seconds == 42


def turn_until(*events: Event) -> GoalState:
    started = (TurnStarted(turn=1, attempt=1), ProcessStarted(role="worker", process=PROCESS))
    return fold(numbered(*BEGUN, *started, *events))


def test_a_cut_worker_makes_tokens_and_cost_unknown_but_not_the_time() -> None:
    cut = TurnInterrupted(turn=1, reason="cut", snapshot=snapshot())
    state = apply(turn_until(), record(cut, elapsed=8))
    assert state.usage == Usage(seconds=8)
    assert state.open is not None
    assert (state.open.attempt, state.open.interrupted, state.open.launched) == (1, "cut", False)
    again = apply(state, record(TurnStarted(turn=1, attempt=2), elapsed=8))
    assert again.open is not None
    assert again.open.interrupted == "cut"


def test_a_worker_that_could_not_run_costs_nothing_and_its_turn_is_cut_for_that_reason() -> None:
    state = turn_until(AgentFailed(role="worker", agent="agent", reason="gone", usage=NOTHING_SPENT))
    assert (state.usage.total_tokens, state.turns) == (0, ())
    assert state.open is not None
    assert (state.open.launched, state.open.failed) == (True, "gone")
    cut = apply(state, record(TurnInterrupted(turn=1, reason="gone", snapshot=snapshot(), usage=NOTHING_SPENT)))
    assert cut.open is not None
    assert (cut.open.launched, cut.open.failed, cut.usage.total_tokens) == (False, "", 0)


def test_the_judge_of_the_base_is_paid_for() -> None:
    verified = BaseVerified(report=GREEN, judgement=judged(reason="no", usage=spent(4)))
    assert fold(numbered(*BEGUN, verified)).usage.total_tokens == 4
    silent = BaseVerified(report=GREEN, judgement=judged(reason="no"))
    assert fold(numbered(*BEGUN, silent)).usage.total_tokens is None


def test_a_finished_turn_takes_hints_away_and_hands_its_feedback_on() -> None:
    state = fold(numbered(*BEGUN, TurnStarted(turn=1, attempt=1, hints=("look",))))
    assert state.hints == ("look",)
    done = apply(
        state, record(TurnFinished(record=TurnRecord(outcome=turned(), decision="achieved", reason="r", feedback="f")))
    )
    assert (done.hints, done.feedback, done.status, done.detail, done.open) == ((), "f", State.ACHIEVED, "r", None)


def test_a_resume_keeps_history_and_takes_the_new_limits() -> None:
    state = settled(fold(numbered(CREATED)), turned(1, RED))
    limits = Limits(max_turns=99)
    resumed = apply(state, record(RunStarted(runner=PROCESS, limits=limits)))
    assert (resumed.turns, resumed.spec.limits, resumed.usage) == (state.turns, limits, state.usage)
    kept = apply(resumed, record(RunStarted(runner=PROCESS)))
    assert kept.spec.limits == limits


def test_the_newest_snapshot_is_the_open_turn_s_then_the_last_turn_s_then_the_base_s() -> None:
    finished = WorkerFinished(turn=1, report=WorkerReport(outcome="ok"), snapshot=snapshot("new"))
    assert turn_until().last_snapshot == snapshot("base")
    assert turn_until(finished).last_snapshot == snapshot("new")
    assert settled(turn_until(), turned(tree="done")).last_snapshot == snapshot("done")


FINISHED = TurnFinished(record=TurnRecord(outcome=turned(2), decision="continue", reason=""))
REPORT = WorkerReport(outcome="ok")


@pytest.mark.parametrize(
    "events",
    [
        (),
        (RunStarted(runner=PROCESS),),
        (CREATED, CREATED),
        (*BEGUN, WorkerFinished(turn=1, report=REPORT, snapshot=snapshot())),
        (*BEGUN, AgentFailed(role="worker", agent="a", reason="")),
        (*BEGUN, VerificationFinished(turn=1, report=GREEN)),
        (*BEGUN, JudgementFinished(turn=1, judgement=judged())),
        (*BEGUN, TurnInterrupted(turn=1, reason="", snapshot=snapshot())),
        (*BEGUN, FINISHED),
        (*BEGUN, TurnStarted(turn=2, attempt=1)),
        (*BEGUN, TurnStarted(turn=1, attempt=1), WorkerFinished(turn=2, report=REPORT, snapshot=snapshot())),
        (*BEGUN, TurnStarted(turn=1, attempt=1), VerificationFinished(turn=2, report=GREEN)),
    ],
)
def test_records_that_cannot_follow_one_another_are_refused(events: tuple[Event, ...]) -> None:
    with pytest.raises(ValueError, match=r"turn|record|once"):
        fold(numbered(*events))
