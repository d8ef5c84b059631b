"""From records to a page: what is told of a goal, and that any text in it stays text."""

import unicodedata
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from values import GREEN, JUDGE, PROCESS, RED, changed, checked, goal, judged, numbered, reported, snapshot, turned

from goalrun.core.events import (
    AgentFailed,
    BaseTaken,
    BaseVerified,
    Event,
    GoalCreated,
    GoalStopped,
    RunStarted,
    TurnFinished,
    TurnInterrupted,
    TurnStarted,
    WorkerFinished,
)
from goalrun.core.model import CheckResult, State, StepRecord, Tamper, TurnOutcome, TurnRecord, Usage, WorkerReport
from goalrun.core.result import head
from goalrun.pages.model import (
    Actions,
    CheckTimes,
    FilePatch,
    FleetPage,
    GoalPage,
    Part,
    Patch,
    Slot,
    Story,
    TurnPage,
)
from goalrun.pages.plots import over_time, plots
from goalrun.pages.render import fleet_html, goal_html, list_html, problem_html, queued_html
from goalrun.pages.story import MAX_NOTES, files_of, rests_on, story

BEGUN: tuple[Event, ...] = (
    GoalCreated(spec=goal(judge=JUDGE)),
    RunStarted(runner=PROCESS),
    BaseTaken(snapshot=snapshot("base")),
    BaseVerified(report=reported(checked("fail", passed=1, failing=("t",)))),
)
TAGS = {
    *("html", "head", "meta", "link", "title", "style", "body", "main", "div", "p", "h1", "h2", "h3", "header", "code"),
    *("section", "span", "progress", "dl", "dt", "dd", "figure", "figcaption", "b", "svg", "desc", "line", "text"),
    *("rect", "pre", "table", "thead", "tbody", "tr", "th", "td", "a", "details", "summary", "ins", "del", "ul", "li"),
    *("blockquote", "time", "nav", "br", "script", "form", "input", "button"),
}


def finished(outcome: TurnOutcome, decision: str = "continue") -> TurnFinished:
    return TurnFinished(record=TurnRecord(outcome=outcome, decision=decision, reason="so", feedback="told"))


def told(*events: Event) -> Story:
    return story(numbered(*BEGUN, *events))


def test_what_happened_beside_the_turns_is_told_in_its_place() -> None:
    found = told(
        TurnStarted(turn=1, attempt=1, hints=("look up",)),
        AgentFailed(role="worker", agent="owl", reason="no key"),
        TurnInterrupted(turn=1, reason="goalrun pause", snapshot=snapshot("cut")),
        GoalStopped(state=State.PAUSED, detail="asked"),
        RunStarted(runner=PROCESS),
        TurnStarted(turn=1, attempt=2),
        finished(turned(1, RED)),
        TurnStarted(turn=2, attempt=1),
        finished(turned(2, GREEN), "achieved"),
        GoalStopped(state=State.STOPPED, detail="late"),
    )
    assert [note.text for note in found.before] == ["a process took the goal up"]
    assert [note.text for note in found.turns[0].notes] == [
        "hint: look up",
        "owl could not do it (worker): no key",
        "cut: goalrun pause; its edits are kept",
        "paused: asked",
        "a process took the goal up",
        "attempt 2 began",
    ]
    assert [(turn.number, turn.decision, turn.began[:4]) for turn in found.turns] == [
        (1, "continue", "2026"),
        (2, "achieved", "2026"),
    ]
    assert [note.text for note in found.after] == ["stopped: late"]


def test_a_turn_under_way_is_a_turn_without_a_decision() -> None:
    report = WorkerReport(outcome="ok", usage=Usage(total_tokens=3), transcript="turns/turn-1/worker-2")
    found = told(TurnStarted(turn=1, attempt=2))
    assert [(turn.number, turn.decision, turn.worker, turn.folder) for turn in found.turns] == [
        (1, "", None, "turns/turn-1/worker-2")
    ]
    found = told(
        TurnStarted(turn=1, attempt=2), WorkerFinished(turn=1, report=report, snapshot=snapshot("one", changed_files=2))
    )
    assert found.turns[0].worker == report
    assert found.turns[0].snapshot is not None
    assert found.turns[0].checks is None
    assert found.after == ()
    assert told().turns == ()


def test_a_flow_that_tells_much_is_cut_to_its_last_words() -> None:
    failed = [AgentFailed(role="worker", agent=f"owl-{n}", reason="no") for n in range(MAX_NOTES + 5)]
    notes = told(TurnStarted(turn=1, attempt=1), *failed).turns[0].notes
    assert (len(notes), notes[-1].text) == (MAX_NOTES, f"owl-{MAX_NOTES + 4} could not do it (worker): no")


