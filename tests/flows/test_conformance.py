"""The rules of the systems that flows come from, those that need no run: one test each, named after the rule.

Where those systems changed a default later, the later one holds; those tests are at the end.
"""

from typing import Any

import pytest

from goalrun.core.flow.args import read_args
from goalrun.core.flow.loose import find_json, items_of
from goalrun.core.flow.model import Arg, Flow, Retry
from goalrun.core.flow.plan import edges, final_step, levels
from goalrun.core.flow.problems import problems
from goalrun.core.flow.refs import Ref, field, fill, find
from goalrun.core.flow.verdict import INSTRUCTION, read_verdict
from goalrun.core.flow.when import WhenError, parse
from goalrun.core.value import Json
from goalrun.errors import FlowError, SpecError
from goalrun.flows.parse import parse_flow

VALUES: dict[str, Json] = {
    "args": {"a": "5", "b": 10, "yes": True, "no": "No", "list": [1], "none": [], "obj": {}, "text": "abc", "zero": 0},
}


def lookup(ref: Ref) -> Json:
    return field(VALUES, ref)


def holds(guard: str) -> bool:
    return parse(guard).holds(lookup)


def flow(*steps: dict[str, Any], **rest: object) -> Flow:
    return parse_flow({"step": [{"run": ["true"], **step} for step in steps], **rest}, "f")


def wrong(*steps: dict[str, Any], **rest: object) -> str:
    return "\n".join(problem.what for problem in problems(flow(*steps, **rest), {"dev"}))


def refused(*steps: dict[str, Any], **rest: object) -> str:
    with pytest.raises(FlowError) as caught:
        parse_flow({"step": list(steps), **rest}, "f")
    return "\n".join(caught.value.found)


# Definitions


def test_a_flow_needs_steps() -> None:
    assert "steps" in refused() or "step: it is empty" in refused()


def test_a_step_needs_an_id() -> None:
    assert "id: it is missing" in refused({"run": "true"})


def test_ids_are_unique() -> None:
    assert "the id 'a' is given 2 times" in wrong({"id": "a"}, {"id": "a"})


def test_a_step_of_no_kind_is_refused() -> None:
    assert "exactly one of" in refused({"id": "a"})


def test_a_step_of_two_kinds_is_refused() -> None:
    assert "it has prompt and run" in refused({"id": "a", "prompt": "x", "run": "y"})


def test_unknown_keys_are_refused() -> None:
    assert "nobody knows this key; did you mean needs?" in refused({"id": "a", "run": "x", "need": []})


@pytest.mark.parametrize(
    "retry", [{"max": -1}, {"max": 21}, {"delay": -1}, {"delay": 61}, {"factor": 0.5}, {"factor": 11}]
)
def test_retries_have_bounds(retry: dict[str, float]) -> None:
    assert "retry" in refused({"id": "a", "run": "x", "retry": retry})


def test_the_delay_of_a_retry_grows_by_its_factor_to_a_minute() -> None:
    retry = Retry(max=20, delay=2, factor=3)
    assert [retry.pause(failed) for failed in (1, 2, 3, 4, 5)] == [2, 6, 18, 54, 60]


def test_the_defaults_of_a_retry_are_no_delay_and_factor_one() -> None:
    assert [Retry(max=3).pause(failed) for failed in (1, 2)] == [0, 0]


def test_an_unknown_join_is_refused() -> None:
    assert "join: it must be 'all', 'any' or 'done'" in refused({"id": "a", "run": "x", "join": "some"})


def test_a_need_that_is_no_step_is_refused() -> None:
    assert "unknown step 'b'" in wrong({"id": "a", "needs": ["b"]})


def test_a_cycle_is_refused_and_its_path_printed() -> None:
    said = wrong({"id": "a", "needs": ["c"]}, {"id": "b", "needs": ["a"]}, {"id": "c", "needs": ["b"]})
    assert "a -> b -> c -> a" in said


def test_more_than_one_final_step_is_refused() -> None:
    assert "more than one step is final: a, b" in wrong({"id": "a", "final": True}, {"id": "b", "final": True})


def test_a_step_that_refers_to_itself_is_refused() -> None:
    assert "the step refers to itself" in wrong({"id": "a", "run": ["echo", "{steps.a.output}"]})


# Order


def test_references_are_dependencies() -> None:
    made = flow({"id": "a"}, {"id": "b"}, {"id": "c"},
                {"id": "d", "needs": ["a"], "run": ["{steps.b.output}"], "when": "{steps.c.json.x} == 1"})  # fmt: skip
    assert edges(made.step("d")) == ("a", "b", "c")


def test_the_order_of_the_list_means_nothing() -> None:
    assert list(levels(flow({"id": "b", "needs": ["a"]}, {"id": "a"}))) == ["a", "b"]


def test_the_result_is_the_final_steps() -> None:
    assert final_step(flow({"id": "a", "final": True}, {"id": "b"})).id == "a"


