import json
from typing import Any

from values import (
    GREEN,
    JUDGE,
    PROCESS,
    RED,
    checked,
    created,
    goal,
    judged,
    reported,
    settled,
    snapshot,
    spent,
    turned,
)

from goalrun.core.events import BaseVerified, Record, RunStarted, TurnStarted, WorkerFinished
from goalrun.core.model import GoalState, Session, Tamper, TurnRecord, WorkerReport
from goalrun.core.replay import apply
from goalrun.core.result import head, turn, verification

NUMBER = (int, float)


def shaped(value: Any, shape: Any, at: str = "$") -> None:  # noqa: ANN401 - any JSON
    """Hold JSON against a shape: exact keys, types, ``None`` where it may be null."""
    match shape:
        case dict():
            assert isinstance(value, dict), at
            assert sorted(value) == sorted(shape), at
            for key, inner in shape.items():
                shaped(value[key], inner, f"{at}.{key}")
        case list():
            assert isinstance(value, list), at
            for inner in value:
                shaped(inner, shape[0], f"{at}[]")
        case _:
            assert isinstance(value, shape), f"{at}: {value!r}"
            assert isinstance(value, bool) == (shape is bool), at


USAGE: dict[str, Any] = dict.fromkeys(("input_tokens", "output_tokens", "total_tokens"), int) | {
    "usd": float,
    "seconds": NUMBER,
}
TREE = {"commit": str, "tree": str}
VERIFICATION = {
    "outcome": str,
    "seconds": NUMBER,
    "sandbox": str,
    "checks": [
        {
            "command": str,
            "outcome": str,
            "grade": str,
            "exit_code": int,
            "seconds": NUMBER,
            "tests": {"passed": int, "failed": int, "skipped": int},
            "reason": str,
            "failing": [str],
            "output": str,
            "hidden": bool,
        }
    ],
    "tampering": [{"path": str, "kind": str}],
}
HEAD = {
    "schema": int, "id": str, "state": str, "detail": str, "objective": str, "workspace": str, "created_at": str,
    "turns": int,
    "limits": {
        "max_turns": int, "max_tokens": int, "max_usd": float, "max_time": float, "turn_timeout": float,
        "check_timeout": float, "stuck_after": int, "allow_unknown_spend": bool,
    },
    "usage": USAGE, "grade": str, "sandbox": str, "worker_isolation": str, "verdict": {"achieved": bool, "reason": str},
    "base": TREE, "base_verification": VERIFICATION, "snapshot": TREE, "best_turn": int,
}  # fmt: skip
TURN = {
    "turn": int,
    "worker": {
        "outcome": str, "exit_code": int, "seconds": NUMBER, "usage": USAGE, "reason": str, "agent": str, "model": str,
        "session": str, "denials": [str],
    },
    "snapshot": TREE, "changed_files": int, "verification": VERIFICATION,
    "judgement": {
        "achieved": bool, "blocked": bool, "reason": str, "judge": str, "attempts": int,
        "seconds": NUMBER, "usage": USAGE,
    },
    "usage": USAGE, "decision": str, "reason": str, "feedback": str,
}  # fmt: skip
COUNTED = reported(checked("fail", passed=1, failing=("t",)), edits=["tests/t.py"])


def then(state: GoalState, event: Any) -> GoalState:  # noqa: ANN401 - any event
    return apply(state, Record(seq=9, at="", event=event))


def finished() -> GoalState:
    spec = goal(judge=JUDGE, max_tokens=99, max_usd=9, max_time=999)
    started = then(created(spec), RunStarted(runner=PROCESS, worker_isolation="namespaces"))
    state = then(started, BaseVerified(report=COUNTED))
    return settled(state, turned(judgement=judged(achieved=True, reason="done", usage=spent(1)), usage=spent(10)))


def as_json(value: object) -> Any:  # noqa: ANN401 - any JSON
    return json.loads(json.dumps(value, allow_nan=False))


