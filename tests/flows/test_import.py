"""Definitions of pi-taskflow become flows that mean the same, or are refused in one line each."""

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
from flow_robots import Robots, statuses
from hypothesis import given, settings
from hypothesis import strategies as st

from goalrun.core.flow.model import Flow
from goalrun.errors import FlowError
from goalrun.flows.parse import parse_flow
from goalrun.flows.taskflow import Imported, import_taskflow

RESEARCH = {
    "name": "conditional-research",
    "args": {"topic": {"default": "agents"}},
    "phases": [
        {"id": "triage", "agent": "scout", "task": "Route {args.topic}", "output": "json"},
        {"id": "deep", "agent": "scout", "task": "Deep", "dependsOn": ["triage"],
         "when": "{steps.triage.json.route} == deep"},
        {"id": "quick", "agent": "scout", "task": "Quick", "dependsOn": ["triage"],
         "when": "{steps.triage.json.route} == quick"},
        {"id": "review", "type": "gate", "task": "Review {steps.deep.output}{steps.quick.output}",
         "dependsOn": ["deep", "quick"], "join": "any"},
        {"id": "report", "type": "reduce", "from": ["review"], "final": True,
         "task": "Report {steps.deep.output}|{steps.quick.output}|{previous.output}"},
    ],
}  # fmt: skip


def made(definition: object, **saved: object) -> Imported:
    text = definition if isinstance(definition, str) else json.dumps(definition, ensure_ascii=False)
    return import_taskflow(text, "d.json", "", lambda name: json.dumps(saved[name]) if name in saved else None)


def flow(definition: object, **saved: object) -> Flow:
    return parse_flow(tomllib.loads(made(definition, **saved).toml), "d")


def phase(**keys: object) -> dict[str, Any]:
    return {"name": "n", "phases": [{"id": "first", "task": "x"}, {"id": "p", "dependsOn": ["first"], **keys}]}


def step(**keys: object) -> dict[str, Any]:
    """What a phase becomes, without what all have."""
    steps: list[dict[str, Any]] = tomllib.loads(made(phase(**keys)).toml)["step"]
    return {key: value for key, value in steps[1].items() if key not in {"id", "needs"}}


def told(**keys: object) -> str:
    return "\n".join(made(phase(**keys)).told)


def refused(definition: object) -> list[str]:
    with pytest.raises(FlowError) as caught:
        made(definition)
    assert all("\n" not in line for line in caught.value.found)
    return list(caught.value.found)


@pytest.mark.parametrize(
    ("keys", "becomes"),
    [
        ({"task": "do", "agent": "a", "model": "m"}, {"prompt": "do", "agent": "a", "model": "m"}),
        ({"type": "parallel", "branches": [{"task": "one"}, {"task": "two", "agent": "b"}], "concurrency": 2},
         {"member": [{"prompt": "one"}, {"prompt": "two", "agent": "b"}], "concurrency": 2}),
        ({"type": "map", "over": "{steps.first.json}", "as": "f", "task": "{f.x}", "output": "json"},
         {"each": "{steps.first.json}", "as": "f", "prompt": "{f.x}", "expect": "json"}),
        ({"type": "map", "over": '["a", 1]', "task": "{item}"}, {"each": ["a", 1], "prompt": "{item}"}),
        ({"type": "gate", "task": "ok?"}, {"prompt": "ok?", "gate": True, "on_unclear": "pass"}),
        ({"type": "approval"}, {"ask": "Approve to continue?"}),
        ({"type": "approval", "task": "Sure of {previous.output}?"}, {"ask": "Sure of {previous.output}?"}),
        ({"task": "x", "retry": {"max": 3, "backoffMs": 1500, "factor": 2}, "optional": True, "final": True},
         {"prompt": "x", "retry": {"max": 3, "delay": 1.5, "factor": 2}, "optional": True, "final": True}),
        ({"task": "x", "output": "json"}, {"prompt": "x"}),
    ],
)  # fmt: skip
def test_each_type_of_phase_is_a_step(keys: dict[str, object], becomes: dict[str, object]) -> None:
    assert step(**keys) == becomes


