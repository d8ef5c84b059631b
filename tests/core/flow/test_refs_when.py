"""Placeholders and guards, for any text."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from goalrun.core.flow.refs import ROOTS, Ref, as_text, field, fill, find
from goalrun.core.flow.when import MAX_CHARS, MAX_DEPTH, WhenError, compare, parse, truthy
from goalrun.core.value import Json

SEGMENT = st.from_regex(r"\A[A-Za-z0-9_-]{1,8}\Z")
REF = st.tuples(st.sampled_from(sorted(ROOTS)), SEGMENT, SEGMENT)
SCALAR = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
VALUE = st.recursive(SCALAR, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3))


def nothing(_ref: Ref) -> Json:
    return None


@given(st.lists(REF, max_size=5), st.text())
def test_every_placeholder_is_found_once_in_order(refs: list[Ref], between: str) -> None:
    text = f" {between.replace('{', '').replace('}', '')} ".join("{" + ".".join(ref) + "}" for ref in refs)
    assert find(text) == list(dict.fromkeys(refs))


@given(st.text())
def test_text_without_placeholders_stays(text: str) -> None:
    if not find(text):
        assert fill(text, lambda _ref: "X") == text


@given(REF, VALUE)
def test_filling_puts_the_value_in_and_nothing_else(ref: Ref, value: Json) -> None:
    assert fill("<{" + ".".join(ref) + "}>", lambda _ref: value) == f"<{as_text(value)}>"


@given(VALUE)
def test_values_that_are_no_text_go_in_as_json(value: Json) -> None:
    if value is not None and not isinstance(value, str):
        assert json.loads(as_text(value)) == value


@given(VALUE, st.lists(SEGMENT | st.sampled_from(["0", "99999999999"]), max_size=4))
def test_a_path_into_any_value_is_found_or_null(value: Json, path: list[str]) -> None:
    field(value, tuple(path))


def test_a_path_may_count_list_elements() -> None:
    assert field({"a": [{"b": 1}]}, ("a", "0", "b")) == 1
    assert field({"a": [1]}, ("a", "1")) is None
    assert field("text", ("0",)) is None


@given(st.text(alphabet="ab1 .&|!=<>()\"'\\{}-", max_size=40))
def test_every_guard_is_read_or_refused_with_a_position(text: str) -> None:
    position = 1
    try:
        assert parse(text).holds(nothing) in {True, False}
    except WhenError as failure:
        position = failure.position
    assert 1 <= position <= len(text) + 1


@given(VALUE, VALUE)
def test_a_comparison_is_one_of_less_equal_more(left: Json, right: Json) -> None:
    signs = [sign for sign in ("<", "==", ">") if compare(sign, left, right)]
    assert len(signs) == 1
    assert compare("!=", left, right) is (signs != ["=="])
    assert compare("<=", left, right) is (signs != [">"])
    assert compare(">=", left, right) is (signs != ["<"])


@given(st.integers(), st.integers(-(2**40), 2**40))
def test_numbers_in_text_are_compared_as_numbers(left: int, right: int) -> None:
    assert compare("<", str(left), right) is (float(left) < float(right))


def test_numbers_beyond_any_size_are_compared() -> None:
    assert compare("<", 1, 10**400)
    assert compare("==", "1e999", "2e999"), "both are infinite"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a ==", "a value is missing at character 5"),
        ("(a", "a closing bracket is missing at character 3"),
        ("a)", "unexpected ')' at character 2"),
        ("a b", "unexpected 'b' at character 3"),
        ("a = b", "unexpected '= b' at character 3"),
        ("  'open", 'unexpected "\'open" at character 3'),
        ("a & b", "unexpected '& b' at character 3"),
        ("{steps.a.json } == 1", "unexpected '{steps.a.json } == 1' at character 1"),
        ("!" * (MAX_DEPTH + 2) + "a", f"nested too deeply, at character {MAX_DEPTH + 2}"),
        ("(" * (MAX_DEPTH + 2), f"nested too deeply, at character {MAX_DEPTH + 2}"),
        ("a" * (MAX_CHARS + 1), "at most 10000 characters"),
    ],
)
def test_bad_guards_say_what_and_where(text: str, said: str) -> None:
    with pytest.raises(WhenError) as caught:
        parse(text)
    assert said in str(caught.value)


def test_a_guard_names_its_references() -> None:
    assert parse("{steps.a.json.x} == 1 && ({args.b} || {steps.a.json.x})").refs == (
        ("steps", "a", "json", "x"),
        ("args", "b"),
    )


def test_only_what_is_needed_is_evaluated() -> None:
    asked: list[Ref] = []

    def lookup(ref: Ref) -> Json:
        asked.append(ref)
        return True

    assert parse("{args.a} || {args.b}").holds(lookup)
    assert asked == [("args", "a")]


def test_truth_of_numbers() -> None:
    assert [truthy(value) for value in (0, 0.0, -1, 1.5)] == [False, False, True, True]
