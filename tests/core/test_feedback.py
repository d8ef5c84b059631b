import pytest
from hypothesis import given
from hypothesis import strategies as st
from values import JUDGE, checked, created, goal, judged, reported, snapshot, turned

from goalrun.core.decide import decide
from goalrun.core.feedback import MAX_FEEDBACK_CHARS, failing_checks, feedback
from goalrun.core.model import Continue, Tamper, VerificationReport

GOES_ON = Continue(reason="red")


def told(verification: VerificationReport) -> str:
    return feedback(turned(verification=verification), GOES_ON)


def test_tampered_paths_come_first_then_failing_tests_then_output() -> None:
    red = checked("fail", failing=("test_a", "test_b"), excerpt="the output", reason="exit status 1")
    text = told(reported(red, edits=["tests/t.py"]))
    order = ["tests/t.py (modified)", "Check failed: pytest -q", "exit status 1.", "- test_a\n- test_b", "the output"]
    assert sorted(order, key=text.index) == order
    assert text.startswith("You changed protected paths")
    assert "new files" in text


def test_passing_checks_are_not_mentioned() -> None:
    text = told(reported(checked(command="good", excerpt="fine"), checked("timeout", command="slow")))
    assert "good" not in text
    assert "fine" not in text
    assert "Check failed: slow\nOutcome: timeout." in text


def test_edits_that_were_undone_are_named_and_do_not_hide_tampering_that_stays() -> None:
    undone = snapshot(protected_edits=(Tamper(path="tests/old.py", kind="deleted"),))
    outcome = turned(verification=reported(checked(), edits=["tests/forged.py"]))
    text = feedback(outcome.but(snapshot=undone), GOES_ON)
    assert "tests/old.py (deleted)" in text
    assert "were undone" in text
    assert "tests/forged.py (modified)" in text


def test_long_lists_are_cut_and_counted() -> None:
    many = tuple(f"test_{number:03}" for number in range(100))
    text = told(reported(checked("fail", failing=many), edits=many))
    assert text.count("- test_029") == 2
    assert text.count("- test_030") == 0
    assert text.count("- and 70 more") == 2


def test_the_judge_s_reason_is_passed_on_as_one_line() -> None:
    text = feedback(turned(judgement=judged(reason="one\n# Goal\ntwo")), GOES_ON)
    assert text == "The judge (owl) is not satisfied: one # Goal two"
    assert feedback(turned(judgement=judged(achieved=True)), GOES_ON) == ""


@pytest.mark.parametrize(
    ("outcome", "words"), [("timeout", "ended after 60 seconds"), ("failed", "exit status 3"), ("ok", "")]
)
def test_the_end_of_the_worker_is_told_where_it_was_not_its_own(outcome: str, words: str) -> None:
    text = feedback(turned(outcome=outcome, exit_code=3), GOES_ON)
    assert words in text
    assert bool(text) == bool(words)


def test_the_warning_is_part_of_the_feedback() -> None:
    outcome = turned(tree="base", verification=reported(checked("fail", failing=("x",))))
    decision = decide(created(goal(judge=JUDGE, stuck_after=2)), outcome)
    assert isinstance(decision, Continue)
    assert "repeating yourself" in feedback(outcome, decision)


@given(st.integers(0, 40), st.integers(0, 9000), st.integers(0, 200))
def test_feedback_is_bounded_and_its_head_stays(count: int, length: int, edits: int) -> None:
    checks = [checked("fail", excerpt="o" * length, failing=("t" * 200,) * 40) for _ in range(count)]
    report = reported(*checks, outcome="fail", edits=[f"tests/{number}" for number in range(edits)])
    for text in (told(report), failing_checks(report.checks)):
        assert len(text) < MAX_FEEDBACK_CHARS + 60
    assert told(report).startswith("You changed protected paths") == bool(edits)


@pytest.mark.parametrize(
    ("vetoed", "text"),
    [("gate: no sources", "says no: gate: no sources"), ("", "A step of the flow failed: a: it died")],
)
def test_what_a_flow_says_of_its_own_end_is_told(vetoed: str, text: str) -> None:
    outcome = turned()
    worker = outcome.worker.model_copy(
        update={"outcome": "failed", "exit_code": None, "reason": "a: it died", "vetoed": vetoed}
    )
    assert text in feedback(outcome.model_copy(update={"worker": worker}), GOES_ON)
