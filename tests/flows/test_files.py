"""Flow files: found, read, refused with file and line; and the commands about them."""

import json
import os
from pathlib import Path

import pytest
from support import Program, write

from goalrun.core.flow.problems import problems
from goalrun.errors import FlowError
from goalrun.flows.check import check_flow
from goalrun.flows.files import MAX_FILE_BYTES, Folder, find_flows, load_flow, read_flow, whole_flow
from goalrun.flows.goals import parse_goal_file, unwrapped
from goalrun.flows.lines import toml_lines
from goalrun.settings import load

EXAMPLES = Path(__file__).parent / "examples"
"""Conditional research, competing members, a goal around a flow: the form, as it was designed."""
AGENTS = {"claude", "codex"}
SMALL = 'description = "small"\n[[step]]\nid = "a"\nrun = ["true"]\n'


def refused(path: Path) -> list[str]:
    with pytest.raises(FlowError) as caught:
        read_flow(path)
    assert all("\n" not in line for line in caught.value.found)
    return [line.replace(str(path), "F") for line in caught.value.found]


@pytest.mark.parametrize(("name", "steps"), [("research", 5), ("fix-parser", 1), ("goal", 1)])
def test_the_examples_of_the_form_load_and_nothing_is_wrong_with_them(name: str, steps: int) -> None:
    flow = read_flow(EXAMPLES / f"{name}.toml")
    assert len(flow.steps) == steps
    assert check_flow(flow, AGENTS, ()) == []


def test_a_goal_file_gives_settings_a_flow_and_its_arguments(tmp_path: Path) -> None:
    import tomllib

    path = EXAMPLES / "goal.toml"
    text = path.read_text(encoding="utf-8")
    made = parse_goal_file(tomllib.loads(text), str(path), text)
    settings = load(tmp_path, path, goal=made.settings).settings
    assert settings.limits.max_turns == 6
    assert (settings.limits.max_time, settings.limits.max_usd, settings.limits.max_tokens) == (10800, 8, 3_000_000)
    assert settings.verification.protect == ("tests/**", "bench.py")
    assert settings.judge == ("critic",)
    assert len(settings.checks) == 2
    assert made.flow is not None
    flow, given = unwrapped(made.flow)
    assert [step.id for step in flow.steps] == ["plan", "edit", "self-review", "note"]
    assert set(flow.agents) == {"critic", "dev"}
    assert given == {"what": "{goal.objective}"}


def test_a_goal_file_without_a_flow_is_settings_alone() -> None:
    made = parse_goal_file({"goal": {"objective": "x", "check": "true", "worker": {"agent": "claude"}}})
    assert made.flow is None
    assert made.settings["worker"] == "claude"
    assert made.settings["checks"] == ["true"]


@pytest.mark.parametrize(
    "goal",
    [{"budget": {"eur": 1}}, {"budget": 3}, {"judge": {"when": "never"}}, {"worker": 3}, {"worker": {"flw": "x"}}]
)  # fmt: skip
def test_a_goal_file_that_is_wrong_in_form_is_refused(goal: dict[str, object]) -> None:
    with pytest.raises(FlowError):
        parse_goal_file({"goal": goal}, "goal.toml")


def test_the_project_wins_over_the_user_and_toml_over_json(tmp_path: Path) -> None:
    write(tmp_path / "p", {"a.toml": SMALL, "a.json": "{}", "notes.md": "x", "bad name.toml": SMALL})
    write(tmp_path / "u", {"a.toml": "", "b.json": json.dumps({"step": [{"id": "x", "ask": "sure?"}]})})
    folders = (Folder("project", tmp_path / "p"), Folder("user", tmp_path / "u"), Folder("none", tmp_path / "n"))
    assert [(found.name, found.origin) for found in find_flows(folders)] == [("a", "project"), ("b", "user")]
    assert load_flow("a", folders).description == "small"
    assert load_flow("b", folders).steps[0].kind == "ask"


@pytest.mark.parametrize("name", ["../a", "/etc/passwd", "a/b", "", ".", "a.txt", "a\0b", "x" * 65])
def test_a_name_never_chooses_a_path(tmp_path: Path, name: str) -> None:
    write(tmp_path, {"a.toml": SMALL, "f/b.toml": SMALL})
    with pytest.raises(FlowError, match="is no name of a flow"):
        load_flow(name, (Folder("project", tmp_path / "f"),))


