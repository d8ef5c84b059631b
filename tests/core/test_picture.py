"""What is seen of a goal while it runs: folded from its records, and nothing else."""

import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from values import GREEN, JUDGE, RED, goal, judged, snapshot, turned

from goalrun.core.events import (
    AgentFailed,
    BaseTaken,
    BaseVerified,
    CallFinished,
    CallStarted,
    Event,
    FlowTold,
    GoalCreated,
    GoalStopped,
    JudgementFinished,
    QuotaOver,
    QuotaWait,
    Record,
    StepSettled,
    TurnFinished,
    TurnStarted,
    VerificationFinished,
    WorkerEnded,
    WorkerFinished,
)
from goalrun.core.model import CallRecord, State, StepRecord, TurnRecord, Usage, WorkerReport
from goalrun.core.picture import Picture, owners, seen, spoken
from goalrun.core.replay import apply
from goalrun.core.spec import GoalSpec

DONE = WorkerReport(outcome="ok")


def at(second: int) -> str:
    return f"2026-01-01T00:00:{second:02}.000+00:00"


def pictures(*events: Event, spec: GoalSpec | None = None) -> list[Picture]:
    """The picture after each event; the n-th happens at second n, and the goal was created at 0."""
    state, picture, found = None, None, []
    for second, event in enumerate((GoalCreated(spec=spec or goal()), *events)):
        record = Record(seq=second + 1, at=at(second), elapsed=float(second), event=event)
        state = apply(state, record)
        picture = seen(picture, record, state)
        found.append(picture)
    return found


def test_each_stage_begins_with_its_record_and_keeps_its_time() -> None:
    turn = turned(verification=RED)
    found = pictures(
        BaseTaken(snapshot=snapshot("base")),
        BaseVerified(report=RED),
        TurnStarted(turn=1, attempt=1),
        AgentFailed(role="worker", agent="a", reason="it fell over"),
        TurnStarted(turn=1, attempt=2),
        WorkerEnded(turn=1, report=DONE),
        WorkerFinished(turn=1, report=DONE, snapshot=snapshot()),
        VerificationFinished(turn=1, report=RED),
        TurnFinished(record=TurnRecord(outcome=turn, decision="continue", reason="red")),
    )
    stages = [(picture.stage, picture.since) for picture in found]
    assert stages == [
        ("queue", at(0)),
        ("base", at(1)),
        ("deciding", at(2)),
        ("worker", at(3)),
        ("worker", at(3)),
        ("worker", at(5)),
        ("snapshot", at(6)),
        ("checks", at(7)),
        ("deciding", at(8)),
        ("deciding", at(8)),
    ]
    assert [picture.told for picture in found[4:]] == ["worker failed: it fell over"] * 5 + [""]
    assert (found[1].label, found[4].label, found[-1].label, found[-1].turn) == ("base", "turn-1", "turn-1", 1)
    assert found[8].latest == RED


def test_a_judge_is_asked_only_when_all_is_green() -> None:
    begun = (BaseTaken(snapshot=snapshot()), TurnStarted(turn=1, attempt=1))
    worked = (*begun, WorkerFinished(turn=1, report=DONE, snapshot=snapshot()))
    spec = goal(judge=JUDGE)
    assert pictures(*worked, VerificationFinished(turn=1, report=GREEN), spec=spec)[-1].stage == "judge"
    assert pictures(*worked, VerificationFinished(turn=1, report=RED), spec=spec)[-1].stage == "deciding"
    judgement = JudgementFinished(turn=1, judgement=judged(achieved=True))
    green = (*worked, VerificationFinished(turn=1, report=GREEN), judgement)
    assert pictures(*green, spec=spec)[-1].stage == "deciding"


def test_a_wait_and_an_end_are_stages() -> None:
    begun = (TurnStarted(turn=1, attempt=1), QuotaWait(until=at(9), detail="until nine"))
    assert (pictures(*begun)[-1].stage, pictures(*begun)[-1].told) == ("quota", "until nine")
    assert pictures(*begun, QuotaOver(), TurnStarted(turn=1, attempt=2))[-1].stage == "worker"
    assert pictures(*begun, GoalStopped(state=State.PAUSED, detail="so"))[-1].stage == "ended"
    assert pictures(BaseTaken(snapshot=snapshot()), BaseVerified(report=GREEN, achieved=True))[-1].stage == "ended"