def test_the_result_has_the_promised_keys_and_types() -> None:
    shown = as_json(head(finished()))
    # A goal without counted tests has null there; the base of this one has counts.
    shaped(shown, HEAD)
    assert (shown["schema"], shown["id"], shown["state"], shown["turns"]) == (1, "g-1", "achieved", 1)
    assert shown["usage"]["total_tokens"] == 11
    assert shown["verdict"] == {"achieved": True, "reason": "done"}
    assert shown["base"] == {"commit": "commit-base", "tree": "base"}
    assert shown["snapshot"] == {"commit": "commit-tree-1", "tree": "tree-1"}
    assert (shown["best_turn"], shown["grade"], shown["sandbox"]) == (1, "strong", "process")


def test_a_turn_has_the_promised_keys_and_types() -> None:
    outcome = turned(
        verification=COUNTED, judgement=judged(reason="no", usage=spent(1)), usage=spent(10), seconds=1.23456
    )
    told = {"agent": "owl", "model": "m", "session": Session(id="s1"), "denials": ("Bash",)}
    worker = outcome.worker.but(**told)
    outcome = outcome.but(worker=worker)
    shown = as_json(turn(TurnRecord(outcome=outcome, decision="continue", reason="red", feedback="told")))
    shaped(shown, TURN)
    assert shown["verification"]["checks"][0]["tests"] == {"passed": 1, "failed": 1, "skipped": 0}
    assert shown["verification"]["tampering"] == [{"path": "tests/t.py", "kind": "modified"}]
    assert shown["worker"]["seconds"] == 1.235
    assert shown["worker"]["usage"]["seconds"] == 1.235  # an agent reports tokens and cost, goalrun measures time
    assert shown["usage"]["seconds"] == 1.935  # worker, checks and judge
    assert shown["usage"]["total_tokens"] == 11
    assert (shown["turn"], shown["decision"], shown["reason"], shown["feedback"]) == (1, "continue", "red", "told")


def test_unknown_usage_is_null_and_never_zero() -> None:
    state = settled(created(goal()), turned(usage=None, seconds=2))
    unknown = dict.fromkeys(("input_tokens", "output_tokens", "total_tokens", "usd"))
    shown = as_json(turn(state.turns[0]))
    assert shown["worker"]["usage"] == {**unknown, "seconds": 2}
    assert shown["usage"] == {**unknown, "seconds": 2.5}  # the worker's and the checks'
    assert as_json(head(state))["usage"] == {**unknown, "seconds": 0}
    assert as_json(head(created(goal())))["usage"]["total_tokens"] == 0


def test_what_is_not_there_yet_is_null() -> None:
    shown = as_json(head(created(goal())))
    assert [key for key, value in shown.items() if value is None] == [
        "grade", "sandbox", "worker_isolation", "verdict", "base_verification", "snapshot", "best_turn",
    ]  # fmt: skip
    assert shown["state"] == "running"
    judged_by_nobody = as_json(turn(settled(created(goal()), turned()).turns[0]))
    assert judged_by_nobody["judgement"] is None
    assert as_json(verification(GREEN))["checks"][0]["tests"] is None


def test_the_snapshot_of_an_open_turn_is_shown_and_the_verdict_stays_that_of_the_last_turn() -> None:
    state = settled(created(goal(judge=JUDGE)), turned(verification=RED))
    state = then(state, TurnStarted(turn=2, attempt=1))
    state = then(state, WorkerFinished(turn=2, report=WorkerReport(outcome="ok"), snapshot=snapshot("new")))
    shown = head(state)
    assert shown["snapshot"] == {"commit": "commit-new", "tree": "new"}
    assert shown["verdict"] is None
    assert shown["turns"] == 1


def test_warnings_and_undone_edits_of_a_snapshot_are_shown_where_there_are_any() -> None:
    edited = snapshot(warnings=("a link",), protected_edits=(Tamper(path="t", kind="deleted"),))
    state = then(
        then(created(goal()), TurnStarted(turn=1, attempt=1)),
        WorkerFinished(turn=1, report=WorkerReport(outcome="ok"), snapshot=edited),
    )
    assert head(state)["snapshot"] == {
        "commit": "commit-tree",
        "tree": "tree",
        "warnings": ["a link"],
        "protected_edits": [{"path": "t", "kind": "deleted"}],
    }
