import pytest
from values import JUDGE, PROCESS, RED, after, checked, created, goal, judged, numbered, reported, settled, turned

from goalrun.core.decide import decide
from goalrun.core.events import RunStarted
from goalrun.core.model import CheckResult, Continue, GoalState, State, Stop, TurnOutcome, VerificationReport
from goalrun.core.progress import similarity
from goalrun.core.replay import apply

TAMPERED = reported(checked(), edits=["tests/t.py"])
REASON = "the discount is still not applied to the total of the basket at all"


def fails(*tests: str, passed: int = 0) -> VerificationReport:
    return reported(checked("fail", failing=tests, passed=passed))


def different(turn: int) -> VerificationReport:
    return fails(f"test_{turn}")


def verdicts(state: GoalState, *outcomes: TurnOutcome) -> str:
    """A letter for each turn: c(ontinue), w(arned), s(tuck)."""
    told = ""
    for outcome in outcomes:
        decision = decide(state, outcome)
        match decision:
            case Continue(warning=warning):
                told += "w" if warning else "c"
            case Stop(state=ends):
                told += "s" if ends is State.STUCK else "?"
        state = after(state, outcome)
    return told


def trees(names: str, stuck_after: int) -> str:
    """The verdicts on turns that leave these trees and fail in ever new ways; "." is the base."""
    outcomes = [
        turned(number, different(number), tree="base" if name == "." else name)
        for number, name in enumerate(names, start=1)
    ]
    return verdicts(created(goal(stuck_after=stuck_after)), *outcomes)


@pytest.mark.parametrize(
    ("names", "after", "told"),
    [
        ("...", 3, "cws"),
        ("aaaa", 3, "ccws"),
        ("..", 2, "ws"),
        ("....", 4, "ccws"),
        (".a..", 3, "ccwc"),
        ("abcd", 3, "cccc"),
        ("......", 0, "cccccc"),
        ("ababab", 0, "cccccc"),
    ],
)
def test_the_same_tree_for_n_turns_is_stuck_and_any_change_resets(names: str, after: int, told: str) -> None:
    assert trees(names, stuck_after=after) == told


@pytest.mark.parametrize(
    ("names", "told"), [("aba", "ccw"), ("abab", "ccws"), ("abac", "ccwc"), ("abacb", "ccwcw"), ("a.a", "cws")]
)
def test_going_back_to_an_earlier_tree_is_told_and_going_on_round_is_stuck(names: str, told: str) -> None:
    assert trees(names, stuck_after=5) == told


def test_undoing_a_tampered_turn_is_not_going_round() -> None:
    turns = (
        turned(1, different(1), tree="a"),
        turned(2, TAMPERED, tree="b"),
        turned(3, different(3), tree="a"),
        turned(4, TAMPERED, tree="c"),
        turned(5, different(5), tree="a"),
    )
    assert verdicts(created(goal(stuck_after=4)), *turns) == "ccccc"


def test_tampering_with_the_same_path_again_and_again_is_stuck() -> None:
    turns = [turned(number, TAMPERED) for number in (1, 2, 3)]
    assert verdicts(created(goal()), *turns) == "cws"


@pytest.mark.parametrize(
    ("reports", "told"),
    [
        ([fails("a", "b")] * 3, "cws"),
        ([fails("a", "b"), fails("b", "a"), fails("a", "b")], "cws"),
        ([fails("a", "b"), fails("a", "b"), fails("a")], "cwc"),
        ([fails("a"), fails("a"), fails("b"), fails("a"), fails("a")], "cwccw"),
        ([fails("a", passed=1), fails("a", passed=1), fails("a", passed=2), fails("a", passed=2)], "cwcw"),
        ([fails("a", passed=3), fails("a", passed=3), fails("a", passed=2)], "cws"),
    ],
)
def test_the_same_failing_tests_without_improvement_are_stuck(reports: list[VerificationReport], told: str) -> None:
    turns = [turned(number, report) for number, report in enumerate(reports, start=1)]
    assert verdicts(created(goal()), *turns) == told


def output(excerpt: str) -> CheckResult:
    return checked("fail", excerpt=excerpt)


def test_without_test_ids_the_output_tells_failures_apart_but_times_addresses_and_folders_do_not() -> None:
    def told(*excerpts: str) -> str:
        return verdicts(
            created(goal()), *(turned(n, reported(output(text))) for n, text in enumerate(excerpts, start=1))
        )

    assert told("3 errors", "2 errors", "1 error") == "ccc"
    noisy = [f"object at 0x{n}f in 0.{n}s, /tmp/verify-{n}/shop.py: wrong" for n in (1, 2, 3)]
    assert told(*noisy) == "cws"


def judgements(*reasons: str, stuck_after: int = 3) -> str:
    turns = [turned(number, judgement=judged(reason=reason)) for number, reason in enumerate(reasons, start=1)]
    return verdicts(created(goal(judge=JUDGE, stuck_after=stuck_after)), *turns)


def test_three_near_identical_reasons_of_the_judge_are_stuck_after_a_warning() -> None:
    assert judgements(REASON, f"{REASON}!", f"{REASON.upper()}.") == "cws"
    assert judgements(REASON, REASON, REASON, stuck_after=0) == "ccc"
    assert judgements(REASON, "something else is quite wrong with it", REASON) == "ccc"
    assert judgements("", "", "") == "ccc"


def test_a_turn_that_was_not_judged_breaks_the_row_of_reasons() -> None:
    turns = [turned(n, judgement=judged(reason=REASON)) for n in (1, 2)]
    state = created(goal(judge=JUDGE))
    assert verdicts(state, *turns, turned(3, different(3)), turned(4, judgement=judged(reason=REASON))) == "cwcc"


def test_similarity_is_of_word_trigrams_and_short_texts_have_to_be_equal() -> None:
    assert similarity("one two three four", "one two three five") == pytest.approx(1 / 3)
    assert similarity("One, two: THREE", "one two three") == 1.0
    assert similarity("no tests", "no tests") == 1.0
    assert similarity("no tests", "no docs") == 0.0
    assert similarity("テストがありません", "テストがありません") == 1.0
    assert similarity("", "") == 0.0


def test_a_resume_of_a_stuck_goal_starts_afresh() -> None:
    state = created(goal())
    for number in (1, 2, 3):
        state = settled(state, turned(number, RED, tree="base"))
    assert state.status is State.STUCK
    resumed = apply(state, numbered(RunStarted(runner=PROCESS))[0])
    assert (resumed.status, resumed.fresh_from) == (State.RUNNING, 3)
    assert verdicts(resumed, *(turned(number, RED, tree="base") for number in (4, 5, 6))) == "cws"


def test_a_resume_of_a_paused_goal_forgets_nothing() -> None:
    state = after(created(goal()), *(turned(number, RED, tree="base") for number in (1, 2)))
    resumed = apply(state, numbered(RunStarted(runner=PROCESS))[0])
    assert verdicts(resumed, turned(3, RED, tree="base")) == "s"