def test_what_the_verdict_rests_on() -> None:
    cheat = finished(
        turned(1, reported(checked("fail", passed=1, failing=("t",)), edits=("tests/t.py", "conftest.py")))
    )
    good = reported(checked(passed=2, grade="strong"), checked(command="lint", reason="exit status alone", hidden=True))
    start, again = TurnStarted(turn=1, attempt=1), TurnStarted(turn=2, attempt=1)
    end = finished(turned(2, good, judged(achieved=True, reason="fine")), "achieved")
    found = {label: (said, mark) for label, said, mark in rests_on(told(start, cheat, again, end))}
    assert found["Check pytest -q"] == ("pass on turn 2 (strong, 2 tests passed, 0 failed)", "good")
    assert found["Hidden check lint"] == ("pass on turn 2 (weak): exit status alone", "good")
    assert found["Judge owl"] == ("achieved: fine", "good")
    assert found["Baseline"] == ("fail before turn 1: 1 test passed, 1 failed", "")
    assert found["Tampering"][0].startswith("protected paths were edited in turn 1 (2 paths)")
    assert found["Sandbox"] == ("process; checks run in a clean worktree of the snapshot", "")
    red = {label: said for label, said, _ in rests_on(told(start, finished(turned(1, RED))))}
    assert red["Judge"] == "not asked: a judge is asked only once all checks pass"
    live = changed(goal(), worktree=False, baseline=False)
    none = {label: said for label, said, _ in rests_on(story(numbered(GoalCreated(spec=live))))}
    assert none["Checks"] == "no verification yet"
    assert none["Baseline"] == "the checks did not run on the base"
    assert "the live workspace" in none["Sandbox"]


def test_what_there_is_to_read_of_a_turn() -> None:
    checks = reported(checked(output="turns/turn-1/check-1.out"))
    outcome = turned(1, checks, judged(), transcript="turns/turn-1/worker-1")
    (turn,) = told(TurnStarted(turn=1, attempt=1), finished(outcome)).turns
    assert [path for _, path in files_of(turn)] == [
        "turns/turn-1/worker-1/prompt.md",
        "turns/turn-1/worker-1/stdout",
        "turns/turn-1/worker-1/stderr",
        "turns/turn-1/check-1.out",
        "",
        "",
    ]


def test_plots_stay_inside_their_frame_and_say_what_is_unknown() -> None:
    for count in (1, 7, 500):
        events: list[Event] = []
        for n in range(1, count + 1):
            usage = None if n == 1 else Usage(total_tokens=10 * n)
            report = reported(checked("fail", passed=n, failing=("t",)), edits=("conftest.py",) if n == count else ())
            events += [TurnStarted(turn=n, attempt=1), finished(turned(n, report, usage=usage))]
        spec = goal(max_turns=1000)
        passed, spent = plots(story(numbered(GoalCreated(spec=spec), *BEGUN[1:], *events)).turns)
        for plot in (passed, spent):
            assert all(bar.x >= 0 and bar.x + bar.width <= 480.1 for bar in plot.bars)
            assert all(bar.y >= 0 and bar.y + bar.height <= 150 for bar in plot.bars)
        assert passed.about == f"After the last turn: {count} passed, 1 failed."
        assert [bar.kind for bar in passed.bars[-2:]] == ["alarm", "bad"]
        if count > 1:
            assert spent.title == "Spend per turn"
            assert f"At least {sum(10 * n for n in range(2, count + 1)):,} tokens: unknown for 1 turn." == spent.about
    assert plots(()) == ()


def test_plots_over_time_stay_inside_their_frame_and_name_what_they_show() -> None:
    start = datetime(2026, 6, 1, 22, tzinfo=UTC)
    slots = [Slot(start + timedelta(hours=n), 0.5 * n, 10**6 * n, n % 2, n, 1) for n in range(60)]
    for count in (1, 2, 48):
        for plot in over_time("hour", slots[:count]):
            assert all(bar.x >= 0 and bar.x + bar.width <= 480.1 and bar.y >= 0 for bar in plot.bars)
            assert plot.feet[0][1] == "22:00"
            assert len(plot.feet) <= 10
    usd, tokens, ended = over_time("hour", slots)
    assert ended.about == "1,770 achieved and 60 ended otherwise since 2026-06-01 22:00 UTC."
    assert tokens.marks[1][1] == "59 M"
    assert usd.bars[1].tip == "2026-06-02 00:00: 1 USD"
    assert usd.about.endswith(", and what 30 runs did not report.")
    assert over_time("day", slots)[0].feet[0][1] == "06-01"


