"""Pictures as lines: they fit, and nothing in them can touch a terminal. And what keys mean."""

import unicodedata
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len
from values import after, checked, created, goal, reported, turned

from goalrun.adapters.glimpse import Glimpse
from goalrun.cli.drawing import View, goal_lines, list_lines
from goalrun.cli.keys import Asking, foot, pressed
from goalrun.cli.screen import named
from goalrun.cli.strokes import PLAIN, bar, clock
from goalrun.core.flow.model import Flow, Step
from goalrun.core.model import GoalState, OpenTurn
from goalrun.core.picture import Picture, Stage, StepPicture, spoken
from goalrun.core.spec import FlowUse

if TYPE_CHECKING:
    from goalrun.core.value import Json

NOW = datetime(2026, 1, 1, 0, 1, 5, tzinfo=UTC)
AT = "2026-01-01T00:00:00.000+00:00"
NASTY = "\x1b[2J\x1b]0;t\x07 日本語🎉\u202e\u200b\r\n\t[red]x[/red] \ufe0f" + "z" * 3_000
FLOW = Flow(
    name="f",
    steps=(
        Step(id="a", run="true"),
        Step(id="b", run="true", needs=("a",)),
        Step(id="c", run="true", needs=("a",)),
        Step(id="d", run="true", needs=("b", "c")),
    ),
)


def state_of(text: str, turns: int, checks: int) -> GoalState:
    spec = goal(checks=tuple(f"check {n} {text}".replace("\0", "") for n in range(checks)), max_usd=5.0)
    flow = FlowUse(flow=FLOW)
    spec = spec.but(objective=text or "x", workspace=f"/w/{text}", flow=flow)
    results = [
        checked("fail", passed=3, failing=(text,), command=command, reason=text, excerpt=text)
        for command in spec.checks
    ]
    report = reported(*results, edits=[text] * 30)
    outcomes = [turned(number, report, reason=text) for number in range(1, turns + 1)]
    state = after(created(spec), *outcomes)
    opened = OpenTurn(turn=turns + 1, attempt=2, launched=True)
    given = {**dict(state), "open": opened, "feedback": text * 5, "hints": (text,), "detail": text}
    return GoalState(**given)


def picture_of(state: GoalState, stage: Stage, text: str) -> Picture:
    items = {f"b[{n}]": StepPicture(status="running", began=AT, reason=text, model=text) for n in range(40)}
    steps = {
        "a": StepPicture(status="done", calls=2, seconds=3.0),
        "b": StepPicture(status="running", began=AT),
        **items,
    }
    return Picture(state=state, stage=stage, since=AT, at=AT, steps=steps, told=text)


def drawn(view: View) -> list[str]:
    return [line.plain for line in goal_lines(view)]