def test_the_result_is_the_last_steps_where_none_is_final() -> None:
    assert final_step(flow({"id": "a"}, {"id": "b"})).id == "b"


# Guards


def test_when_bang_binds_looser_than_comparison() -> None:
    assert holds("!{args.a} == 6")
    assert not holds("!{args.a} == 5")


def test_when_and_binds_tighter_than_or() -> None:
    assert holds("true || false && false")


def test_when_brackets_group() -> None:
    assert not holds("(true || false) && false")


def test_when_a_comparison_does_not_chain() -> None:
    with pytest.raises(WhenError, match="unexpected '==' at character 8"):
        parse("a == b == c")


def test_when_a_backslash_makes_the_next_character_literal() -> None:
    assert holds(r'"a\"b" == ' + r"'a\"b'")
    assert holds(r'"\n" == n')


def test_when_a_bareword_is_text() -> None:
    assert holds("{args.text} == abc")


@pytest.mark.parametrize("text", ["3rd", "2026-11-21", "1.2.3"])
def test_when_a_number_is_a_prefix_and_what_is_left_is_an_error(text: str) -> None:
    with pytest.raises(WhenError):
        parse(text)


def test_when_both_sides_that_look_like_numbers_are_compared_as_numbers() -> None:
    assert holds("{args.a} < {args.b}")
    assert holds('"5.0" == {args.a}')
    assert holds("{args.a} >= 5e0")


def test_when_anything_else_is_compared_as_text() -> None:
    assert holds("{args.text} > 5")
    assert holds("{args.yes} == true")


def test_when_what_is_missing_is_compared_as_empty_text() -> None:
    assert holds('{args.missing} == ""')
    assert holds("null == ''")


def test_when_the_word_null_and_what_is_missing_are_false() -> None:
    assert not holds("{args.missing}")
    assert not holds("null")


@pytest.mark.parametrize("text", ["", " ", "false", "FALSE", "0", "no", " Off ", "null"])
def test_when_text_that_says_no_is_false(text: str) -> None:
    assert not holds(f"'{text}'")


def test_when_zero_is_false_and_other_numbers_are_true() -> None:
    assert not holds("{args.zero}")
    assert holds("-1")


def test_when_lists_and_objects_are_true_if_they_hold_something() -> None:
    assert holds("{args.list}")
    assert not holds("{args.none}")
    assert not holds("{args.obj}")


def test_when_an_empty_guard_holds() -> None:
    assert holds("  ")


# Placeholders


def test_text_goes_in_as_it_is_null_as_nothing_and_the_rest_as_json() -> None:
    said = fill("{args.text}|{args.missing}|{args.list}|{args.yes}", lookup)
    assert said == "abc||[\n  1\n]|true"


def test_a_placeholder_reaches_deeper_fields() -> None:
    assert fill("{item.a.b} {item.list.1}", lambda ref: field({"a": {"b": 1}, "list": ["x", "y"]}, ref[1:])) == "1 y"


def test_the_name_in_as_is_the_loop_value() -> None:
    assert find("{file.name} {other}", {"file"}) == [("file", "name")]


def test_braces_that_are_no_placeholder_stay() -> None:
    text = '{"a": {args}} {unknown.x} {} { args.a } ${HOME}'
    assert fill(text, lambda _ref: "X") == '{"a": X} {unknown.x} {} { args.a } ${HOME}'


def test_what_a_value_says_is_not_filled_again() -> None:
    assert fill("{args.a}", lambda _ref: "{args.b}") == "{args.b}"


# JSON in chatty text


def test_json_is_the_whole_text() -> None:
    assert find_json(' {"a": 1} ') == {"a": 1}


def test_json_is_in_a_fenced_block() -> None:
    assert find_json('See [1]:\n```json\n{"a": 1}\n```\nDone {x}.') == {"a": 1}


def test_json_is_from_the_first_bracket_to_the_last_that_matches() -> None:
    assert find_json('Here: [1, {"a": "]"}] as asked') == [1, {"a": "]"}]


@pytest.mark.parametrize("key", ["items", "results", "list", "data", "findings"])
def test_each_takes_the_list_that_an_object_holds(key: str) -> None:
    assert items_of({"note": "x", key: [1, 2]}) == [1, 2]


def test_each_of_anything_else_fails() -> None:
    with pytest.raises(ValueError, match="without a list"):
        items_of({"things": [1]})
    with pytest.raises(ValueError, match="no list but a number"):
        items_of(3)


def test_each_of_an_empty_list_is_no_failure() -> None:
    assert items_of([]) == []


def test_each_of_text_takes_the_json_in_it() -> None:
    assert items_of('the list:\n["a"]') == ["a"]


# Verdicts


def test_a_boolean_continue_decides() -> None:
    assert read_verdict('{"continue": false, "pass": true, "reason": "late"}') == (False, "late")