def test_an_unknown_name_suggests_the_near_one(tmp_path: Path) -> None:
    write(tmp_path, {"research.toml": SMALL})
    with pytest.raises(FlowError) as caught:
        load_flow("reserch", (Folder("project", tmp_path),))
    assert caught.value.hint == "did you mean research?"


def test_a_flow_whose_name_is_not_its_files_is_refused(tmp_path: Path) -> None:
    write(tmp_path, {"a.toml": f'name = "b"\n{SMALL}'})
    with pytest.raises(FlowError, match="is called 'b'"):
        load_flow("a", (Folder("project", tmp_path),))


def test_what_is_no_readable_file_is_refused(tmp_path: Path) -> None:
    write(
        tmp_path,
        {"big.toml": "#" * (MAX_FILE_BYTES + 1), "no.json": "[1]", "cut.toml": "a = 1\nb = [", "c.json": '{"a":\n,}'},
    )
    (tmp_path / "latin.toml").write_bytes(b'name = "\xe9"')
    (tmp_path / "link.toml").symlink_to(tmp_path / "gone")
    (tmp_path / "folder.toml").mkdir()
    os.mkfifo(tmp_path / "pipe.toml")
    assert refused(tmp_path / "big.toml") == [f"F is larger than {MAX_FILE_BYTES} bytes"]
    assert refused(tmp_path / "no.json") == ["F: a flow is an object"]
    assert refused(tmp_path / "cut.toml")[0].startswith("F:2: not valid TOML: ")
    assert refused(tmp_path / "c.json")[0].startswith("F:2: not valid JSON: ")
    assert refused(tmp_path / "latin.toml") == ["F is not UTF-8 text (byte 8)"]
    assert refused(tmp_path / "link.toml") == ["there is no file F"]
    assert refused(tmp_path / "folder.toml") == ["F is no file"]
    assert refused(tmp_path / "pipe.toml") == ["F is no file"]
    assert [found.name for found in find_flows((Folder("project", tmp_path),))] == ["big", "c", "cut", "latin", "no"]


@pytest.mark.parametrize("text", ["[" * 100_000, '{"step": ' + "[" * 100_000 + "]" * 100_000 + "}"])
def test_json_that_is_nested_without_end_is_refused(tmp_path: Path, text: str) -> None:
    write(tmp_path, {"f.json": text})
    assert refused(tmp_path / "f.json")


def test_every_fault_of_form_has_its_line(tmp_path: Path) -> None:
    text = '''name = "f"
[[step]]
id = "a"
prompt = """
[[step]]
id = "not one"
"""
needs = 3
[[step]]
id = "b"
promt = "x"
retry = { max = 99 }
[[step]]
id = "c/d"
run = 5
  [[step.member]]
  agnt = "x"
[flows.inner]
[[flows.inner.step]]
id = "x"
dependsOn = ["y"]
'''
    write(tmp_path, {"f.toml": text})
    assert refused(tmp_path / "f.toml") == [
        "F:8: step 'a', needs: it must be a step's id, or a list of them",
        "F:11: step 'b', promt: nobody knows this key; did you mean prompt?",
        "F:12: step 'b', retry, max: it must be less than or equal to 20",
        "F:14: step 'c/d', id: it may hold letters, digits, - and _ only",
        "F:15: step 'c/d', run: it must be a list of words, or text for a shell",
        "F:17: step 'c/d', member 1, agnt: nobody knows this key; did you mean agent?",
        "F:21: flows, inner, step 'x', dependsOn: nobody knows this key; did you mean needs?",
    ]


def test_lines_are_those_of_the_keys_and_not_of_text_that_looks_like_them() -> None:
    text = "a = '''\nb = 1\n[c]\n'''\n# d = 1\n[[step]]\n x = \"# [e]\"\n[[step]]\n[step.y]\nz = 1\n"
    assert toml_lines(text) == {
        ("a",): 1, ("step", 0): 6, ("step", 0, "x"): 7, ("step", 1): 8, ("step", 1, "y"): 9, ("step", 1, "y", "z"): 10,
    }  # fmt: skip


def test_schemas_are_files_beside_the_flow(tmp_path: Path) -> None:
    step = '[[step]]\nid = "a"\nprompt = "x"\nexpect = "{}"\n'
    write(tmp_path, {"s.json": '{"type": "object"}', "no.json": "[]", "f.toml": step.format("s.json")})
    assert read_flow(tmp_path / "f.toml").steps[0].expect == {
        "$schema": "https://json-schema.org/draft/2020-12/schema", "type": "object",
    }  # fmt: skip
    for name, why in (("gone.json", "No such file"), ("no.json", "no JSON object"), (".", "no file of at most")):
        write(tmp_path, {"f.toml": step.format(name)})
        assert refused(tmp_path / "f.toml")[0].startswith("F:4: step 'a', expect: the schema")
        assert why in refused(tmp_path / "f.toml")[0]


