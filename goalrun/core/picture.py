"""What is to be seen of a goal while it runs: the state, its stage, and each step of its flow. Folded from records."""

import json
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Literal

from goalrun.core.decide import verified
from goalrun.core.events import (
    AgentFailed,
    BaseVerified,
    CallFinished,
    CallStarted,
    FlowTold,
    GoalStopped,
    QuotaWait,
    Record,
    StepSettled,
    TurnFinished,
    TurnParked,
    TurnStarted,
    VerificationFinished,
)
from goalrun.core.evidence import one_line
from goalrun.core.model import NOTHING_SPENT, CallRecord, GoalState, State, StepRecord, Usage, VerificationReport
from goalrun.core.value import Value

Stage = Literal["queue", "preparing", "base", "worker", "snapshot", "checks", "judge", "deciding", "quota", "ended"]
MAX_SPOKEN_CHARS = 400
MAX_DEPTH = 6
_SPOKEN = frozenset({
    "text", "thinking", "result", "message", "content", "delta", "command", "file_path", "path", "pattern", "query",
    "name", "error", "output", "summary",
})  # fmt: skip
"""Keys of an agent's events that hold something for people, in the streams of all readers of ``adapters.agents``."""
_BOOKKEEPING = frozenset({"system", "init", "stream_event", "session"})
"""Types of events that hold nothing for people."""


class StepPicture(Value):
    """A step of a flow, an item or a member of one, as it is now.

    Attributes:
        status: ``running``, or as of ``StepRecord``.
        began: when its last call began (ISO 8601); "" for none.
        seconds: how long it took, once it is settled.
        calls: how many calls it began.
        usage: of its calls that are over; None is unknown.
    """

    status: str
    began: str = ""
    seconds: float = 0.0
    calls: int = 0
    agent: str = ""
    model: str = ""
    usage: Usage | None = NOTHING_SPENT
    cached: bool = False
    reason: str = ""
    winner: str = ""


class Picture(Value):
    """A goal as people see it while it runs.

    Attributes:
        stage: what goes on; ``ended`` also where the goal stops for now.
        since: when that began (ISO 8601).
        at: when the last thing happened (ISO 8601).
        steps: of the open turn, else of the last one, by path, in the order in which they began.
        told: what happened last beside the turns: an agent that failed, a limit, a line of a flow.
    """

    state: GoalState
    stage: Stage
    since: str
    at: str
    steps: Mapping[str, StepPicture] = {}
    told: str = ""

    @property
    def latest(self) -> VerificationReport | None:
        """The newest verification: of the open turn, else of the last one, else of the base."""
        state = self.state
        if state.open is not None and state.open.verification is not None:
            return state.open.verification
        return state.turns[-1].outcome.verification if state.turns else state.base_verification

    @property
    def label(self) -> str:
        """Where the files of what goes on lie, below ``turns`` in the goal's folder."""
        return "base" if self.state.open is None and not self.state.turns else f"turn-{self.turn}"

    @property
    def turn(self) -> int:
        """The open turn, else the last one; 0 before the first."""
        return self.state.open.turn if self.state.open is not None else len(self.state.turns)


def seen(before: Picture | None, record: Record, state: GoalState) -> Picture:
    """The picture after one more record, which led to ``state``."""
    stage = _stage(record, state) or (before.stage if before is not None else "queue")
    if before is None:
        known = {path: _settled(None, step, "") for path, step in state.flow.steps.items()}
        return Picture(state=state, stage=stage, since=record.at, at=record.at, steps=known)
    # A stage that begins anew has its own time, as a second attempt has.
    again = isinstance(record.event, TurnStarted) or stage != before.stage
    return Picture(
        state=state,
        stage=stage,
        since=record.at if again else before.since,
        at=record.at,
        steps=_steps(before.steps, record),
        told=_told(before.told, record),
    )


_BEGINS: Mapping[str, Stage] = {
    "goal_created": "queue",
    "run_started": "preparing",
    "base_taken": "base",
    "base_verified": "deciding",
    "quota_wait": "quota",
    "turn_started": "worker",
    "worker_ended": "snapshot",
    "worker_finished": "checks",
    "verification_finished": "deciding",
    "judgement_finished": "deciding",
    "turn_finished": "deciding",
}
"""Which stage a kind of record begins; with the others the stage goes on."""