def test_reduce_waits_for_both_kinds_of_dependencies() -> None:
    phases = [{"id": name, "task": "x"} for name in "ab"]
    last = {"id": "c", "type": "reduce", "from": ["b", "a"], "dependsOn": ["a"], "task": "{previous.output}"}
    assert flow({"name": "n", "phases": [*phases, last]}).step("c").needs == ("a", "b")


def test_a_saved_flow_goes_inside_with_the_arguments_that_it_is_given() -> None:
    definition = phase(type="flow", use="child", **{"with": {"what": "{steps.first.output}", "n": 3}})
    child = {"task": "{args.what} {args.other}", "args": {"other": {"required": True}}}
    inner = flow(definition, child=child).flows["child"]
    assert set(inner.args) == {"what", "other", "n"}
    assert not any(arg.required for arg in inner.args.values())


def test_a_saved_flow_that_is_not_there_is_told() -> None:
    assert "uses flow 'child', which is not beside it" in told(type="flow", use="child")


def test_flows_that_use_one_another_are_refused_with_their_chain() -> None:
    definition = {"name": "a", "phases": [{"id": "p", "type": "flow", "use": "b"}]}
    with pytest.raises(FlowError, match="without end: a -> b -> a"):
        made(definition, b={**definition, "name": "b", "phases": [{"id": "q", "type": "flow", "use": "a"}]})


def test_shorthand_has_its_default_names() -> None:
    chain = flow({"chain": ["one", {"task": "two {previous.output}", "agent": "a"}, "three"]})
    assert (chain.name, [(each.id, each.needs, each.final) for each in chain.steps]) == (
        "chain", [("step1", (), False), ("step2", ("step1",), False), ("step3", ("step2",), True)]
    )  # fmt: skip
    tasks = flow({"tasks": ["one", {"task": "two"}]})
    assert (tasks.name, tasks.steps[0].id, len(tasks.steps[0].member)) == ("parallel", "parallel", 2)
    task = flow({"task": "one", "agent": "a"})
    assert (task.name, task.steps[0].id, task.steps[0].agent) == ("task", "main", "a")
    assert flow({"chain": ["c"], "tasks": ["t"], "task": "x"}).name == "chain"


def test_defaults_that_differ_are_written_down() -> None:
    kept = tomllib.loads(made({"task": "x"}).toml)
    assert kept["concurrency"] == 8
    limits = {"budget": {"maxUSD": 0.5, "maxTokens": 9}, "concurrency": 3, "task": "x"}
    assert tomllib.loads(made(limits).toml) | {"step": 0} == {
        "name": "task", "concurrency": 3, "budget": {"usd": 0.5, "tokens": 9}, "step": 0
    }  # fmt: skip


@pytest.mark.parametrize(
    "text", ["中文提示 😀", 'a "quote" \\ back\nline', "'''\n\"\"\"", "a\r\nb\tc", " \n x \n", "\x1b\x7f"]
)
def test_text_is_kept_exactly(text: str) -> None:
    definition = {"name": "n", "description": text, "phases": [{"id": "p", "task": f"x{text}"}]}
    kept = flow(definition)
    assert (kept.description, kept.steps[0].prompt) == (text, f"x{text}")


def test_names_and_ids_that_cannot_be_ours_are_changed_and_told() -> None:
    phases = [{"id": "研究", "task": "x"}, {"id": "b", "task": "{steps.研究.output}", "dependsOn": ["研究"]}]
    result = made({"name": "研究 flow", "phases": phases})
    kept = parse_flow(tomllib.loads(result.toml), "d")
    assert (kept.name, kept.steps[0].id, kept.steps[1].prompt) == ("flow", "step1", "{steps.step1.output}")
    assert any("'研究'" in line for line in result.told)


@pytest.mark.parametrize("text", ["{item}", "{steps.nope.output}", "{steps.p.output}", "{steps.first.diff}", "{needs}"])
def test_what_referred_to_nothing_stays_text_and_is_told(text: str) -> None:
    assert step(task=text) == {"prompt": f"{{ {text[1:-1]} }}"}
    assert "referred to nothing" in told(task=text)


