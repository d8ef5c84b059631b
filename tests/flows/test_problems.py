"""What is found before anything is spent: all of it, one line each."""

import re
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from goalrun.core.flow.model import MAX_PROMPT_CHARS, Flow
from goalrun.core.flow.outline import graph, mermaid, outline
from goalrun.core.flow.plan import edges, levels
from goalrun.core.flow.problems import problems
from goalrun.errors import FlowError
from goalrun.flows.parse import parse_flow

AGENTS = {"claude", "codex"}


def flow(*steps: dict[str, Any], **rest: object) -> Flow:
    return parse_flow({"step": list(steps), **rest}, "top")


def step(name: str, **keys: object) -> dict[str, Any]:
    kinds = {"prompt", "run", "flow", "python", "ask", "member"}
    return {"id": name, **({} if kinds & keys.keys() else {"run": ["true"]}), **keys}


def said(*steps: dict[str, Any], **rest: object) -> list[str]:
    found = problems(flow(*steps, **rest), AGENTS)
    assert all("\n" not in problem.what + problem.hint for problem in found)
    return [f"{problem.what}; {problem.hint}" for problem in found]


MEMBERS = [{"agent": "claude"}, {"agent": "codex"}]
WRONG: list[tuple[dict[str, Any], str]] = [
    (
        step("b", run="echo {steps.a.output}"),
        "step 'b', run: a shell would read {steps.a.output} as part of its commands",
    ),
    (step("b", run="true", workspace="worktree", setup="x {args.q}"), "step 'b', setup: a shell would read {args.q}"),
    (step("b", check=["grep {steps.a.output}"]), "step 'b', check, number 1: a shell would read"),
    (step("b", member=[{"run": "x {args.q}"}]), "step 'b', member, number 1, run: a shell would read"),
    (step("b", run=["{steps.aa.output}"]), "unknown step 'aa'; did you mean a?"),
    (step("b", run=["{steps.zzz.output}"]), "unknown step 'zzz'; known: a, b"),
    (step("b", run=["{steps.a}"]), "unknown reference '{steps.a}'"),
    (step("b", run=["{steps.a.outptu}"]), "did you mean {steps.a.output}?"),
    (step("b", run=["{steps.a.output.x}"]), "unknown reference '{steps.a.output.x}'"),
    (step("b", run=["{steps}"]), "unknown step '{steps}'"),
    (step("b", run=["{args.topc}"]), "unknown argument 'topc'; did you mean topic?"),
    (step("b", run=["{goal.objectiv}"]), "did you mean {goal.objective}?"),
    (step("b", run=["{needs}"]), "{needs} stands for nothing: the step needs no other"),
    (step("b", needs=["a"], run=["{needs.output}"]), "unknown reference '{needs.output}'"),
    (step("b", needs=["a"], run=["{previous}"]), "unknown reference '{previous}'"),
    (step("b", run=["{item}"]), "{item} means something only with each"),
    (step("b", run=["{item}"], each=["x"], **{"as": "file"}), "the elements are called file, not item; {file}"),
    (step("b", each=["x"], when="{item} == x"), "when is read once"),
    (step("b", each="a list"), "neither a list nor one placeholder"),
    (step("b", each=["x"], **{"as": "steps"}), "'steps' has a meaning of its own"),
    (step("b", when="{steps.a.output} ="), "step 'b', when: it cannot be read: unexpected '=' at character 18"),
    (step("b", when="{what.ever}"), "unknown reference '{what.ever}'"),
    (step("b", when="{steps.x.json} == 1"), "step 'b', when: unknown step 'x'"),
    (step("b", needs=["b"]), "the step needs itself"),
    (step("b", prompt="x", agent="claud"), "unknown agent 'claud'; did you mean claude?"),
    (step("b", prompt="x", member=[{"agent": "nobody"}]), "member, number 1, agent: unknown agent 'nobody'"),
    (step("b", flow="nope"), "step 'b', flow: unknown flow 'nope'"),
    (step("b", ask="sure?", gate=True), "gate: it means nothing for a question to a person"),
    (step("b", pick="best"), "pick: it means nothing without member"),
    (step("b", prompt="x", member=MEMBERS, pick="best"), 'pick: it means nothing without strategy = "compete"'),
    (step("b", prompt="x", member=MEMBERS, lead="claude"), "lead: it means nothing without strategy"),
    (step("b", prompt="x", member=MEMBERS, apply="none"), "apply: it means nothing without"),
    (step("b", ask="sure?", workspace="worktree"), "workspace: it means nothing without prompt, run"),
    (
        step("b", prompt="x", member=MEMBERS, strategy="synthesize"),
        "who puts together what the members did is not said",
    ),
    (step("b", member=[{"agent": "claude"}]), "member 1 has no prompt"),
    (step("b", max_turns=3), "max_turns: it means nothing without check"),
    (step("b", on_unclear="pass"), "on_unclear: it means nothing without gate"),
    (step("b", agent="claude"), "agent: it means nothing without prompt or member"),
    (step("b", **{"with": {"x": 1}}), "with: it means nothing without flow or python"),
    (step("b", prompt=" "), "step 'b', prompt: it is empty"),
    (step("b", expect={"type": "object", "properties": 1}), "expect: it is no JSON Schema"),
    (step("b", run=["x" * 10, "y" * (MAX_PROMPT_CHARS + 1)]), f"{MAX_PROMPT_CHARS} are the most"),
]