def test_a_boolean_pass_decides_where_there_is_no_continue() -> None:
    assert read_verdict('{"pass": true, "verdict": "block"}').go_on


@pytest.mark.parametrize("word", ["Blocked", "FAIL", "stop it", "rejected", "halt"])
def test_a_verdict_in_json_that_holds_a_word_of_blocking_blocks(word: str) -> None:
    assert not read_verdict(f'{{"verdict": "{word}"}}', "pass").go_on


@pytest.mark.parametrize("sign", [":", "=", " : "])
@pytest.mark.parametrize("word", ["PASS", "ok", "BLOCK", "FAIL", "STOP", "REJECT", "Halt"])
def test_a_verdict_in_text_is_a_word_behind_verdict(word: str, sign: str) -> None:
    assert read_verdict(f"VERDICT{sign}{word}").go_on is (word in {"PASS", "ok"})


def test_the_last_verdict_wins() -> None:
    assert read_verdict("VERDICT: BLOCK\nVERDICT: PASS").go_on
    assert not read_verdict("VERDICT: PASS\nVERDICT: BLOCK").go_on


# Arguments

DECLARED = {"topic": Arg(required=True, help="what to find out"), "depth": Arg(default=2)}


def test_a_json_object_gives_all_arguments() -> None:
    assert read_args(['{"topic": "x", "depth": 3}'], DECLARED) == {"topic": "x", "depth": 3}


def test_text_that_begins_like_json_but_is_none_goes_to_the_first_argument() -> None:
    assert read_args(["{braces} in text"], DECLARED)["topic"] == "{braces} in text"


def test_pairs_give_arguments_as_text() -> None:
    assert read_args(["topic=cats and dogs", "depth=3"], DECLARED) == {"topic": "cats and dogs", "depth": "3"}


def test_quotes_around_the_value_of_a_pair_are_taken_off() -> None:
    assert read_args(['topic="a b"'], DECLARED)["topic"] == "a b"


def test_anything_else_goes_to_the_first_argument() -> None:
    assert read_args(["cats", "and", "dogs"], DECLARED) == {"topic": "cats and dogs", "depth": 2}


def test_defaults_are_used_where_nothing_is_given() -> None:
    assert read_args([], {"depth": Arg(default=2), "other": Arg()}) == {"depth": 2, "other": None}


# Defaults that those systems reversed later


@pytest.mark.parametrize("text", ["", "looks fine", '{"verdict": "unsure"}', "VERDICT: MAYBE", '{"pass": "yes"}'])
def test_reversed_an_unclear_gate_blocks_unless_it_is_told_to_pass(text: str) -> None:
    assert not read_verdict(text).go_on
    assert read_verdict(text, "pass").go_on


@pytest.mark.parametrize(
    "text", ["VERDICT: **BLOCK**", "**VERDICT:** BLOCK", "*VERDICT*: `block`", "## VERDICT: __BLOCK__"]
)
def test_reversed_markdown_around_a_verdict_is_read(text: str) -> None:
    assert read_verdict(text, "pass") == (False, "")
    assert read_verdict(text.replace("BLOCK", "PASS").replace("block", "pass")).go_on


def test_reversed_the_word_no_does_not_block() -> None:
    assert read_verdict('{"verdict": "ok, no issues found"}').go_on


def test_reversed_a_reason_is_taken_from_text_too() -> None:
    assert read_verdict("VERDICT: BLOCK - the tests\tare gone").reason == "the tests are gone"
    assert read_verdict("REASON: no tests\nVERDICT: **BLOCK**").reason == "no tests"


def test_reversed_the_instruction_of_a_gate_never_passes_by_itself() -> None:
    assert not read_verdict(INSTRUCTION, "pass").go_on


def test_reversed_a_bad_guard_is_an_error_and_does_not_hold() -> None:
    assert "when: it cannot be read" in wrong({"id": "a", "when": "{args.x} = 3"})


def test_reversed_an_unknown_placeholder_is_an_error_and_no_text() -> None:
    assert "unknown step 'b'" in wrong({"id": "a", "run": ["{steps.b.output}"]})


def test_reversed_an_argument_that_nobody_declares_is_an_error() -> None:
    assert "unknown argument 'x'" in wrong({"id": "a", "run": ["{args.x}"]})


def test_reversed_a_required_argument_is_required() -> None:
    with pytest.raises(SpecError, match="missing argument: topic: what to find out"):
        read_args([], DECLARED)


def test_reversed_text_with_an_equals_sign_is_no_pair_of_an_unknown_argument() -> None:
    assert read_args(["x=1 should fail"], DECLARED)["topic"] == "x=1 should fail"


def test_reversed_an_unclear_gate_is_the_default() -> None:
    assert flow({"id": "a", "gate": True}).step("a").on_unclear == "block"


def test_reversed_an_agent_has_no_time_limit_of_its_own() -> None:
    assert flow({"id": "a"}).step("a").timeout is None