def everywhere(text: str) -> str:
    """A page with a text in every place that takes one."""
    shown = text.strip() or "x"
    check = CheckResult(command=shown, outcome="fail", reason=text, failing=(text,), excerpt=text)
    report = reported(check)
    tampered = type(report)(**{**dict(report), "tampering": (Tamper(path=text, kind="modified"),)})
    steps = {text: StepRecord(status="failed", reason=text, why=text, winner=text)}
    outcome = turned(
        1, tampered, judged(reason=text), text=text, agent=text, model=text, reason=text, denials=(text,),
        untied=(text,), steps=steps, wait_for=text,
    )  # fmt: skip
    spec = changed(goal(judge=JUDGE), objective=shown, workspace=shown, checks=(shown,))
    turn = TurnFinished(record=TurnRecord(outcome=outcome, decision="max_turns", reason=text, feedback=text))
    found = story(
        numbered(
            GoalCreated(spec=spec),
            *BEGUN[1:],
            TurnStarted(turn=1, attempt=1, hints=(text,)),
            turn,
            GoalStopped(state=State.ERROR, detail=text),
        )
    )
    patch = Patch((FilePatch(text, 1, 1, text, (("added", text), ("same", text)), 3),), 2)
    pages = (TurnPage(found.turns[0], (Part(text, text, text),), patch),)
    page = GoalPage(head(found.state), found, text, pages, patch, most=1000, graph=text)
    results = [head(found.state), {"id": shown, "unreadable": True, "state": "error", "detail": text}]
    own = dict.fromkeys(
        ("key", "submission", "submitter", "repo", "ref", "agent", "account", "worker", "delivered"), text
    )
    fleet = {**own, "labels": [text], "priority": 1, "takeovers": 1, "usd": 0.5, "tokens": 1, "blind_usd": 1}
    result = {**results[0], "fleet": {**fleet, "blind_tokens": 1}}
    live = Actions(text, text, {"hint": True, text: False}, said=text)
    absent = page._replace(result=result, absent=text, folder="")
    return (
        fleet_html(fleet_of(text, result), str, text)
        + queued_html(result, str, live)
        + goal_html(absent, str, live)
        + everywhere_local(page, results, text)
    )


def fleet_of(text: str, result: dict[str, Any]) -> FleetPage:
    own = dict.fromkeys(("name", "host", "version", "asked"), text)
    worker = {**own, "labels": [text], "agents": [text], "alive": True, "silent": 0.1, "goals": 1, "slots": 2}
    overview = {
        "states": {text: 1},
        "bill": {"usd": 0.5, "tokens": 1, "runs_without_usd": 1, "runs_without_tokens": 1},
        "workers": [worker, {**worker, "alive": False}],
        "parked": [{"name": text, "parked_until": text, "detail": text}],
    }
    slots = (Slot(datetime(2026, 6, 1, tzinfo=UTC), 0.5, 1, 1, 1, 1),)
    checks = (CheckTimes(text, 1, 1, 0.5, 0.5, "g-1"),)
    return FleetPage(overview, (1, 1.0), text, slots, checks, text, (result,), 1, {result["id"]: text})


def everywhere_local(page: GoalPage, results: list[dict[str, Any]], text: str) -> str:
    return (
        goal_html(page, str)
        + goal_html(page, str, Actions(text, text, {"hint": True, text: False}, said=text))
        + list_html(results, 1, {"g-1": text}, text)
        + problem_html(text, text, text)
    )


class Tags(HTMLParser):
    """Collects what a page is made of."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.scripts: list[str | None] = []
        self.links: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        given = dict(attrs)
        assert not [name for name in given if name.startswith("on") or name == "style"]
        if tag == "script":
            self.scripts.append(given.get("src"))
        self.links |= {str(given[name]) for name in ("href", "src", "action") if name in given}


@settings(max_examples=60)
@given(st.one_of(st.text(max_size=60), st.text(alphabet="<>&\"'/= \n{}%-!ascriptonx\x1b\u202e\0", max_size=60)))
def test_any_text_stays_text(text: str) -> None:
    page = everywhere(text)
    tags = Tags()
    tags.feed(page)
    assert tags.tags <= TAGS
    assert tags.scripts == ["/live.js"] * 5
    assert all(link[:1] in {"#", "/"} or link == "data:," for link in tags.links)
    assert {unicodedata.category(c) for c in page} & {"Cc", "Cf", "Cs", "Co"} <= {"Cc"}
    assert not set(page) & (set(map(chr, range(32))) - set("\n\t"))
