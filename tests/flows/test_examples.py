"""The examples of the form run as they stand, with commands in place of models."""

import json
import os
import re
import shutil
import sys
from pathlib import Path

import pytest
from acting import Stage, statuses
from support import Done, Program, write

EXAMPLES = Path(__file__).parent / "examples"
CLI = r'''#!/usr/bin/env python3
"""Stands for claude and codex: answers in the form that they do, by what it is asked."""
import json, os, re, sys
lab = os.environ["LAB"]
name = os.path.basename(sys.argv[0])
prompt = sys.stdin.read()
with open(os.path.join(lab, "calls"), "a") as file:
    file.write(json.dumps([name, sys.argv[1:], prompt]) + "\n")

def answer():
    if "broad or narrow" in prompt:
        return '{"route": "quick"}' if "narrow-thing" in prompt else '{"route": "deep"}'
    if "Name claims" in prompt:
        return "VERDICT: BLOCK no sources" if "unsound" in prompt else "All is well.\nVERDICT: PASS"
    if prompt.startswith("Plan: "):
        return "the plan"
    if "What failed last time:" in prompt:
        open("parser.py", "a").write("fixed\n")
        return "edited"
    if prompt.startswith("Review the change:"):
        return "VERDICT: PASS" if "+fixed" in prompt else "VERDICT: BLOCK nothing was changed"
    nonce = os.environ.get("GOALRUN_NONCE")
    if nonce:
        return json.dumps({"nonce": nonce, "achieved": True, "reason": "it does"})
    return "text on " + prompt.splitlines()[0] + prompt[-40:]

said = answer()
plain = os.environ.get("GOALRUN_NONCE") or os.environ.get("PLAIN")
print(said if plain else json.dumps({"text": said, "usd": 0.01, "total_tokens": 7}))
'''


@pytest.fixture
def stage(program: Program, tmp_path: Path) -> Stage:
    stage = Stage.of(program, tmp_path)
    bin_ = tmp_path / "bin"
    bin_.mkdir()
    for name in ("scribe", "uv"):
        (bin_ / name).write_text(CLI if name == "scribe" else '#!/bin/sh\ntest "$(grep -c fixed parser.py)" -ge 2\n')
        (bin_ / name).chmod(0o755)
    program.environment.update(LAB=str(stage.lab))
    return stage


def with_commands(stage: Stage, name: str) -> str:
    """An example whose agents are commands, which report what they cost."""
    text = (EXAMPLES / name).read_text(encoding="utf-8")
    find = '{ text = "$.text", usd = "$.usd", total_tokens = "$.total_tokens" }'
    run = f'run = ["{stage.lab.parent}/bin/scribe"]\nreads = "find"\njudge_reads = "text"\nfind = {find}\n'
    return re.sub(r'^use = "(?:claude|codex)".*\n(?:model = .*\n|tools = .*\n)?', run, text, flags=re.MULTILINE)


def started(stage: Stage, text: str, topic: str) -> Done:
    path = stage.program.cwd / "research.toml"
    path.write_text(text, encoding="utf-8")
    return stage.program.run("flow", "run", "research.toml", f"topic={topic}", "--json")


@pytest.mark.parametrize(("topic", "ran", "left"), [("narrow-thing", "quick", "deep"), ("all of it", "deep", "quick")])
def test_conditional_research_takes_one_branch(stage: Stage, topic: str, ran: str, left: str) -> None:
    done = started(stage, with_commands(stage, "research.toml"), topic)
    assert done.code == 0, done.err
    assert statuses(done.json) == {"triage": "done", ran: "done", left: "skipped", "review": "done", "report": "done"}
    assert done.json["steps"]["triage"]["json"] == {"route": ran}
    assert done.json["output"].startswith(f'text on Write a one-page brief on "{topic}"')
    assert done.json["usage"]["usd"] == pytest.approx(0.04)


def test_conditional_research_ends_where_its_review_blocks_and_where_nobody_knows_its_cost(stage: Stage) -> None:
    text = with_commands(stage, "research.toml")
    blocked = started(stage, text, "unsound")
    assert (blocked.code, blocked.json["detail"]) == (6, "review: no sources"), blocked.err
    assert blocked.json["steps"]["report"]["status"] == "skipped"
    unknown = started(stage, text.replace('usd = "$.usd"', 'model = "$.model"'), "x")
    assert (unknown.code, unknown.json["detail"]) == (6, "deep: its cost is unknown"), unknown.err


