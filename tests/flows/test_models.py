"""A step, or a member, can ask an agent for a model of its choice."""

import json
from pathlib import Path

import pytest
from support import Program, repository, script

FLOW = """
[agents.other]
use = "pi"
model = "large"

[agents.plain]
run = ["cat"]

[[step]]
id = "none"
prompt = "x"
writes = false

[[step]]
id = "named"
prompt = "x"
model = "small"
writes = false

[[step]]
id = "over"
agent = "other"
model = "tiny"
prompt = "x"
writes = false

[[step]]
id = "group"
prompt = "x"
model = "small"

  [[step.member]]
  agent = "other"
  model = "huge"

  [[step.member]]
"""


@pytest.fixture
def here(tmp_path: Path) -> Program:
    words = script(tmp_path / "agent.py", "import sys; sys.stdin.read(); print('asked', *sys.argv[1:])").split()
    settings = f'worker = "pi"\n[agents.pi]\ncommand = {json.dumps(words)}\nreads = "text"\nmodel_flag = "--model"\n'
    project = repository(tmp_path / "project", {"goalrun.toml": settings, "flow.toml": FLOW})
    return Program(home=tmp_path / "state", cwd=project)


def test_models_of_steps_and_members_reach_the_command_line(here: Program) -> None:
    done = here.run("flow", "run", "flow.toml", "--json")
    assert done.code == 0, done.err
    steps = done.json["steps"]
    assert [steps[name]["text"] for name in ("none", "named", "over")] == [
        "asked", "asked --model small", "asked --model tiny"
    ]  # fmt: skip
    members = sorted(each["text"] for each in steps["group"]["members"])
    assert members == ["asked --model huge", "asked --model small"]


def test_a_command_of_its_own_takes_no_model(here: Program) -> None:
    text = FLOW.replace('agent = "other"\nmodel = "tiny"', 'agent = "plain"\nmodel = "tiny"')
    (here.cwd / "flow.toml").write_text(text, encoding="utf-8")
    done = here.run("flow", "run", "flow.toml")
    assert (done.code, "takes no model" in done.err) == (2, True), done.err