def call(path: str, number: int, agent: str = "") -> CallStarted:
    return CallStarted(turn=1, path=path, key="k" + path, number=number, agent=agent)


def ended(path: str, number: int, tokens: int | None = None, model: str = "") -> CallFinished:
    usage = None if tokens is None else Usage(input_tokens=tokens, output_tokens=0, total_tokens=tokens, usd=0.5)
    made = CallRecord(status="done", usage=usage, agent="claude", model=model)
    return CallFinished(turn=1, path=path, key="k" + path, number=number, call=made)


def test_steps_count_their_calls_and_what_they_spent_and_know_their_items() -> None:
    found = pictures(
        TurnStarted(turn=1, attempt=1),
        call("fan[1]", 1, "claude"),
        call("fan[2]", 1),
        ended("fan[1]", 1, tokens=10, model="opus"),
        call("fan[1]", 2, "claude"),
        ended("fan[1]", 2, tokens=5),
        StepSettled(turn=1, path="fan[1]", step=StepRecord(status="failed", reason="no", attempts=2, seconds=9.0)),
        FlowTold(turn=1, path="fan", what="log", text="a line\x1b[2J of it"),
    )
    steps = found[-1].steps
    assert list(steps) == ["fan", "fan[1]", "fan[2]"]
    assert (steps["fan"].status, steps["fan"].calls) == ("running", 3)
    one = steps["fan[1]"]
    assert (one.status, one.calls, one.model, one.reason, one.seconds) == ("failed", 2, "opus", "no", 5.0)
    assert one.usage is not None
    assert (one.usage.total_tokens, one.usage.usd) == (15, 1.0)
    assert (steps["fan[2]"].status, steps["fan[2]"].began) == ("running", at(3))
    assert found[-1].told == "a line of it"
    again = pictures(TurnStarted(turn=1, attempt=1), call("a", 1), TurnStarted(turn=1, attempt=2))
    assert again[-1].steps == {}


def test_spend_that_one_call_does_not_tell_is_unknown() -> None:
    found = pictures(TurnStarted(turn=1, attempt=1), call("a", 1), ended("a", 1), call("a", 2), ended("a", 2, tokens=3))
    assert found[-1].steps["a"].usage is None


def test_a_resumed_goal_shows_the_steps_that_are_settled_already() -> None:
    state = pictures(
        TurnStarted(turn=1, attempt=1),
        StepSettled(turn=1, path="a", step=StepRecord(status="done", seconds=3.0, attempts=1)),
    )[-1].state
    record = Record(seq=9, at=at(9), event=QuotaOver())
    assert seen(None, record, state).steps["a"].status == "done"


@pytest.mark.parametrize(
    ("path", "whole"),
    [
        ("a", ["a"]),
        ("a[1]", ["a", "a[1]"]),
        ("a[1]/b", ["a", "a[1]", "a[1]/b"]),
        ("a/b/c", ["a", "a/b", "a/b/c"]),
        ("[x", ["[x"]),
    ],
)
def test_owners_of_a_path(path: str, whole: list[str]) -> None:
    assert list(owners(path)) == whole


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("plain words", "plain words"),
        ("\x1b[31mred\x1b[0m \u202eback\x07", "red back"),
        ('{"type": "system", "subtype": "init", "tools": ["Bash"]}', ""),
        (
            '{"type": "assistant", "content": [{"text": "I look"}, {"name": "Bash", "input": {"command": "ls"}}]}',
            "I look Bash ls",
        ),
        ('{"type": "item.completed", "item": {"type": "agent_message", "text": "done\\u0000\\u001b[2J"}}', "done"),
        ('{"cut in the middle', '{"cut in the middle'),
        ("[" * 100_000, "[" * 399 + "…"),
    ],
)  # fmt: skip
def test_a_line_of_an_agent_is_told_in_words(line: str, told: str) -> None:
    assert spoken(line) == told


@given(st.text())
def test_what_is_told_is_one_bounded_line_of_harmless_characters(text: str) -> None:
    for line in (text, json.dumps({"text": text}), json.dumps({"a": [{"message": {"content": text}}]})):
        told = spoken(line)
        assert len(told) <= 400
        assert not {unicodedata.category(char) for char in told} & {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"}


def test_deep_json_is_told_without_harm() -> None:
    deep: object = "x"
    for _ in range(50):
        deep = {"text": deep}
    assert spoken(json.dumps(deep)) == ""