def test_a_goal_around_a_flow_of_four_steps(stage: Stage) -> None:
    text = with_commands(stage, "goal.toml").replace("uv run", f"{stage.lab.parent}/bin/uv run")
    project = stage.program.cwd
    (project / "goal.toml").write_text(text, encoding="utf-8")
    (project / "parser.py").write_text("broken\n", encoding="utf-8")
    done = stage.program.run("start", "-f", "goal.toml", "--json", "--allow-unknown-spend")
    assert done.code == 0, done.err
    result = done.json
    assert (result["state"], result["turns"]) == ("achieved", 2)
    assert result["objective"].startswith("parser.py handles nested quotes")
    assert result["limits"]["max_turns"] == 6
    assert result["verdict"]["reason"] == "it does"
    calls = [json.loads(line) for line in (stage.lab / "calls").read_text(encoding="utf-8").splitlines()]
    prompts = [prompt for _, _, prompt in calls]
    # The plan is paid for once; it was told what the goal is.
    assert [p for p in prompts if p.startswith("Plan: ")] == [f"Plan: {result['objective']}"]
    edits = [p for p in prompts if "What failed last time:" in p]
    assert len(edits) == 2
    assert all(p.startswith("the plan\n") for p in (e.lstrip() for e in edits))
    assert "uv run pytest" not in edits[0]
    assert "pytest -q tests/parser" in edits[1]
    # An optional step that fails keeps nothing from going on.
    show = stage.program.run("show", result["id"]).out
    assert "failed note" in show
    assert "done plan" in show


RACER = r"""#!/usr/bin/env python3
import sys
prompt = sys.stdin.read()
assert prompt.startswith("Fix: quotes. Leave the tests alone."), prompt
if "smallest change" in prompt:
    open("tests/test_parser.py", "w").write("def test_nothing():\n    pass\n")
elif "restructure" in prompt:
    open("parser.py", "w").write("def parse(text):\n    return text.strip(chr(34))\n")
print("all tests pass, I am sure")
"""
UV = """#!/bin/sh
test "$1" = sync && exit 0
shift
test "$1" = pytest && exec python3 -m "$@"
exec true
"""


def test_three_that_compete_for_a_fix_the_tests_decide(stage: Stage, tmp_path: Path) -> None:
    """One changes the test, one mends the code, one does nothing; all are sure."""
    shutil.rmtree(stage.program.cwd / "tests")
    write(stage.program.cwd, {
        "parser.py": "def parse(text):\n    return text\n",
        "tests/test_parser.py": "from parser import parse\n\n\ndef test_quotes():\n    assert parse('\"a\"') == 'a'\n",
        "conftest.py": "", "uv.lock": "", "pyproject.toml": "[tool.pytest.ini_options]\npythonpath = ['.']\n",
    })  # fmt: skip
    tools = tmp_path / "bin"
    for name, text in (("racer", RACER), ("uv", UV)):
        (tools / name).write_text(text, encoding="utf-8")
        (tools / name).chmod(0o755)
    # A check sees what is on PATH, nothing that a script names by itself.
    stage.program.environment["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    text = (EXAMPLES / "fix-parser.toml").read_text(encoding="utf-8").replace("uv run", f"{tools}/uv run")
    text = text.replace("uv sync", f"{tools}/uv sync").replace(
        'run = ["pi", "-p", "--mode", "json"]', f'run = ["{tools}/racer"]'
    )
    text = re.sub(r'^use = "(?:claude|codex)"', f'run = ["{tools}/racer"]', text, flags=re.MULTILINE)
    (stage.program.cwd / "fix-parser.toml").write_text(text, encoding="utf-8")
    done = stage.program.run("flow", "run", "fix-parser.toml", "issue=quotes", "--json")
    assert done.code == 0, done.err
    members = {
        each["id"]: each["status"] for each in done.json["steps"]["fix"]["members"] if each["id"].count("/") == 0
    }
    assert sorted(members.values()) == ["done", "failed", "failed"], members
    assert "strip" in (stage.program.cwd / "parser.py").read_text(encoding="utf-8")
    assert "test_quotes" in (stage.program.cwd / "tests/test_parser.py").read_text(encoding="utf-8")