@settings(max_examples=40)
@given(
    text=st.one_of(st.just(NASTY), st.text(min_size=1, max_size=50).filter(lambda text: bool(text.strip()))),
    size=st.tuples(st.integers(20, 200), st.integers(5, 60)),
    turns=st.integers(0, 40),
    checks=st.integers(1, 20),
    stage=st.sampled_from(["queue", "base", "worker", "checks", "judge", "quota", "ended"]),
)
def test_whatever_was_said_fits_the_terminal_and_cannot_touch_it(
    text: str, size: tuple[int, int], turns: int, checks: int, stage: Stage
) -> None:
    picture = picture_of(state_of(text, turns, checks), stage, text)
    # What a worker said comes through ``spoken``.
    glimpse = Glimpse((spoken(text),) * 40, (), "check-1")
    lines = drawn(View(picture, glimpse, NOW, *size, note=text))
    assert len(lines) <= size[1]
    for line in lines:
        assert cell_len(line) <= size[0]
        assert not {unicodedata.category(char) for char in line} & {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"}, ascii(line)


def test_at_80_by_24_every_part_has_its_place() -> None:
    picture = picture_of(state_of("words", 9, 3), "worker", "it was told")
    lines = drawn(View(picture, Glimpse(tuple(f"line {n}" for n in range(50))), NOW, 80, 23))
    shown = "\n".join(lines)
    assert len(lines) == 23
    # The newest of what goes on is what is kept.
    for part in ("running", "turn 9", "turn 10 of 20", "attempt 2", "1:05", "✓    a  3s", "├─╮", "line 49", "check 0",
                 "tampered  words (modified)", "it was told", "10/20", "USD"):  # fmt: skip
        assert part in shown, part
    assert "line 0\n" not in shown
    assert "turn 1 " not in shown


def test_many_items_are_counted() -> None:
    lines = drawn(View(picture_of(state_of("w", 0, 1), "worker", ""), Glimpse(), NOW, 80, 60))
    assert any("40 in all: 40 running" in line for line in lines)
    assert sum("● " in line and "[" in line for line in lines) == 6


def test_bars_warn_and_unknown_is_no_number() -> None:
    assert bar("turns", 5, 20, "d").plain == "turns ━━─────── 5/20".replace("━━───────", "━━────────")
    assert bar("USD", None, 5.0, ".2f").plain == "USD ────────── ?/5.00"
    assert bar("tokens", 1234, None, ",d").plain == "tokens 1,234"
    assert [str(span.style) for span in bar("time", 90, 100, "clock").spans][1] == "yellow"
    assert [str(span.style) for span in bar("time", 200, 100, "clock").spans][1] == "red"
    assert [clock(each) for each in (0.4, 59.9, 60, 3_600, 7_384)] == ["0s", "59s", "1:00", "1:00:00", "2:03:04"]


def test_a_list_names_what_is_chosen_and_what_cannot_be_read() -> None:
    usage: Json = {"seconds": 5.0, "usd": 0.25}
    good: dict[str, Json] = {
        "id": "g-1",
        "state": "running",
        "turns": 1,
        "limits": {"max_turns": 3},
        "usage": usage,
        "objective": NASTY,
    }
    bad: dict[str, Json] = {"id": "g-2", "state": "error", "detail": NASTY, "unreadable": True}
    lines = [line.plain for line in list_lines([good, bad], 1, 60)]
    assert all(cell_len(line) <= 60 and line.isprintable() for line in lines)
    assert lines[0].startswith("  running             1/3       5s  0.25 USD  日本語")
    assert lines[1].startswith("▶ g-2  unreadable")
    assert "  g-1  日本語" in list_lines([good, bad], 1, 100)[0].plain
    over: dict[str, Json] = {**good, "state": "achieved", "objective": "x", "grade": "weak", "sandbox": "process"}
    assert list_lines([over], 0, 100)[0].plain.endswith("x  (weak, process)")


def test_every_icon_has_a_plain_one() -> None:
    lines = drawn(View(picture_of(state_of("w", 2, 2), "worker", ""), Glimpse(("x",)), NOW, 80, 60))
    assert all(line.translate(PLAIN).isascii() for line in lines)


@pytest.mark.parametrize(
    ("keys", "wishes", "asking"),
    [
        ("p", ["pause"], Asking()),
        ("sn", ["", ""], Asking()),
        ("sy", ["", "stop"], Asking()),
        ("ss", ["", ""], Asking()),
        ("hq", ["", ""], Asking("hint", "q")),
        ("q", ["leave"], Asking()),
        ("x", [""], Asking()),
    ],
)
def test_what_keys_mean(keys: str, wishes: list[str], asking: Asking) -> None:
    now, found = Asking(), []
    for key in keys:
        now, wish = pressed(now, key)
        found.append(wish)
    assert (found, now) == (wishes, asking)


def test_a_hint_is_typed_mended_sent_or_dropped() -> None:
    now = Asking("hint")
    for key in ("a", "é", "up", "erase", "b", "日"):
        now, _ = pressed(now, key)
    assert now.text == "ab日"
    assert "ab日_" in foot(now, "", "help", 80)
    assert pressed(now, "enter") == (Asking(text="ab日"), "hint")
    assert pressed(now, "escape") == (Asking(), "")
    assert pressed(Asking("hint", "  "), "enter")[1] == ""
    assert len(pressed(Asking("hint", "x" * 2_000), "y")[0].text) == 2_000


def test_what_a_terminal_sends_is_named_and_the_rest_is_nothing() -> None:
    assert list(named("a\x1b[A\x1bOB\x1b[5~\r\x7f\x00é\x1b")) == ["a", "up", "down", "enter", "erase", "é", "escape"]
