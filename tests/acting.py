"""Agents that do what their prompt says, line by line, and leave marks outside of the workspace.

``mark NAME`` notes a line in a file, ``await NAME`` waits for that file, ``both NAME N`` marks and waits until N have,
``inside NAME`` notes how many are inside at once, ``write PATH TEXT`` changes the workspace, ``say TEXT`` answers,
``spend N`` reports tokens, ``exit N`` ends, ``limited`` and ``refused`` are what a provider says, ``hang`` never ends.
"""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support import Done, Program

from goalrun.adapters.journal import records
from goalrun.adapters.views import JOURNAL
from goalrun.core.events import CallFinished
from goalrun.errors import JournalCorrupt

ACTOR = """
import fcntl, json, os, sys, time
lab = {lab!r}
said, spent = [], {{}}

def lines(name):
    try:
        return open(os.path.join(lab, name)).read().split()
    except FileNotFoundError:
        return []

def mark(name, word="x"):
    with open(os.path.join(lab, name), "a") as file:
        file.write(word + "\\n")

def wait(happened):
    end = time.monotonic() + 300
    while not happened():
        if time.monotonic() > end:
            sys.exit("never happened")
        time.sleep(0.01)

def inside(name, step):
    with open(os.path.join(lab, name), "a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        now = [int(each) for each in file.read().split()]
        file.write(str((now[-1] if now else 0) + step) + "\\n")

prompt = open(0).read() if len(sys.argv) == 1 else sys.argv[1]
for line in prompt.splitlines():
    verb, _, rest = line.strip().partition(" ")
    if verb == "mark":
        mark(rest)
    elif verb == "await":
        wait(lambda: lines(rest))
    elif verb == "both":
        name, count = rest.split()
        mark(name)
        wait(lambda: len(lines(name)) >= int(count))
    elif verb == "inside":
        inside(rest, 1)
        time.sleep(0.05)
        inside(rest, -1)
    elif verb == "write":
        path, _, text = rest.partition(" ")
        open(path, "w").write(text + "\\n")
    elif verb == "say":
        said.append(rest)
    elif verb == "spend":
        spent["total_tokens"] = int(rest)
    elif verb == "limited":
        mark("limited")
        spent["limited"] = True
    elif verb == "limited-once":
        if not lines("limited"):
            mark("limited")
            spent["limited"] = True
            break
    elif verb == "hang":
        mark("hangs", str(os.getpid()))
        time.sleep(600)
    elif verb == "exit":
        print("\\n".join(said))
        sys.exit(int(rest))
if os.environ.get("ACTOR_JSON"):
    print(json.dumps({{"text": "\\n".join(said), **spent}}))
else:
    print("\\n".join(said))
sys.exit(1 if spent.get("limited") else 0)
"""


@dataclass
class Stage:
    """A program, a folder of flows, and a folder of marks."""

    program: Program
    lab: Path

    @classmethod
    def of(cls, program: Program, tmp_path: Path) -> "Stage":
        lab = tmp_path / "lab"
        lab.mkdir()
        (tmp_path / "actor.py").write_text(ACTOR.format(lab=str(lab)), encoding="utf-8")
        flows = program.cwd / ".goalrun" / "flows"
        flows.mkdir(parents=True)
        stage = cls(program, lab)
        (program.cwd / "goalrun.toml").write_text(stage.agents(), encoding="utf-8")
        return stage

    @property
    def words(self) -> list[str]:
        return [sys.executable, "-S", "-E", str(self.lab.parent / "actor.py")]

    def agents(self) -> str:
        """Two agents of a configuration file: one that says plain text, one that counts."""
        find = 'find = { text = "$.text", total_tokens = "$.total_tokens", limited = "$.limited" }'
        return (
            f"[agents.actor]\ncommand = {json.dumps(self.words)}\n"
            f'[agents.counts]\ncommand = {json.dumps(self.words)}\nreads = "find"\n{find}\nenv = {{ ACTOR_JSON = "1" }}\n'
        )

    def flow(self, text: str, name: str = "f") -> str:
        """A flow in the project; ``ACTOR`` in a list of words is the actor as a command."""
        words = json.dumps(self.words)[1:-1]
        path = self.program.cwd / ".goalrun" / "flows" / f"{name}.toml"
        path.write_text(text.replace('"ACTOR"', words), encoding="utf-8")
        return name

    def run(self, text: str, *words: str) -> Done:
        """A flow, run to its end."""
        return self.program.run("flow", "run", self.flow(text), *words, "--json")

    def marks(self, name: str) -> int:
        """How many marks there are of a name."""
        path = self.lab / name
        return len(path.read_text(encoding="utf-8").split()) if path.exists() else 0

    def mark(self, name: str) -> None:
        """Let those go on who wait for it."""
        (self.lab / name).write_text("x\n", encoding="utf-8")

    def most(self, name: str) -> int:
        """How many were inside at once at most."""
        return max(int(each) for each in (self.lab / name).read_text(encoding="utf-8").split())


def statuses(result: dict[str, Any]) -> dict[str, str]:
    """What became of each step."""
    return {name: step["status"] for name, step in result["steps"].items()}


def calls_finished(program: Program) -> int:
    """How many ends of calls the journals of all flows have."""
    journals = list((program.home / "goals").glob(f"f-*/{JOURNAL}"))
    try:
        return sum(isinstance(record.event, CallFinished) for path in journals for record in records(path))
    except JournalCorrupt:
        return 0  # it is being made
