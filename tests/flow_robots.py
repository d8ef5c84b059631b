"""A project in which every agent is a script that answers by what its prompt says."""

import json
import sys
from pathlib import Path
from typing import Any

from support import Done, Program, repository, write

ROBOT = """import json, pathlib, sys
prompt = sys.stdin.read()
here = pathlib.Path(__file__).parent
with open(here / "asked.jsonl", "a") as log:
    log.write(json.dumps(prompt) + "\\n")
for needle, answer, file in json.loads((here / "answers.json").read_text()):
    if needle in prompt:
        if file:
            pathlib.Path(file).write_text(prompt)
        print(answer)
        break
else:
    sys.exit("nobody told the robot what to answer: " + prompt)
"""


class Robots:
    """The project, and what its agent was asked."""

    def __init__(self, folder: Path) -> None:
        self._robot = write(folder / "robot", {"robot.py": ROBOT})
        command = json.dumps([sys.executable, str(self._robot / "robot.py")])
        settings = f'worker = "pi"\n[agents.pi]\ncommand = {command}\nreads = "text"\n'
        self.project = repository(folder / "project", {"goalrun.toml": settings, "a.txt": "a\n"})
        self.program = Program(home=folder / "state", cwd=self.project)

    def run(self, flow: str, answers: list[tuple[str, str] | tuple[str, str, str]], *words: str) -> dict[str, Any]:
        """Run a flow; answers: what is in a prompt, what is said to that, and a file that is written."""
        told = [[*answer, ""][:3] for answer in answers]
        (self._robot / "answers.json").write_text(json.dumps(told), encoding="utf-8")
        done = self.program.run("flow", "run", flow, *words, "--json")
        return {**done.json, "code": done.code}

    def imported(self, definition: object, *options: str) -> Done:
        """Import a definition as the flow ``made``."""
        path = self.project.parent / "made.json"
        path.write_text(json.dumps(definition, ensure_ascii=False), encoding="utf-8")
        return self.program.run("flow", "import", str(path), "-o", ".goalrun/flows/made.toml", *options)

    def asked(self) -> list[str]:
        """Every prompt so far."""
        lines = (self._robot / "asked.jsonl").read_text(encoding="utf-8").splitlines()
        return [json.loads(line) for line in lines]


def statuses(result: dict[str, Any]) -> dict[str, str]:
    """What became of each step."""
    return {name: step["status"] for name, step in result["steps"].items()}