def test_a_reference_without_a_dependency_waits_and_asks_for_no_more_than_before() -> None:
    phases = [
        {"id": "a", "task": "x", "when": "{args.go}"},
        {"id": "b", "task": "x", "optional": True},
        {"id": "c", "task": "{steps.a.output}", "dependsOn": ["b"], "when": "{args.x} == 1"},
    ]
    result = made({"name": "n", "phases": phases})
    last = parse_flow(tomllib.loads(result.toml), "d").steps[2]
    assert (last.join, last.when) == (
        "done", "({steps.b.status} == done || {steps.b.status} == failed) && ({args.x} == 1)"
    )  # fmt: skip
    assert any("refers to 'a' without depending on it" in line for line in result.told)


def test_a_reference_to_what_is_done_anyway_is_just_a_reference() -> None:
    phases = [
        {"id": "a", "task": "x"},
        {"id": "b", "task": "x", "dependsOn": ["a"]},
        {"id": "c", "task": "{steps.a.output}", "dependsOn": ["b"]},
    ]
    assert made({"name": "n", "phases": phases}).told == ()


def test_a_reference_that_would_wait_in_a_circle_stays_text() -> None:
    phases = [{"id": "a", "task": "{steps.b.output}"}, {"id": "b", "task": "x", "dependsOn": ["a"]}]
    assert flow({"name": "n", "phases": phases}).steps[0].prompt == "{ steps.b.output }"


def test_guards_that_cannot_be_read_let_the_phase_run() -> None:
    assert step(task="x", when="a == b == c") == {"prompt": "x"}
    assert "always ran" in told(task="x", when="a == b == c")
    assert step(task="x", when="{nothing} == '{item}'")["when"] == "null == '{item}'"


@pytest.mark.parametrize("key", ["cwd", "thinking", "tools", "surprise"])
def test_what_cannot_be_kept_is_told_and_commented(key: str) -> None:
    result = made(phase(task="x", **{key: "y\nz"}))
    line = next(line for line in result.told if key in line)
    assert "left out" in line
    assert f"# {line}\n" in result.toml


def test_comments_are_no_part_of_a_definition() -> None:
    text = '{ // one\n "name": "n", /* "task": 1,\n*/ "task": "see http://x/*y*/"}'
    assert flow(text).steps[0].prompt == "see http://x/*y*/"


@pytest.mark.parametrize(
    ("definition", "line"),
    [
        ([], "a definition is an object"),
        ({"phases": [{"id": "a", "task": "x"}]}, "name is missing"),
        ({"name": "n", "phases": []}, "no phases"),
        ({"name": "n", "phases": [{"task": "x"}]}, "phase number 1: id is missing"),
        ({"name": "n", "phases": [{"id": "a", "task": "x"}] * 2}, "phase 'a': its id is given 2 times"),
        (phase(type="loop"), "phase 'p': unknown type 'loop'"),
        (phase(), "phase 'p': task is missing"),
        (phase(type="parallel", branches=[]), "phase 'p': branches is missing"),
        (phase(type="map", task="x"), "phase 'p': over is missing"),
        (phase(type="map", task="x", over="some text"), "step 'p', each"),
        (phase(type="reduce", task="x"), "phase 'p': from is missing"),
        (phase(type="flow"), "phase 'p': use is missing"),
        (phase(task="x", retry={"max": 21}), "phase 'p': retry.max is 21"),
        (phase(task="x", retry={"backoffMs": 60_001}), "phase 'p': retry.backoffMs is 60001"),
        (phase(task="x", retry={"factor": 0}), "phase 'p': retry.factor is 0"),
        (phase(task="x", join="some"), "phase 'p': join is 'some'"),
        (phase(task="x", **{"from": ["zz"]}), "phase 'p': from names an unknown phase 'zz'"),
        ({"name": "n", "phases": [{"id": "a", "task": "x", "dependsOn": ["b"]},
                                  {"id": "b", "task": "x", "dependsOn": ["a"]}]}, " -> "),
        ({"name": "n", "phases": [{"id": name, "task": "x", "final": True} for name in "ab"]}, "more than one phase"),
        ('{"name": "n", "task": "\\ud800"}', "half a character"),
        ('{"name": "n",', "not valid JSON"),
        ('{"task": "x", "args": {"a": {"default": 1e999}}}', "not valid JSON"),
        ("[" * 200_000, "nested too deeply"),
    ],
)  # fmt: skip
def test_bad_definitions_are_refused_in_one_line_each(definition: object, line: str) -> None:
    assert any(line in found for found in refused(definition)), refused(definition)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
