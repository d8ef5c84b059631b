from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from values import COMMAND, GREEN, JUDGE, RED, after, changed, checked, created, goal, judged, reported, settled, turned

from goalrun.core.decide import decide, gate, rests_on, score
from goalrun.core.model import (
    CheckResult,
    Continue,
    GoalState,
    Judgement,
    Snapshot,
    State,
    Stop,
    Tamper,
    TestCounts,
    TurnOutcome,
    Usage,
    Verdict,
    VerificationReport,
    WorkerReport,
)

SATISFIED = judged(achieved=True)


def state_of(state: GoalState, outcome: TurnOutcome) -> State:
    decision = decide(state, outcome)
    return decision.state if isinstance(decision, Stop) else State.RUNNING


def test_success_on_the_last_allowed_turn_is_success() -> None:
    assert state_of(created(goal(max_turns=1)), turned()) is State.ACHIEVED


@pytest.mark.parametrize("limits", [{"max_tokens": 1}, {"max_usd": 0.01}])
def test_success_over_budget_is_success(limits: dict[str, Any]) -> None:
    assert state_of(created(goal(**limits)), turned()) is State.ACHIEVED


def test_success_with_unknown_spend_under_a_limit_is_success() -> None:
    assert state_of(created(goal(max_usd=1)), turned(usage=None)) is State.ACHIEVED


@pytest.mark.parametrize(
    "verification",
    [
        reported(),
        RED,
        reported(checked(), checked("fail")),
        *(
            reported(checked(outcome), outcome="pass")
            for outcome in ("fail", "timeout", "tampered", "error", "not_run")
        ),
        *(reported(checked(), outcome=outcome) for outcome in ("fail", "tampered", "error")),
        reported(checked(), edits=["tests/t.py"]),
        reported(checked(), outcome="pass", edits=["tests/t.py"]),
        reported(checked(command="another one"), outcome="pass"),
    ],
)
def test_nothing_but_every_check_passing_untampered_is_green(verification: VerificationReport) -> None:
    outcome = turned(verification=verification)
    assert not gate(created(goal()), outcome)
    assert not gate(created(goal(judge=JUDGE)), turned(verification=verification, judgement=SATISFIED))
    assert state_of(created(goal()), outcome) is not State.ACHIEVED


def test_a_check_that_the_report_does_not_speak_of_has_not_passed() -> None:
    state = created(goal(checks=(COMMAND, "ruff check")))
    assert not gate(state, turned(verification=GREEN))
    assert gate(state, turned(verification=reported(checked(), checked(command="ruff check"))))


def test_a_judge_that_objects_or_was_not_asked_vetoes() -> None:
    state = created(goal(judge=JUDGE))
    assert gate(state, turned(judgement=SATISFIED))
    assert not gate(state, turned(judgement=judged(reason="no")))
    assert not gate(state, turned(judgement=None))


def test_without_checks_the_judge_decides_and_without_either_nobody_does() -> None:
    state = created(goal(checks=(), judge=JUDGE))
    nothing = reported(outcome="weak_pass")
    assert gate(state, turned(verification=nothing, judgement=SATISFIED))
    assert not gate(state, turned(verification=nothing))
    with pytest.raises(ValueError, match="a check or a judge"):
        goal(checks=())


@pytest.mark.parametrize(
    "outcome",
    [
        turned(verification=RED, outcome="blocked", reason="no key"),
        turned(judgement=judged(blocked=True, reason="no key")),
    ],
)
def test_an_obstacle_comes_before_the_turn_limit_and_says_what_it_is(outcome: TurnOutcome) -> None:
    decision = decide(created(goal(judge=JUDGE, max_turns=1, max_tokens=1)), outcome)
    assert isinstance(decision, Stop)
    assert decision.state is State.BLOCKED
    assert "no key" in decision.detail


def test_success_comes_before_an_obstacle() -> None:
    assert state_of(created(goal()), turned(outcome="blocked")) is State.ACHIEVED


def test_the_turn_limit_comes_before_the_budget_and_is_not_one_turn_early() -> None:
    state = created(goal(max_turns=2, max_tokens=15))
    assert state_of(state, turned(verification=RED)) is State.RUNNING
    again = after(state, turned(verification=RED))
    assert state_of(again, turned(2, verification=RED)) is State.MAX_TURNS


