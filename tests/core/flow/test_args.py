"""Arguments of a flow: of their type, within their bounds, or an error in one line."""

import pytest

from goalrun.core.flow.args import complete, read_args
from goalrun.core.flow.model import Arg, Flow, Step
from goalrun.core.flow.problems import problems
from goalrun.core.value import Json
from goalrun.errors import SpecError


def arg(**keys: object) -> Arg:
    return Arg.model_validate(keys)


@pytest.mark.parametrize(
    ("declared", "text", "value"),
    [
        (arg(type="int", min=1, max=5), "3", 3),
        (arg(type="number"), "2.5", 2.5),
        (arg(type="bool"), "true", True),
        (arg(type="json"), "[1, 2]", [1, 2]),
        (arg(type="string"), "3", "3"),
        (arg(type="path"), "src/a.py", "src/a.py"),
        (arg(type="int", enum=[1, 2]), "2", 2),
        (arg(enum=["low", "high"]), "low", "low"),
        (arg(), "3", "3"),
    ],
)
def test_a_word_becomes_what_its_argument_is(declared: Arg, text: str, value: Json) -> None:
    found = read_args([f"a={text}"], {"a": declared})["a"]
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    ("declared", "given", "said"),
    [
        (arg(type="int"), "three", "argument 'a': three is not a whole number"),
        (arg(type="int"), True, "argument 'a': true is not a whole number"),
        (arg(type="int"), "2.5", "argument 'a': 2.5 is not a whole number"),
        (arg(type="number"), "1e999", "argument 'a': 1e999 is not a number"),
        (arg(type="bool"), "yes", "argument 'a': yes is not true or false"),
        (arg(type="string"), 3, "argument 'a': 3 is not text"),
        (arg(type="json"), "{", "argument 'a': { is not JSON"),
        (arg(type="path"), "/etc/passwd", "argument 'a': /etc/passwd is not a relative path that stays inside"),
        (arg(type="path"), "a/../../b", "argument 'a': a/../../b is not a relative path that stays inside"),
        (arg(type="int", min=1), "0", "argument 'a': 0 is less than 1"),
        (arg(type="number", max=1.5), "2", "argument 'a': 2 is more than 1.5"),
        (arg(enum=["low", "high"]), "mid", "argument 'a': mid is none of low, high"),
    ],
)
def test_what_does_not_fit_is_one_line(declared: Arg, given: Json, said: str) -> None:
    with pytest.raises(SpecError) as failure:
        complete({"a": given}, {"a": declared})
    assert str(failure.value) == said


def test_null_is_no_value_and_one_that_is_not_known_yet_is_left_alone() -> None:
    declared = {"a": arg(type="int"), "b": arg(type="int")}
    assert complete({"b": "{steps.x.output}"}, declared, later=("b",)) == {"a": None, "b": "{steps.x.output}"}


def test_a_default_that_does_not_fit_and_bounds_of_text_are_found_before_a_run() -> None:
    step = Step(id="s", run="true")
    flow = Flow(
        name="f",
        steps=(step,),
        args={"a": arg(type="int", default="x"), "b": arg(min=1), "c": arg(type="int", enum=[1, "two"])},
    )
    assert [problem.what for problem in problems(flow, ())] == [
        "args, a, default: x is not a whole number",
        "args, b, min: it means something only for numbers",
        "args, c, enum: two is not a whole number",
    ]


def test_what_a_step_gives_another_flow_is_held_against_it_before_a_run_where_it_is_known() -> None:
    inner = Flow(name="inner", steps=(Step(id="s", run="true"),), args={"n": arg(type="int")})

    def found(value: Json) -> list[str]:
        step = Step.model_validate({"id": "t", "flow": "inner", "with": {"n": value}, "needs": ["u"]})
        flow = Flow(name="f", steps=(Step(id="u", run="true"), step), flows={"inner": inner})
        return [problem.what for problem in problems(flow, ())]

    assert found("{steps.u.output}") == found(3) == []
    assert found("three") == ["step 't', with: flow 'inner': argument 'n': three is not a whole number"]