IDS = st.sampled_from(["a", "b", "c", "研 究", "x.y"])
TEXTS = st.lists(
    st.sampled_from(["x", "{steps.a.output}", "{f.x}", "{steps.c.json.k}", "{item}", "{args.q}",
    "{previous.output}", "{", "\r\n",
                     "{steps.b.diff}", "{goal.turn}", "{needs}", "'''", '"""', "\\", " == ", "&&", "中"]),
    min_size=1, max_size=4,
).map("".join)  # fmt: skip
PHASES: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {"id": IDS, "task": TEXTS},
    optional={
        "type": st.sampled_from(["agent", "parallel", "map", "gate", "reduce", "approval", "flow"]),
        "dependsOn": st.lists(IDS, max_size=2), "from": st.lists(IDS, min_size=1, max_size=2),
        "over": st.sampled_from(["{steps.a.json}", "[1, {}]", "x"]) | VALUES, "as": st.sampled_from(["f",
        "item", "args"]),
        "branches": st.lists(st.fixed_dictionaries({"task": TEXTS}), min_size=1, max_size=2),
        "use": st.sampled_from(["n", "other"]), "with": VALUES, "join": st.sampled_from(["all", "any"]), "when": TEXTS,
        "retry": VALUES, "output": st.sampled_from(["text", "json"]), "cwd": VALUES, "optional": st.booleans(),
        "concurrency": st.integers(-1, 100), "agent": TEXTS, "final": st.booleans(),
    },
)  # fmt: skip
DEFINITIONS: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {"name": TEXTS, "phases": st.lists(PHASES, min_size=1, max_size=4, unique_by=lambda each: str(each["id"]))},
    optional={"args": VALUES, "budget": VALUES, "version": VALUES, "description": TEXTS},
)


@settings(deadline=None, max_examples=150)
@given(DEFINITIONS | st.dictionaries(st.sampled_from(["name", "phases", "task", "tasks", "chain", "args"]), VALUES))
def test_whatever_is_given_is_imported_or_refused_in_lines(definition: dict[str, Any]) -> None:
    try:
        result = made(json.dumps(definition))
    except FlowError as failure:
        unprintable = [line for line in failure.found if not line.isprintable()]
        if unprintable or not failure.found:
            raise AssertionError(unprintable) from failure
        return
    assert parse_flow(tomllib.loads(result.toml), "d").steps


# The real program


def test_conditional_research_runs_as_it_did(tmp_path: Path) -> None:
    robots = Robots(tmp_path)
    assert robots.imported(RESEARCH).code == 0
    assert robots.program.run("flow", "check", "made").code == 0
    answers: list[tuple[str, str]] = [
        ("Route", '{"route": "quick"}'), ("Quick", "three points"), ("Review", "hard to say"), ("Report", "the brief"),
    ]  # fmt: skip
    result = robots.run("made", [*answers], "topic=中文")
    # An unclear verdict let the flow go on; what was skipped is nothing.
    assert statuses(result) == {
        "triage": "done",
        "deep": "skipped",
        "quick": "done",
        "review": "done",
        "report": "done",
    }
    assert (result["state"], result["output"].strip()) == ("done", "the brief")
    asked = robots.asked()
    assert "Route 中文" in asked
    assert "Report |three points|hard to say" in asked


