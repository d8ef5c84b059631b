"""Agents that somebody describes in TOML: where in their output what is, and descriptions that cannot be right."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from goalrun.adapters.agents.find import KEYS, MAX_LINE, MAX_TEXT, bad_find, read_found
from goalrun.adapters.agents.said import Failure, Output, Said


def described(find: dict[str, str], *events: Any, text: str = "", errors: str = "", whole: bool = True) -> Said:  # noqa: ANN401
    assert bad_find(find) == ""
    return read_found(find, Output(events, text, errors, 0, whole))


EVENTS: tuple[dict[str, Any], ...] = (
    {"type": "step", "meta": {"kind": "x"}, "usage": {"in": 10, "out": 1, "usd": 0.5}, "id": "s1"},
    {"type": "step", "meta": {"kind": "y"}, "usage": {"in": 20, "out": 2, "usd": 1}},
    {"type": "end", "items": [{"x": "first"}, {"x": "last"}], "status": 429, "resets": "2033-05-18T03:33:20Z"},
)


def test_paths_take_the_last_place_there_is_and_sums_take_all() -> None:
    find = {
        "text": "$.items[-1].x",
        "session": "type=step: $.id",
        "model": "meta.kind=x: $.meta.kind",
        "input_tokens": "+$.usage.in",
        "output_tokens": "type=step: +$.usage.out",
        "usd": "$.usage.usd",
    }
    what = described(find, *EVENTS)
    assert (what.text, what.session, what.model) == ("last", "s1", "x")
    assert what.usage is not None
    assert (what.usage.input_tokens, what.usage.output_tokens, what.usage.total_tokens) == (30, 3, 33)
    assert what.usage.usd == 1
    assert what.failure is None
    cut = described(find, *EVENTS, whole=False).usage
    assert cut is not None
    assert (cut.input_tokens, cut.output_tokens, cut.usd) == (None, None, 1)


def test_a_limit_is_told_by_a_value_with_its_end() -> None:
    find = {"limited": "type=end: $.status=429", "reset": "$.resets", "failed": "$.error"}
    assert described(find, *EVENTS, errors="quota\n").failure == Failure("limited", "quota", 2_000_000_000)
    assert described(find, {"type": "end", "status": 200}).failure is None
    # The last one counts: it went on after the first.
    assert described(find, *EVENTS, {"type": "end", "status": 200}).failure is None
    assert described(find, {"error": "it broke"}).failure == Failure("failed", "it broke")
    assert described(find, {"error": False}).failure is None
    seconds = described({"limited": "$.x", "reset": "$.y"}, {"x": "no more", "y": 2_000_000_000}).failure
    assert seconds == Failure("limited", "no more", 2_000_000_000)


@pytest.mark.parametrize("reset", ["tomorrow", "2033-05-18T03:33:20", 2_000_000_000_000, -1, True, None, 1e300, []])
def test_an_end_that_is_no_time_is_unknown(reset: object) -> None:
    failure = described({"limited": "$.x", "reset": "$.y"}, {"x": 1, "y": reset}).failure
    assert failure is not None
    assert failure.reset is None


def test_expressions_take_the_last_match_of_the_text() -> None:
    text = "tokens: 1,000\nsession abc\ntokens: 2,345\ncost: $0.25\nERROR limit reached\n"
    find = {
        "total_tokens": r"tokens: ([\d,]+)",
        "usd": r"cost: (\S+)",
        "session": r"session (\w+)",
    }
    what = described({**find, "limited": r"(?m)^ERROR (limit .*)$"}, text=text)
    assert what.usage is not None
    assert (what.usage.total_tokens, what.usage.input_tokens, what.usage.usd) == (2345, None, 0.25)
    assert (what.session, what.text) == ("abc", text)
    assert what.failure == Failure("limited", "limit reached")


def test_expressions_see_a_bounded_text() -> None:
    head = "answer=1\n" + "x" * (MAX_LINE + 10) + "answer=2\n"
    assert described({"session": r"answer=(\d)"}, text=head).session == "1"
    assert described({"session": r"answer=(\d)"}, text=head + "\n" * MAX_TEXT).session == ""


@pytest.mark.parametrize(
    ("find", "reason"),
    [
        ({"sesion": "$.x"}, "find.sesion is not known; did you mean session?"),
        ({"zzzzzz": "$.x"}, "find.zzzzzz is not known; known: text"),
        ({"text": "("}, "find.text: '(' is no regular expression"),
        ({"text": "(a+)+b"}, "find.text: '(a+)+b' repeats a repetition"),
        ({"text": "$x"}, "find.text: '$x' is no path"),
        ({"text": "$.x[a]"}, "find.text: '$.x[a]' is no path"),
        ({"text": "+$.x"}, "find.text: only numbers can be summed"),
        ({"text": "$.x=1"}, "find.text: only limited and failed are compared"),
    ],
)
def test_a_malformed_description_is_refused_with_its_reason(find: dict[str, str], reason: str) -> None:
    assert bad_find(find).startswith(reason)


NAMES = st.sampled_from(["type", "status", "result", "usage", "message", "data", "x"])
LEAVES = st.none() | st.booleans() | st.integers() | st.just(10**400) | st.floats() | st.text() | st.just("\ud800")
ANYTHING = st.recursive(LEAVES | NAMES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner))
OBJECTS = st.lists(st.dictionaries(NAMES, ANYTHING), max_size=4).map(tuple)
OUTPUTS = st.builds(Output, OBJECTS, st.text(), st.text(), st.integers(-64, 255), st.booleans(), OBJECTS)
PLACES = st.sampled_from(
    ["$.type", "$", "type=x: $.result", "+$.usage", "$.message[0]", "$.status=429", r"(\w+)", "x|(y)", "+$.data.x"]
)


@settings(deadline=None)
@given(find=st.dictionaries(st.sampled_from(KEYS), PLACES), garbage=OUTPUTS)
def test_nothing_makes_a_described_reader_fail(find: dict[str, str], garbage: Output) -> None:
    if bad_find(find) == "":
        what = read_found(find, garbage)
        assert {type(what.text), type(what.session), type(what.model)} == {str}
        assert what.failure is None or 0 < len(what.failure.message) <= 500


@settings(deadline=None)
@given(find=st.dictionaries(st.text() | st.sampled_from(KEYS), st.text() | PLACES))
def test_every_description_is_either_fine_or_explained(find: dict[str, str]) -> None:
    assert isinstance(bad_find(find), str)
