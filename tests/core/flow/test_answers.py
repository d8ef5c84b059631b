"""What agents say: JSON, verdicts, expectations. All of it is untrusted, and large."""

import json
import sys
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from goalrun.core.flow.expect import Expect, answer, bad_expect, is_schema, unmet
from goalrun.core.flow.loose import MAX_CHARS, find_json
from goalrun.core.flow.verdict import MAX_REASON_CHARS, read_verdict
from goalrun.core.value import Json

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
)
FIVE_MB = 5_000_000
SCHEMA: dict[str, Json] = {"type": "object", "required": ["n"], "properties": {"n": {"type": "integer", "minimum": 1}}}


@given(JSON)
def test_json_is_found_alone_and_fenced(value: object) -> None:
    text = json.dumps(value)
    assert find_json(text) == value
    if "```" not in text:
        assert find_json(f"Sure.\n\n```json\n{text}\n```\nThat is all.") == value


@given(st.lists(JSON), st.text(alphabet="abc .,:-\n"), st.text(alphabet="abc .,:-\n"))
def test_json_is_found_amid_prose(value: list[object], before: str, after: str) -> None:
    assert find_json(f"x{before}{json.dumps(value)}{after}x") == value


@given(st.text())
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        value = find_json(text)
    except ValueError:
        return
    json.dumps(value, allow_nan=False)


@pytest.mark.parametrize("text", ["[1, 2", "{x}", "NaN", "[Infinity]", "[1e999]", "", "[[[", "]["])
def test_what_is_no_json_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no JSON"):
        find_json(text)


def test_half_of_a_surrogate_pair_can_be_written_afterwards() -> None:
    assert json.dumps(find_json(r'{"a": "\ud800x", "b": "\ud83d\ude00"}'), ensure_ascii=False).encode()


@pytest.mark.parametrize(
    "text",
    [
        "[" * FIVE_MB,
        "```" * (FIVE_MB // 3),
        "```json\n" + " " * FIVE_MB,
        "```" + "a" * FIVE_MB,
        "{" + "VERDICT " * (FIVE_MB // 8),
        "VERDICT:" + " " * FIVE_MB,
        ("VERDICT:" + " " * 19 + "PASSx") * (FIVE_MB // 32),
        "VERDICT" * (FIVE_MB // 7),
        "REASON" * (FIVE_MB // 6),
        "\n" * FIVE_MB,
    ],
    ids=lambda text: f"{text[:12]!r}",
)
def test_five_megabytes_of_anything_are_read(text: str) -> None:
    # In linear time: what is quadratic takes hours here, and is ended by the suite's own limit.
    assert read_verdict(text) == (False, "the answer holds no clear verdict")


def test_more_than_the_limit_is_refused() -> None:
    with pytest.raises(ValueError, match="more than 10000000 characters"):
        find_json(" " * (MAX_CHARS + 1))


def test_json_that_is_nested_without_end_is_no_json() -> None:
    with pytest.raises(ValueError, match="no JSON"):
        find_json("[" * 100_000 + "]" * 100_000)


@given(st.text(), st.sampled_from(["block", "pass"]))
def test_every_answer_has_a_verdict_with_a_reason_of_one_line(text: str, unclear: Literal["block", "pass"]) -> None:
    go_on, reason = read_verdict(text, unclear)
    assert go_on in {True, False}
    assert len(reason) <= MAX_REASON_CHARS
    assert not {"\n", "\t"} & set(reason)


def test_a_verdict_in_a_fenced_object_is_read() -> None:
    assert read_verdict('I looked.\n```json\n{"pass": false, "reason": "two\\nbugs"}\n```') == (False, "two bugs")


def test_json_without_a_decision_leaves_it_to_the_text() -> None:
    assert read_verdict('{"files": 3}\nVERDICT: PASS').go_on


def test_a_word_that_only_begins_like_a_verdict_is_none() -> None:
    assert read_verdict("VERDICT: PASSWORD missing").reason == "the answer holds no clear verdict"


def test_a_verdict_may_have_an_ending() -> None:
    assert read_verdict("Verdict: passed").go_on
    assert not read_verdict("Verdict: failed", "pass").go_on


def test_a_word_of_blocking_outranks_one_of_passing() -> None:
    assert not read_verdict('{"verdict": "pass, but the tests fail"}', "pass").go_on


@pytest.mark.parametrize(
    ("expect", "value", "why"),
    [
        ("json", None, ""),
        ("array", [], ""),
        ("array", {}, "expected a list, not an object"),
        ({"route": ["deep", "quick"]}, {"route": "deep", "more": 1}, ""),
        ({"route": ["deep", "quick"]}, {"route": "wide"}, 'expected route to be "deep" or "quick", not "wide"'),
        ({"route": ["deep", "quick"]}, {}, 'expected route to be "deep" or "quick"; it is missing'),
        ({"route": ["deep"]}, ["deep"], "expected an object with route, not a list"),
        ({"ok": True}, {"ok": True}, ""),
        ({"ok": True}, {"ok": 1}, "expected ok to be true, not 1"),
        ({"type": ["bug", "feature"]}, {"type": "bug"}, ""),
        (SCHEMA, {"n": 1}, ""),
        (SCHEMA, {"n": 0}, "$.n: 0 is less than the minimum of 1"),
        (SCHEMA, {}, "$: 'n' is a required property"),
        ({"$schema": "https://json-schema.org/draft/2020-12/schema", "enum": [1]}, 2, "$: 2 is not one of [1]"),
        ({"type": "object", "$ref": "#"}, {}, "nested too deeply"),
    ],
)
def test_expectations(expect: Expect, value: Json, why: str) -> None:
    said = unmet(expect, value)
    assert why in said if why else said == ""
    assert bad_expect(expect) == ""


def test_an_answer_without_json_says_so() -> None:
    assert answer("json", "I cannot do that.") == (None, "expected JSON, but it holds no JSON")
    assert answer({"n": [1]}, 'so: {"n": 1}') == ({"n": 1}, "")


@pytest.mark.parametrize(
    ("expect", "why"),
    [
        ("yaml", "neither json nor array"),
        ({}, "empty"),
        ({"type": "object", "properties": 3}, "no JSON Schema"),
        ({"type": "object", "$ref": "https://example.org/schema.json"}, "nothing is fetched"),
        ({"type": "array", "items": {"$ref": "other.json"}}, "nothing is fetched"),
    ],
)
def test_expectations_that_cannot_be_met_are_told_at_load(expect: Expect, why: str) -> None:
    assert why in bad_expect(expect)


def test_a_schema_that_refers_elsewhere_fetches_nothing() -> None:
    expect = {"$schema": "https://json-schema.org/draft/2020-12/schema", "$ref": "https://example.org/schema.json"}
    before = set(sys.modules)
    assert "which it does not hold" in unmet(expect, {})
    assert "http.client" not in set(sys.modules) - before


def test_a_table_of_allowed_values_is_no_schema() -> None:
    assert not is_schema({"type": ["bug", "feature"]})
    assert is_schema({"type": ["string", "null"]})
