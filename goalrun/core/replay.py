"""The state is the fold of the journal: the live loop and a resume run every record through ``apply``."""

from collections.abc import Iterable, Mapping
from typing import assert_never

from goalrun.core.decide import score, uncounted
from goalrun.core.events import (
    AgentFailed,
    Answered,
    BaseTaken,
    BaseVerified,
    CallFinished,
    CallStarted,
    Event,
    FlowReplaced,
    FlowTold,
    GoalCreated,
    GoalStopped,
    JudgementFinished,
    OfTurn,
    ProcessStarted,
    QuotaOver,
    QuotaWait,
    Record,
    RunStarted,
    StepSettled,
    TurnFinished,
    TurnInterrupted,
    TurnParked,
    TurnStarted,
    VerificationFinished,
    WorkerEnded,
    WorkerFinished,
)
from goalrun.core.flow.verdict import refusal
from goalrun.core.model import Begun, GoalState, OpenTurn, Session, State, TurnRecord, Usage


def fold(records: Iterable[Record]) -> GoalState:
    """The state after some records.

    Raises:
        ValueError: the records do not begin with ``GoalCreated``, or do not follow one another.
    """
    state: GoalState | None = None
    for record in records:
        state = apply(state, record)
    if state is None:
        raise ValueError("no record")
    return state


def apply(state: GoalState | None, record: Record) -> GoalState:
    """The state after one more record.

    Raises:
        ValueError: the record cannot follow this state.
    """
    event = record.event
    if isinstance(event, GoalCreated):
        if state is not None:
            raise ValueError("a goal is created once")
        return GoalState(spec=event.spec, created_at=record.at)
    if state is None:
        raise ValueError("the first record must create the goal")
    if isinstance(event, OfTurn) and event.turn != len(state.turns) + 1:
        raise ValueError(f"a record of turn {event.turn} cannot follow {len(state.turns)} turns")
    seconds = max(state.usage.seconds, state.seconds_before + record.elapsed)
    timed = state.but(usage=state.usage.but(seconds=seconds))
    return _apply(timed, event)


def _apply(state: GoalState, event: Event) -> GoalState:  # noqa: C901, PLR0911, PLR0912 - one case per event
    match event:
        case RunStarted():
            return _run_started(state, event)
        case BaseTaken():
            return state.but(base=event.snapshot)
        case BaseVerified():
            return _base_verified(state, event)
        case TurnStarted():
            return _turn_started(state, event)
        case ProcessStarted():
            worker = event.role == "worker"
            opened = _with_open(state, launched=True) if worker and state.open is not None else state
            judging = state.judging or event.role == "judge"
            return opened.but(judging=judging, processes=(*state.processes, event.process))
        case AgentFailed():
            return _agent_failed(state, event)
        case QuotaWait():
            return state.but(status=State.RATE_LIMITED, detail=event.detail)
        case QuotaOver():
            return state.but(status=State.RUNNING, detail="")
        case TurnInterrupted():
            return _interrupted(state, event)
        case TurnParked():
            return _parked(state, event)
        case WorkerEnded() | WorkerFinished() | VerificationFinished() | JudgementFinished():
            return _turn_went_on(state, event)
        case TurnFinished():
            return advance(state, event.record)
        case GoalStopped():
            asked = _with_flow(state, question=event.question)
            return asked.but(status=event.state, detail=event.detail)
        case FlowReplaced():
            return state.but(spec=state.spec.but(flow=event.flow))
        case CallStarted() | CallFinished() | StepSettled() | Answered():
            return _flow_went_on(state, event)
        case FlowTold():
            return state
        case GoalCreated():
            raise ValueError("a goal is created once")
        case _:
            assert_never(event)


def advance(state: GoalState, record: TurnRecord) -> GoalState:
    """The state after a finished turn: its usage counted once, its decision acted on."""
    outcome = record.outcome
    if outcome.turn != len(state.turns) + 1:
        raise ValueError(f"turn {outcome.turn} cannot follow {len(state.turns)} turns")
    ends = record.decision != "continue"
    seconds = state.usage.seconds
    better = state.best is None or score(outcome) > score(state.turns[state.best - 1].outcome)
    return state.but(
        turns=(*state.turns, record),
        best=outcome.turn if better else state.best,
        open=None,
        usage=state.usage.plus(uncounted(outcome)).but(seconds=seconds),
        hints=(),
        feedback=record.feedback,
        status=State(record.decision) if ends else State.RUNNING,
        detail=record.reason,
        processes=(),
    )


def _turn_went_on(
    state: GoalState, event: WorkerEnded | WorkerFinished | VerificationFinished | JudgementFinished
) -> GoalState:
    match event:
        case WorkerEnded(report=report):
            known = state.but(sessions=_sessions(state, report.agent, report.session))
            return _with_open(known, worker=report)
        case WorkerFinished(report=report, snapshot=snapshot):
            return _with_open(state, worker=report, snapshot=snapshot)
        case VerificationFinished(report=verification):
            return _with_open(state, verification=verification)
        case JudgementFinished(judgement=judgement):
            return _with_open(state.but(judging=False), judgement=judgement)