def _stage(record: Record, state: GoalState) -> Stage | None:
    if state.status not in {State.RUNNING, State.RATE_LIMITED} or isinstance(record.event, GoalStopped):
        return "ended"
    if isinstance(record.event, VerificationFinished):
        return "judge" if state.spec.judges and verified(state.spec, record.event.report) else "deciding"
    return _BEGINS.get(record.event.kind)


def _told(before: str, record: Record) -> str:
    match record.event:
        case TurnFinished() | BaseVerified():
            return ""
        case AgentFailed(role=role, reason=reason):
            return one_line(f"{role} failed: {reason}")
        case QuotaWait(detail=detail):
            return one_line(detail)
        case TurnParked(report=report):
            return one_line(f"the worker waits for: {report.wait_for}")
        case FlowTold(text=text):
            return one_line(text)
        case _:
            return before


def _steps(before: Mapping[str, StepPicture], record: Record) -> Mapping[str, StepPicture]:
    match record.event:
        case TurnStarted():
            return {}
        case CallStarted(path=path, agent=agent):
            begun = {each: _begun(before.get(each), record.at, agent) for each in owners(path)}
            return {**before, **begun}
        case CallFinished(path=path, call=call):
            return {**before, **{each: _called(before.get(each), call) for each in owners(path)}}
        case StepSettled(path=path, step=step):
            return {**before, path: _settled(before.get(path), step, record.at)}
        case _:
            return before


def owners(path: str) -> Iterator[str]:
    """A path of a step, and those of what it is an item or a member of, outermost first.

    >>> list(owners("review[2]/lead"))
    ['review', 'review[2]', 'review[2]/lead']
    """
    cuts = [place for place, char in enumerate(path) if char in "[/" and place]
    yield from dict.fromkeys(path[:cut] for cut in (*cuts, len(path)))


def _begun(before: StepPicture | None, at: str, agent: str) -> StepPicture:
    known = before or StepPicture(status="running")
    began = known.began if known.status == "running" and known.began else at
    now = {"status": "running", "began": began, "calls": known.calls + 1, "agent": agent, "reason": ""}
    return known.but(**now)


def _called(before: StepPicture | None, call: CallRecord) -> StepPicture:
    known = before or StepPicture(status="running")
    spent = None if known.usage is None or call.usage is None else known.usage.plus(call.usage)
    now = {"usage": spent, "agent": call.agent or known.agent, "model": call.model or known.model}
    return known.but(**now)


def _settled(before: StepPicture | None, step: StepRecord, at: str) -> StepPicture:
    known = before or StepPicture(status=step.status)
    now = {key: getattr(step, key) for key in ("status", "cached", "reason", "winner")}
    # A record's seconds are those of all its items together; people waited from the first one's beginning.
    began = datetime.fromisoformat(known.began) if known.began else None
    seconds = step.seconds if began is None else (datetime.fromisoformat(at) - began).total_seconds()
    calls = max(known.calls, step.attempts)
    return known.but(**now, seconds=max(0.0, seconds), calls=calls)


def spoken(line: str) -> str:
    """One line of what an agent printed, for people; of an event in JSON the words in it; "" for bookkeeping."""
    try:
        event = json.loads(line) if line.lstrip().startswith("{") else None
    except (ValueError, RecursionError):
        # Cut, or not JSON after all.
        event = None
    if not isinstance(event, dict):
        return one_line(line, MAX_SPOKEN_CHARS)
    if event.get("type") in _BOOKKEEPING:
        return ""
    return one_line(" ".join(_words(event, MAX_DEPTH)), MAX_SPOKEN_CHARS)


def _words(value: object, depth: int) -> Iterator[str]:
    if not depth:
        return
    if isinstance(value, dict):
        for key, each in value.items():
            if isinstance(each, str) and key in _SPOKEN:
                yield each
            else:
                yield from _words(each, depth - 1)
    elif isinstance(value, list):
        for each in value:
            yield from _words(each, depth - 1)
