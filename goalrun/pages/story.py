"""From a goal's records to its story: the turns, with when they began and what happened beside their own order."""

from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence

from goalrun.core.decide import turn_usage
from goalrun.core.events import (
    AgentFailed,
    Answered,
    Event,
    FlowReplaced,
    FlowTold,
    GoalStopped,
    QuotaWait,
    Record,
    RunStarted,
    TurnInterrupted,
    TurnParked,
    TurnStarted,
)
from goalrun.core.evidence import count
from goalrun.core.model import GoalState, TurnRecord
from goalrun.core.replay import apply
from goalrun.pages.model import Note, Story, Turn

MAX_NOTES, MAX_NAMED = 50, 10
"""Notes of one turn, of which a flow may tell many; turns that are named in one line."""


def story(records: Iterable[Record]) -> Story:
    """The story of a goal.

    Raises:
        ValueError: the records do not follow one another.
    """
    state: GoalState | None = None
    notes: dict[int, deque[Note]] = defaultdict(lambda: deque(maxlen=MAX_NOTES))
    began: dict[int, str] = {}
    for record in records:
        now = len(state.turns) + 1 if state is not None else 0
        if isinstance(record.event, TurnStarted):
            began.setdefault(now, record.at)
        # What comes before the first turn begins is no part of it.
        place = now if now in began or now > 1 else 0
        notes[place].extend(Note(record.at, text) for text in _told(record.event))
        state = apply(state, record)
    if state is None:
        raise ValueError("no record")
    turns = [
        _finished(turn, began.get(number, ""), tuple(notes[number])) for number, turn in enumerate(state.turns, start=1)
    ]
    last = len(turns) + 1
    if state.open is not None and last in began:
        turns.append(_open(state, began[last], tuple(notes[last])))
    after = () if len(turns) == last or last == 1 else tuple(notes[last])
    return Story(state, tuple(turns), tuple(notes[0]), after)


def _told(event: Event) -> Iterator[str]:  # noqa: C901 - one line per event
    match event:
        case RunStarted():
            yield "a process took the goal up" + (", with other limits" if event.limits is not None else "")
        case TurnStarted():
            if event.attempt > 1:
                yield f"attempt {event.attempt} began"
            yield from (f"hint: {text}" for text in event.hints)
        case AgentFailed():
            yield f"{event.agent} could not do it ({event.role}): {event.reason}"
        case QuotaWait():
            yield f"a provider's limit, until {event.until}: {event.detail}"
        case TurnInterrupted():
            yield f"cut: {event.reason}; its edits are kept"
        case TurnParked():
            yield f"the worker waits for: {event.report.wait_for}"
        case FlowTold():
            yield f"{event.path}: {event.text}"
        case Answered():
            yield f"a person answered: {event.text}"
        case FlowReplaced():
            yield "the flow was read again from its file"
        case GoalStopped():
            yield f"{event.state.value}: {event.detail}"
        case _:
            return


def _finished(record: TurnRecord, began: str, notes: tuple[Note, ...]) -> Turn:
    outcome = record.outcome
    return Turn(
        number=outcome.turn,
        began=began,
        folder=outcome.worker.transcript,
        worker=outcome.worker,
        snapshot=outcome.snapshot,
        verification=outcome.verification,
        judgement=outcome.judgement,
        decision=record.decision,
        reason=record.reason,
        feedback=record.feedback,
        usage=turn_usage(outcome),
        notes=notes,
    )


def _open(state: GoalState, began: str, notes: tuple[Note, ...]) -> Turn:
    turn = state.open
    assert turn is not None  # noqa: S101 - asked by the caller; for the type checker
    said = turn.worker.transcript if turn.worker is not None else ""
    return Turn(
        number=turn.turn,
        began=began,
        folder=said or f"turns/turn-{turn.turn}/worker-{turn.attempt}",
        worker=turn.worker,
        snapshot=turn.snapshot,
        verification=turn.verification,
        judgement=turn.judgement,
        decision="",
        reason="",
        feedback="",
        usage=turn.worker.usage if turn.worker is not None else None,
        notes=notes,
    )