@pytest.mark.parametrize(("wrong", "why"), WRONG, ids=[why[:50] for _, why in WRONG])
def test_what_is_wrong_is_said_with_what_to_do(wrong: dict[str, Any], why: str) -> None:
    found = said(step("a"), wrong, args={"topic": {}, "q": {}})
    assert len(found) == 1, found
    assert why in found[0]


def test_everything_is_found_not_just_the_first() -> None:
    steps = [step(f"s{number}", **{**wrong, "id": f"s{number}"}) for number, (wrong, _) in enumerate(WRONG[:20])]
    assert len(said(step("a"), *steps, args={"topic": {}, "q": {}})) == len(steps)


def test_a_flow_in_which_nothing_is_wrong() -> None:
    inner = {
        "args": {"what": {"required": True}},
        "step": [step("x", prompt="{args.what} {goal.feedback}", agent="dev")],
    }
    assert not said(
        step("a", prompt="{args.q}", agent="dev", expect="array"),
        step("b", each="{steps.a.json}", flow="inner", **{"with": {"what": "{item}"}}),
        step("c", needs=["b"], prompt="{needs} {previous.json.x}", gate=True, on_unclear="pass"),
        step("d", prompt="{steps.c.output}", member=MEMBERS, strategy="compete", pick="best", check="true", setup="x"),
        args={"q": {"required": True}},
        agents={"dev": {"use": "claude", "model": "small"}},
        flows={"inner": inner},
    )


def test_two_cycles_are_both_printed() -> None:
    found = said(step("a", needs=["b"]), step("b", needs=["a", "c"]), step("c", needs=["b"]))
    assert sorted(line.partition("another: ")[2][:11] for line in found) == ["a -> b -> a", "b -> c -> b"]


def test_agents_of_a_flow_are_checked() -> None:
    found = said(step("a"), agents={"x": {"use": "cloude"}, "y": {}, "claude": {"use": "claude"}, "z": {"use": 3}})
    assert [line.partition(";")[0] for line in found] == [
        "agents, x, use: unknown agent 'cloude'",
        "agents, y: an agent needs one of use, run, command",
        "agents, z, use: unknown agent '3'",
    ]


def test_a_budget_that_limits_nothing_is_said() -> None:
    assert said(step("a"), budget={}) == ["budget: the budget limits nothing; usd = 1.5, or tokens = 500_000"]


def test_flows_that_use_one_another_without_end_are_refused_with_the_chain() -> None:
    inner = {name: {"step": [step("x", flow=other)]} for name, other in (("one", "two"), ("two", "one"))}
    found = said(step("a", flow="one"), flows=inner)
    assert len(found) == 1
    assert "one -> two -> one" in found[0] or "two -> one -> two" in found[0]