def _flow_went_on(state: GoalState, event: CallStarted | CallFinished | StepSettled | Answered) -> GoalState:
    flow = state.flow
    match event:
        case CallStarted():
            begun = Begun(path=event.path, spends=event.spends, asks=event.asks)
            opened = _with_open(state, launched=True)
            return _with_flow(opened, begun={**flow.begun, f"{event.key}:{event.number}": begun})
        case CallFinished():
            name = f"{event.key}:{event.number}"
            begun_left = {key: value for key, value in flow.begun.items() if key != name}
            calls = {**flow.calls, name: event.call} if event.call.status == "done" else flow.calls
            counted = state.but(usage=_spent(state, event.call.usage))
            return _with_flow(counted, begun=begun_left, calls=calls)
        case StepSettled():
            return _with_flow(state, steps={**flow.steps, event.path: event.step})
        case Answered():
            return _with_flow(state, question="", answers={**flow.answers, event.key: event.text})


def _with_flow(state: GoalState, **changes: object) -> GoalState:
    return state.but(flow=state.flow.but(**changes))


def _interrupted(state: GoalState, event: TurnInterrupted) -> GoalState:
    again = _again(state).but(interrupted=event.reason)
    sessions = _sessions(state, _open(state).agent, event.session)
    # What began and was cut is forgotten, but for what a person has to look at.
    begun = {key: begun for key, begun in state.flow.begun.items() if begun.asks}
    return _with_flow(state, begun=begun).but(open=again, sessions=sessions, usage=_spent(state, event.usage))


def _agent_failed(state: GoalState, event: AgentFailed) -> GoalState:
    limited = {**state.limited, event.agent: event.until} if event.until else state.limited
    after = state.but(limited=limited, usage=_spent(state, event.usage), judging=False)
    return _with_open(after, failed=event.reason) if event.role == "worker" else after


def _parked(state: GoalState, event: TurnParked) -> GoalState:
    wait_for = event.report.wait_for
    waited = f"you asked to wait for: {wait_for}; that is over"
    again = _again(state).but(interrupted=waited, parks=_open(state).parks + 1, wait_for=wait_for)
    sessions = _sessions(state, event.report.agent, event.report.session)
    usage = _spent(state, event.report.usage)
    return state.but(open=again, sessions=sessions, usage=usage, detail=f"the worker waits for: {wait_for}")


def _again(state: GoalState) -> OpenTurn:
    """The open turn, to be begun once more."""
    opened = _open(state)
    return OpenTurn(turn=opened.turn, attempt=opened.attempt, parks=opened.parks)


def _spent(state: GoalState, usage: Usage | None) -> Usage:
    """The goal's usage with this counted in; its seconds are told by the records' own clock."""
    return state.usage.plus(usage or Usage()).but(seconds=state.usage.seconds)


def _sessions(state: GoalState, agent: str, session: Session | None) -> Mapping[str, Session]:
    return {**state.sessions, agent: session} if session is not None else state.sessions


def _run_started(state: GoalState, event: RunStarted) -> GoalState:
    spec = state.spec
    if event.limits is not None:
        spec = spec.but(limits=event.limits)
    resumed_stuck = state.status is State.STUCK
    if state.status is State.BLOCKED:
        # What a person refused is asked again, as a gate that blocked is.
        agreed = {key: text for key, text in state.flow.answers.items() if refusal(text) is None}
        state = _with_flow(state, answers=agreed)
    return state.but(
        spec=spec,
        status=State.RUNNING,
        detail="",
        worker_isolation=event.worker_isolation,
        seconds_before=state.usage.seconds,
        # A judge that was asked when the last run was cut: nobody knows what it spent.
        usage=_spent(state, None) if state.judging else state.usage,
        judging=False,
        fresh_from=len(state.turns) if resumed_stuck else state.fresh_from,
        processes=(),
    )


def _base_verified(state: GoalState, event: BaseVerified) -> GoalState:
    return state.but(
        base_verification=event.report,
        base_judgement=event.judgement,
        status=State.ACHIEVED if event.achieved else state.status,
        detail=event.detail,
        usage=state.usage if event.judgement is None else _spent(state, event.judgement.usage),
        judging=False,
        processes=(),
    )


def _turn_started(state: GoalState, event: TurnStarted) -> GoalState:
    again = OpenTurn(turn=event.turn)
    if state.open is not None:
        again = _again(state).but(interrupted=state.open.interrupted)
    opened = again.but(attempt=event.attempt, agent=event.agent)
    fresh = _with_flow(state, steps={})
    return fresh.but(open=opened, hints=event.hints, processes=(), detail="")


def _open(state: GoalState) -> OpenTurn:
    if state.open is None:
        raise ValueError("no turn is open")
    return state.open


def _with_open(state: GoalState, **changes: object) -> GoalState:
    return state.but(open=_open(state).but(**changes))