def files_of(turn: Turn) -> Iterator[tuple[str, str]]:
    """What there is to read of a turn: a title and a path below the goal's folder each."""
    if turn.folder:
        yield "What the worker was told", f"{turn.folder}/prompt.md"
        yield "What the worker printed", f"{turn.folder}/stdout"
        yield "What the worker printed as errors", f"{turn.folder}/stderr"
    for check in turn.verification.checks if turn.verification is not None else ():
        yield f"Output of {check.command}", check.output
    if turn.judgement is not None:
        yield "What the judge was told", turn.judgement.brief
        yield "What the judge answered", turn.judgement.reply


def rests_on(story: Story) -> Iterator[tuple[str, str, str]]:
    """What the verdict rests on: a heading, what is known, and ``good``, ``bad``, ``alarm`` or "" each."""
    state = story.state
    last = next((turn for turn in reversed(story.turns) if turn.verification is not None), None)
    report = last.verification if last is not None else state.base_verification
    judgement = last.judgement if last is not None else state.base_judgement
    place = f"turn {last.number}" if last is not None else "the base"
    for check in report.checks if report is not None else ():
        tests = f", {count(check.tests.passed, 'test')} passed, {check.tests.failed} failed" if check.tests else ""
        why = f": {check.reason}" if check.reason else ""
        told = f"{check.outcome} on {place} ({check.grade}{tests}){why}"
        yield f"{'Hidden check' if check.hidden else 'Check'} {check.command}", told, _mark(check.outcome)
    if report is None:
        yield "Checks", "no verification yet", ""
    elif not report.checks:
        yield "Checks", "none: the judge decides alone", ""
    yield "Sandbox", _sandbox(state, report.sandbox if report is not None else ""), ""
    if judgement is not None:
        verdict = judgement.verdict
        said = "achieved" if verdict.achieved else "blocked" if verdict.blocked else "not achieved"
        yield f"Judge {judgement.judge}", f"{said}: {verdict.reason}", "good" if verdict.achieved else "bad"
    elif not state.spec.judges:
        yield "Judge", "none: the checks alone decide", ""
    else:
        yield "Judge", "not asked: a judge is asked only once all checks pass", ""
    yield "Baseline", _baseline(state), ""
    yield "Tampering", *_tampering(story.turns)
    yield "Worker", f"isolation: {state.worker_isolation or 'not run yet'}", ""


def _mark(outcome: str) -> str:
    return "good" if outcome == "pass" else "alarm" if outcome == "tampered" else "bad"


def _sandbox(state: GoalState, level: str) -> str:
    place = "a clean worktree of the snapshot" if state.spec.verification.worktree else "the live workspace"
    return f"{level or 'not chosen yet'}; checks run in {place}"


def _baseline(state: GoalState) -> str:
    report = state.base_verification
    if report is None:
        return "the checks did not run on the base"
    counts = [check.tests for check in report.checks if check.tests is not None]
    passed, failed = sum(each.passed for each in counts), sum(each.failed for each in counts)
    tests = f": {count(passed, 'test')} passed, {failed} failed" if counts else ""
    kept = "" if state.spec.verification.baseline else "; no floor was kept (--no-baseline), so passes are weak"
    return f"{report.outcome} before turn 1{tests}{kept}"


def _tampering(turns: Sequence[Turn]) -> tuple[str, str]:
    found: Mapping[int, int] = {turn.number: len(turn.touched) for turn in turns if turn.touched}
    if not found:
        return "none was found in any turn", "good"
    named = [f"turn {number} ({count(paths, 'path')})" for number, paths in found.items()]
    more = f" and {count(len(named) - MAX_NAMED, 'more turn')}" if len(named) > MAX_NAMED else ""
    said = ", ".join(named[:MAX_NAMED])
    return f"protected paths were edited in {said}{more}; the checks ran without those edits", "alarm"
