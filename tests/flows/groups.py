"""What tests of groups share: flows of one step with scripted members."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tomli_w
from support import Done, Program, git, write

RIGHT = "echo right > result.txt; echo mine"
CHECK = "grep -qx right result.txt"


def group(members: Mapping[str, str], **keys: object) -> dict[str, Any]:
    """A flow of one step: each member is a line of bash, called by its name."""
    step = {"id": "fix", "strategy": "compete", "check": [CHECK], "prompt": "Fix it.", **keys}
    step = {key: value for key, value in step.items() if value is not None}
    agents = {name: {"run": line} for name, line in members.items()}
    named = [{"agent": name} for name in members if name != step.get("lead")]
    return {"agents": agents, "step": [{**step, "member": named}]}


def put(program: Program, flow: Mapping[str, Any]) -> None:
    """A flow called ``f``, ignored by git so that it is none of the members' business."""
    write(program.cwd, {".goalrun/flows/f.toml": tomli_w.dumps(flow), ".gitignore": ".goalrun\n"})
    git(program.cwd, "add", "--all")
    git(program.cwd, "commit", "--quiet", "--allow-empty", "--message=flow")


def run(program: Program, flow: Mapping[str, Any]) -> Done:
    """Run a flow to its end."""
    put(program, flow)
    return program.run("flow", "run", "f", "--json")


def step_of(done: Done, name: str = "fix") -> dict[str, Any]:
    """What became of a step; members by name."""
    assert done.out, done.err
    step: dict[str, Any] = done.json["steps"][name]
    return {**step, "members": {member["id"]: member for member in step["members"]}}


def until(flag: Path) -> str:
    """A line of bash that waits for a file."""
    return f"while [ ! -e {flag} ]; do sleep 0.02; done"