def test_map_and_reduce_run_as_they_did(tmp_path: Path) -> None:
    robots = Robots(tmp_path)
    phases = [
        {"id": "find", "task": "Find"},
        {"id": "look", "type": "map", "over": "{steps.find.json}", "as": "file", "task": "Look at {file.name}",
         "dependsOn": ["find"]},
        {"id": "other", "task": "Other"},
        {"id": "sum", "type": "reduce", "from": ["look", "other"], "task": "Sum: {previous.output}"},
    ]  # fmt: skip
    assert robots.imported({"name": "n", "phases": phases}).code == 0
    found = 'Here: {"items": [{"name": "one"}, {"name": "two"}]}'
    result = robots.run("made", [("Find", found), ("Look at", "seen"), ("Other", "aside"), ("Sum", "2")])
    assert set(statuses(result).values()) == {"done"}
    assert [member["status"] for member in result["steps"]["look"]["members"]] == ["done", "done"]
    assert {"Look at one", "Look at two", "Sum: aside"} <= set(robots.asked())


def test_the_command_writes_once_tells_on_standard_error_and_refuses(tmp_path: Path) -> None:
    robots = Robots(tmp_path)
    done = robots.imported({"task": "x", "cwd": "sub"})
    assert (done.code, done.out) == (0, "")
    assert "cwd" in done.err
    assert 'name = "made"' in (robots.project / ".goalrun/flows/made.toml").read_text(encoding="utf-8")
    again = robots.imported({"task": "x"})
    assert (again.code, "is already there" in again.err) == (2, True)
    path = tmp_path / "made.json"
    printed = robots.program.run("flow", "import", str(path), "--name", "mine")
    assert tomllib.loads(printed.out)["name"] == "mine"
    path.write_text('{"name": "n", "phases": [{"id": "a"}, {"id": "b", "type": "?"}]}', encoding="utf-8")
    bad = robots.program.run("flow", "import", str(path))
    assert (bad.code, bad.out, bad.err.count("phase '")) == (2, "", 2)


def test_an_imported_parallel_phase_runs_its_branches_with_the_sections_and_the_status_that_it_had(
    tmp_path: Path,
) -> None:
    robots = Robots(tmp_path)
    phases = [
        {
            "id": "both", "type": "parallel", "concurrency": 2, "agent": "scout",
            "branches": [{"task": "Look left for {args.what}"}, {"task": "Look right for {args.what}", "agent": "b"}],
        },
        {"id": "sum", "type": "reduce", "from": ["both"], "agent": "scout", "task": "Sum: {previous.output}"},
        {"id": "tasks", "type": "parallel", "branches": [{"task": "Write"}], "dependsOn": ["both"], "agent": "scout"},
    ]  # fmt: skip
    done = robots.imported({"name": "n", "args": {"what": {}}, "phases": phases})
    assert done.code == 0, done.err
    assert "takes turns" in done.err
    answers = [
        ("Sum: ", "two sides"),
        ("Look left", "nothing here"),
        ("Look right", "a door"),
        ("Write", "w", "new.txt"),
    ]
    result = robots.run("made", answers, "what=doors")
    assert (result["code"], statuses(result)) == (0, {"both": "done", "sum": "done", "tasks": "done"})
    members = {member["id"]: member["text"] for member in result["steps"]["both"]["members"]}
    assert sorted(members.values()) == ["a door", "nothing here"]
    told = next(prompt for prompt in robots.asked() if "Sum: " in prompt)
    assert "### [1/2] " in told
    assert told.index("nothing here") < told.index("\n\n---\n\n### [2/2] ") < told.index("a door")
    assert (robots.project / "new.txt").read_text(encoding="utf-8").startswith("Write")
    # One branch that fails makes the phase fail, and the others are kept.
    failed = robots.run("made", [answer for answer in answers if answer[0] != "Look right"], "what=windows")
    assert (failed["code"], statuses(failed)) == (14, {"both": "failed", "sum": "skipped", "tasks": "skipped"})
    assert {member["status"] for member in failed["steps"]["both"]["members"]} == {"done", "failed"}
