"""What the tests of workers in Python share: a project, and agents that are scripts."""

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from support import Program, repository, write

AGENT = """import os, sys, time
log, gate = sys.argv[1:]
prompt = sys.stdin.read()
first = prompt.splitlines()[0]
with open(log, "a") as file:
    file.write(first + "\\n")
if "wait" in first:
    while not os.path.exists(gate):
        time.sleep(0.02)
if "fail" in first and not os.path.exists(gate):
    sys.exit("the agent is out of sorts")
if first.startswith("write "):
    name = first.split()[1]
    with open(name, "a") as file:
        file.write("x\\n")
print('{"bugs": ["one"]}' if "JSON" in prompt else f"did {first}", end="")
"""


class Flows:
    """A project with flows in Python, and agents that write down what they are asked."""

    def __init__(self, folder: Path) -> None:
        self.log = folder / "asked.log"
        self.gate = folder / "gate"
        script = write(folder, {"agent.py": AGENT}) / "agent.py"
        self.project = repository(folder / "project", {"readme": "x\n"})
        words = [sys.executable, str(script), str(self.log), str(self.gate)]
        agents = "".join(f"[agents.{name}]\ncommand = {json.dumps(words)}\n" for name in ("dev", "critic"))
        write(self.project, {"goalrun.toml": agents})
        self.program = Program(home=folder / "state", cwd=self.project)

    def run(self, code: str, *words: str, flow: str = "") -> dict[str, Any]:
        """Run ``main`` of some code; what ``flow run --json`` prints."""
        name = self.wrote(code, flow)
        done = self.program.run("flow", "run", name, *words, "--json")
        assert done.out, done.err
        return {**done.json, "code": done.code, "err": done.err}

    def wrote(self, code: str, flow: str = "") -> str:
        write(self.project, {".goalrun/flows/work.py": code})
        if not flow:
            return ".goalrun/flows/work.py:main"
        write(self.project, {".goalrun/flows/work.toml": flow})
        return "work"

    def asked(self) -> Counter[str]:
        return Counter(self.log.read_text(encoding="utf-8").splitlines() if self.log.exists() else ())

    def resumed(self, goal: str) -> dict[str, Any]:
        done = self.program.run("resume", goal, "--json")
        return {**done.json, "code": done.code, "err": done.err}