def test_a_python_worker_has_to_be_there_and_is_not_run(tmp_path: Path) -> None:
    step = '[[step]]\nid = "a"\npython = "{}"\n'
    write(tmp_path, {"w.py": "raise SystemExit\nasync def main(run): pass\n", "bad.py": "def ("})
    for name, why in (("w.py:main", ""), ("w.py:other", "has no function 'other'"), ("bad.py:main", "not valid Python"),
                      ("x.py:main", "there is no file"), ("main", "is not file.py:function")):  # fmt: skip
        write(tmp_path, {"f.toml": step.format(name)})
        found = check_flow(read_flow(tmp_path / "f.toml"), (), ())
        assert (why in found[0] and ":3: step 'a', python:" in found[0]) if why else found == []


def test_problems_in_flows_with_files_of_their_own_name_file_and_line(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "a.toml": '[[step]]\nid = "x"\nflow = "b"\n',
            "b.toml": f'{SMALL}needs = ["y"]\n[[step]]\nid = "z"\nflow = "a"\n',
        },
    )
    folders = (Folder("project", tmp_path),)
    found = check_flow(load_flow("a", folders), (), folders)
    assert f"{tmp_path}/b.toml:5: step 'a', needs: unknown step 'y'; known: a, z" in found
    assert any("a -> b -> a" in line or "b -> a -> b" in line for line in found)
    assert len(found) == 2


def test_a_flow_takes_all_that_it_uses_with_it(tmp_path: Path) -> None:
    uses = '[[step]]\nid = "x"\nflow = "{}"\n'
    write(tmp_path, {"a.toml": uses.format("b"), "b.toml": uses.format("c"), "c.toml": SMALL})
    folders = (Folder("project", tmp_path),)
    flow = whole_flow(load_flow("a", folders), folders)
    assert set(flow.flows) == {"b", "c"}
    assert problems(flow, ()) == []


@pytest.fixture
def flows(program: Program) -> Program:
    write(program.cwd / ".goalrun" / "flows", {"research.toml": (EXAMPLES / "research.toml").read_text("utf-8")})
    return program


def test_flow_list_names_origin_and_description(flows: Program) -> None:
    write(flows.cwd / ".goalrun" / "flows", {"small.toml": SMALL, "broken.toml": "x"})
    write(flows.home.parent / "config" / "goalrun" / "flows", {"small.toml": "", "mine.toml": SMALL})
    found = {each["name"]: each for each in flows.run("flow", "list", "--json").json["flows"]}
    assert (found["small"]["origin"], found["small"]["description"]) == ("project", "small")
    assert found["mine"]["origin"] == "user"
    assert "broken.toml:1: not valid TOML" in found["broken"]["broken"]


def test_flow_check_prints_the_plan_of_a_flow_in_which_nothing_is_wrong(flows: Program) -> None:
    done = flows.run("flow", "check", "research")
    assert done.code == 0
    assert [line.split()[:2] for line in done.out.splitlines()[1:]] == [
        ["1", "triage"], ["2", "deep"], ["2", "quick"], ["3", "review"], ["4", "report"],
    ]  # fmt: skip


def test_flow_check_prints_every_problem_and_exits_with_two(flows: Program) -> None:
    write(flows.cwd, {"bad.toml": '[[step]]\nid = "a"\nrun = "echo {args.x}"\nwhen = "="\nagent = "nobody"\n'})
    done = flows.run("flow", "check", "bad.toml")
    assert done.code == 2
    assert [line.partition(": ")[0] for line in done.out.splitlines()] == [
        "bad.toml:3",
        "bad.toml:4",
        *["bad.toml:5"] * 2,
    ]
    assert len(flows.run("flow", "check", "bad.toml", "--json").json["problems"]) == 4


def test_flow_show_draws(flows: Program) -> None:
    assert "├─┴─┤" in flows.run("flow", "show", "research", "--graph").out
    assert flows.run("flow", "show", "research", "--mermaid").out.startswith("flowchart TD\n")
    shown = flows.run("flow", "show", "research", "--json").json
    assert [step["id"] for step in shown["steps"] if step["final"]] == ["report"]
    assert "argument topic (required): what to find out" in flows.run("flow", "show", "research").out