@pytest.mark.parametrize(
    ("limits", "ends"),
    [
        ({"max_tokens": 10}, State.BUDGET_EXCEEDED),
        ({"max_tokens": 11}, State.RUNNING),
        ({"max_usd": 0.1}, State.BUDGET_EXCEEDED),
        ({"max_usd": 0.11}, State.RUNNING),
    ],
)
def test_a_limit_is_reached_by_the_turn_that_reaches_it(limits: dict[str, Any], ends: State) -> None:
    assert state_of(created(goal(**limits)), turned(verification=RED)) is ends


def test_the_judge_s_spend_counts() -> None:
    spending = turned(judgement=judged(reason="no", usage=Usage(total_tokens=5, usd=0.0)))
    assert state_of(created(goal(judge=JUDGE, max_tokens=15)), spending) is State.BUDGET_EXCEEDED
    assert state_of(created(goal(judge=JUDGE, max_tokens=16)), spending) is State.RUNNING


def test_the_time_limit_counts_the_running_time_of_the_goal() -> None:
    state = created(goal(max_time=100))
    used = state.but(usage=Usage(seconds=100))
    assert state_of(state, turned(verification=RED)) is State.RUNNING
    assert state_of(used, turned(verification=RED)) is State.BUDGET_EXCEEDED


@pytest.mark.parametrize("limits", [{"max_tokens": 1000}, {"max_usd": 1000.0}])
@pytest.mark.parametrize("unknown", [turned(verification=RED, usage=None), turned(judgement=judged(reason="no"))])
def test_unknown_spend_under_a_limit_is_over_it(limits: dict[str, Any], unknown: TurnOutcome) -> None:
    assert state_of(created(goal(judge=JUDGE, **limits)), unknown) is State.BUDGET_EXCEEDED
    assert state_of(created(goal(judge=JUDGE)), unknown) is State.RUNNING


def test_the_budget_comes_before_being_stuck() -> None:
    state = after(created(goal(max_tokens=30)), turned(1, RED, tree="base"), turned(2, RED, tree="base"))
    assert state_of(state, turned(3, RED, tree="base")) is State.BUDGET_EXCEEDED


def test_no_progress_is_stuck_after_a_warning_and_else_the_next_turn_is_told_what_is_missing() -> None:
    first = decide(created(goal()), turned(1, RED))
    assert first == Continue(reason="pytest -q: exit status 1")
    state = after(created(goal()), turned(1, RED, tree="base"))
    second = decide(state, turned(2, RED, tree="base"))
    assert isinstance(second, Continue)
    assert "repeating yourself" in second.warning
    stuck = decide(after(state, turned(2, RED, tree="base")), turned(3, RED, tree="base"))
    assert isinstance(stuck, Stop)
    assert (stuck.state, "--hint" in stuck.detail) == (State.STUCK, True)


def test_what_is_missing_names_the_tampering_before_the_checks() -> None:
    decision = decide(created(goal()), turned(verification=reported(checked("fail"), edits=["a", "b", "c", "d"])))
    assert decision == Continue(reason="protected paths were changed: a, b, c and 1 more")


def test_an_achieved_goal_says_what_it_rests_on() -> None:
    weak, strong = checked(), checked(grade="strong")
    assert rests_on(reported(weak), "") == (
        "1 check passed (weak: judged by exit status alone); no judge; sandbox level: process"
    )
    assert "1 of them weak" in rests_on(reported(weak, strong), "")
    assert rests_on(reported(strong), "owl") == "1 check passed (strong); judge owl agrees; sandbox level: process"
    assert "no checks" in rests_on(reported(), "owl")


def test_the_best_turn_is_untampered_then_has_most_checks_then_tests_then_the_smaller_diff_then_came_first() -> None:
    def scored(verification: VerificationReport, diff_files: int = 1) -> tuple[int, int, int, int]:
        outcome = turned(verification=verification)
        diffed = outcome.snapshot.but(diff_files=diff_files)
        return score(outcome.but(snapshot=diffed))

    worst_first = [
        scored(reported(checked(), checked(passed=9), edits=["x"])),
        scored(reported(checked("fail", passed=9))),
        scored(reported(checked(passed=2)), diff_files=1),
        scored(reported(checked(passed=3)), diff_files=5),
        scored(reported(checked(passed=3)), diff_files=4),
    ]
    assert worst_first == sorted(set(worst_first))
    state = created(goal())
    assert state.best is None
    red, better = reported(checked("fail")), reported(checked("fail", passed=2))
    assert after(state, turned(1, red), turned(2, better), turned(3, better), turned(4, red)).best == 2