def test_a_flow_that_uses_itself_is_refused() -> None:
    assert "top -> top" in said(step("a", flow="top"))[0]


def test_a_flow_used_twice_is_no_recursion() -> None:
    inner = {"one": {"step": [step("x", flow="two")]}, "two": {"step": [step("y")]}}
    assert not said(step("a", flow="one"), step("b", flow="two"), flows=inner)


def test_arguments_of_a_sub_flow_are_checked() -> None:
    inner = {"one": {"args": {"what": {"required": True, "help": "the task"}}, "step": [step("x")]}}
    assert "flow 'one': missing argument: what: the task" in said(step("a", flow="one"), flows=inner)[0]
    assert "there is no argument 'wat'; did you mean what?" in said(
        step("a", flow="one", **{"with": {"wat": 1, "what": 2}}), flows=inner
    )[0]  # fmt: skip


def test_problems_in_a_flow_with_a_file_name_that_file() -> None:
    other = parse_flow({"step": [step("x", needs=["y"])]}, "other", "other.toml")

    def find(name: str) -> Flow | None:
        if name == "broken":
            raise FlowError("broken.toml:1: not valid TOML")
        return other if name == "other" else None

    found = problems(flow(step("a", flow="other"), step("b", flow="broken")), AGENTS, find)
    assert [(problem.source, problem.what) for problem in found] == [
        ("", "step 'b', flow: broken.toml:1: not valid TOML"),
        ("other.toml", "step 'x', needs: unknown step 'y'"),
    ]


@st.composite
def dags(draw: st.DrawFn) -> Flow:
    size = draw(st.integers(1, 12))
    needs = [draw(st.sets(st.integers(0, number - 1), max_size=4)) if number else set() for number in range(size)]
    order = draw(st.permutations(range(size)))
    return flow(*(step(f"s{number}", needs=[f"s{need}" for need in needs[number]]) for number in order))


@given(dags())
def test_every_step_has_a_level_behind_all_that_it_needs(made: Flow) -> None:
    found = levels(made)
    assert set(found) == {each.id for each in made.steps}
    for each in made.steps:
        assert found[each.id] == max((found[need] + 1 for need in edges(each)), default=0)
    assert not problems(made, ())


@given(dags())
def test_every_flow_is_drawn_with_each_step_on_a_rail_that_its_needs_lead_to(made: Flow) -> None:
    lines = graph(made).splitlines()
    drawn = [found[0] for line in lines if "●" in line and (found := re.findall(r"s\d+", line))]
    assert sorted(drawn) == sorted(each.id for each in made.steps)
    for above, below in pairwise(lines):
        for place, sign in enumerate(below.partition("s")[0] if "●" in below else below):
            if sign in "│├┤┼╯╰┴" and place % 2 == 0:
                assert above[place : place + 1] in {"│", "├", "┤", "┼", "╮", "╭", "┬", "●"}, "\n".join(lines)
    assert mermaid(made).count("-->") == sum(len(edges(each)) for each in made.steps)
    assert len(outline(made).splitlines()) == len(made.steps) + 1


def test_a_drawing_of_branches_that_meet() -> None:
    made = flow(
        step("a"), step("b", needs="a"), step("c", needs="a"), step("d", needs=["b", "c"]), step("e", needs=["a", "d"])
    )
    assert [line.partition("  ")[0] if "●" not in line else line for line in graph(made).splitlines()] == [
        "●      a  runs true",
        "├─┬─╮",
        "● │ │  b  runs true",
        "│ ● │  c  runs true",
        "├─╯ │",
        "●   │  d  runs true",
        "╰───┤",
        "    ●  e  runs true",
    ]


def test_mermaid_cannot_be_left_by_what_a_flow_says() -> None:
    text = mermaid(flow(step("a", run=['"]; click a "javascript:x"', "--> <b>"])))
    assert text.splitlines()[1].count('"') == 2
    assert "<b>" not in text