checks = st.builds(
    CheckResult,
    command=st.sampled_from([COMMAND, "other"]),
    outcome=st.sampled_from(["pass", "pass", "fail", "timeout", "tampered", "error", "not_run"]),
    failing=st.lists(st.sampled_from("ab"), max_size=2).map(tuple),
    tests=st.none() | st.builds(TestCounts, passed=st.integers(0, 3), failed=st.just(0), skipped=st.just(0)),
)
reports = st.builds(
    VerificationReport,
    outcome=st.sampled_from(["pass", "weak_pass", "fail", "tampered", "error"]),
    checks=st.lists(checks, max_size=3).map(tuple),
    tampering=st.sampled_from([(), (), (Tamper(path="t", kind="deleted"),)]),
    sandbox=st.just("process"),
)
usages = st.none() | st.builds(Usage, total_tokens=st.none() | st.integers(0, 50), usd=st.none() | st.floats(0, 2))
verdicts = st.sampled_from([(True, False), (False, False), (False, True)]).map(
    lambda pair: Verdict(achieved=pair[0], blocked=pair[1], reason="because")
)
judgements = st.none() | st.builds(Judgement, verdict=verdicts, judge=st.just("owl"), usage=usages)
workers = st.builds(WorkerReport, outcome=st.sampled_from(["ok", "failed", "timeout", "blocked"]), usage=usages)
outcomes = st.builds(
    TurnOutcome,
    turn=st.just(1),
    worker=workers,
    snapshot=st.builds(Snapshot, commit=st.just("c"), tree=st.sampled_from(["base", "a", "b", "c"])),
    verification=reports,
    judgement=judgements,
)
goals = st.builds(
    goal,
    checks=st.sampled_from([(COMMAND,), (COMMAND, "other")]),
    judge=st.sampled_from([None, JUDGE]),
    max_turns=st.integers(1, 6),
    max_tokens=st.none() | st.integers(1, 200),
    max_usd=st.none() | st.floats(0.1, 5),
    stuck_after=st.integers(0, 4),
)


@given(goals.map(created), outcomes)
def test_achieved_implies_every_check_green_no_tampering_and_no_veto(state: GoalState, outcome: TurnOutcome) -> None:
    if state_of(state, outcome) is not State.ACHIEVED:
        return
    report = outcome.verification
    assert report.outcome in {"pass", "weak_pass"}
    assert report.tampering == ()
    assert {check.outcome for check in report.checks} == {"pass"}
    assert {check.command for check in report.checks} >= set(state.spec.checks)
    assert outcome.judgement is None or outcome.judgement.verdict.achieved
    assert outcome.judgement is not None or not state.spec.judges


@given(goals.map(created), outcomes)
def test_what_is_green_and_not_vetoed_is_achieved_whatever_the_limits(state: GoalState, outcome: TurnOutcome) -> None:
    good = outcome.but(
        verification=reported(*(checked(command=command) for command in state.spec.checks)), judgement=SATISFIED
    )
    assert state_of(state, good) is State.ACHIEVED


@given(goals.map(created), st.lists(outcomes, min_size=6, max_size=6))
def test_every_sequence_of_turns_ends_by_the_turn_limit(state: GoalState, sequence: list[TurnOutcome]) -> None:
    for number, outcome in enumerate(sequence, start=1):
        before = state
        state = settled(state, outcome.but(turn=number))
        assert len(state.turns) == len(before.turns) + 1
        if state.status is not State.RUNNING:
            break
    assert state.status is not State.RUNNING
    assert len(state.turns) <= state.spec.limits.max_turns


def test_forcing_a_goal_changes_no_decision() -> None:
    assert state_of(created(changed(goal(), force=True)), turned()) is State.ACHIEVED
