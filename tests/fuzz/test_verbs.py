"""The verbs of the command line in any order, each against a small model of what goals are.

Real processes and one state folder per example; few examples by default, GOALRUN_VERBS=N for N times as many.
"""

import json
import os
import shutil
import signal
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from support import Done, Program, repository, script, wait_until

from goalrun.adapters.home import Home
from goalrun.core.model import EXIT_CODES, State

TIMES = int(os.environ.get("GOALRUN_VERBS", "1"))
pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends what a killed goalrun leaves at once"),
    pytest.mark.timeout(180 * TIMES),
]
USAGE, BUSY = 2, 8
CHECK = "test -e done.txt"
WORKER = """
import os, pathlib, shutil, sys, time
told = pathlib.Path(sys.argv[1])
plan = (told / "plan").read_text()
shutil.copy(os.environ["GOALRUN_PROMPT_FILE"], told / "prompt")
if plan == "wait":
    (told / "waits").touch()
    while not (told / "go").exists():
        time.sleep(0.02)
    plan = (told / "plan").read_text()
with open("note.txt", "a") as note:
    note.write(f"{time.time_ns()}\\n")
if plan == "achieve":
    pathlib.Path("done.txt").touch()
if plan == "block":
    print("no key to the door")
    sys.exit(75)
"""
PLANS = st.sampled_from(["move", "move", "achieve", "block"])
Content = tuple[str, bool]


@dataclass
class Goal:
    """What the model knows of a goal.

    Attributes:
        state: as ``status`` shows it.
        known: what the workspace held at the base and after each turn.
        hints: those that no turn has told yet.
        seconds: the least that it has run.
    """

    id: str
    max_turns: int
    state: str = "running"
    known: list[Content] = field(default_factory=list)
    hints: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def turns(self) -> int:
        """How many turns are over."""
        return max(0, len(self.known) - 1)


class Verbs(RuleBasedStateMachine):
    """One workspace, one state folder; at most one goal runs, in the background."""

    def __init__(self) -> None:
        super().__init__()
        self.top = Path(tempfile.mkdtemp(prefix="goalrun-verbs-"))
        self.told = self.top / "told"
        self.told.mkdir()
        self.workspace = repository(self.top / "project", {"note.txt": "begin\n"})
        self.program = Program(home=self.top / "state", cwd=self.workspace)
        self.worker = f"{script(self.top / 'worker.py', WORKER)} {self.told}"
        self.goals: dict[str, Goal] = {}
        self.running: Goal | None = None

    def teardown(self) -> None:
        if self.running is not None:
            self.program.run("stop", self.running.id)
        shutil.rmtree(self.top)

    # What the model says

    def content(self) -> Content:
        return (self.workspace / "note.txt").read_text(), (self.workspace / "done.txt").exists()

    def prepare(self, plan: str) -> None:
        """What the worker does next; what an earlier goal achieved is undone, as a user would."""
        (self.told / "plan").write_text(plan)
        for name in ("go", "waits"):
            (self.told / name).unlink(missing_ok=True)
        (self.workspace / "done.txt").unlink(missing_ok=True)

    def happened(self, goal: Goal, plan: str, *, one_turn: bool = False) -> None:
        """The model after a run that nothing disturbed; each turn leaves something new in the note."""
        turns = 1 if plan != "move" or one_turn else goal.max_turns - goal.turns
        ends = {"achieve": "achieved", "block": "blocked", "move": "max_turns"}[plan]
        if plan == "move" and goal.turns + turns < goal.max_turns:
            ends = "paused"
        lines = self.content()[0].splitlines(keepends=True)
        for left in range(turns - 1, -1, -1):
            said = "".join(lines[: len(lines) - left])
            goal.known.append((said, plan == "achieve" and left == 0))
        if turns and goal.hints:
            prompt = (self.told / "prompt").read_text()
            assert turns > 1 or all(hint in prompt for hint in goal.hints)
            goal.hints = []
        goal.state = ends

    def some(self, number: int) -> Goal:
        return list(self.goals.values())[number % len(self.goals)]

    def ended(self, done: Done, goal: Goal) -> None:
        """A run that is over: its exit code, and what it prints."""
        assert done.code == EXIT_CODES[State(goal.state)], (goal, done)
        self.compare(done.json, goal)
        assert done.json["pid"] is None

    def compare(self, shown: dict[str, Any], goal: Goal) -> None:
        assert (shown["id"], shown["state"], shown["turns"]) == (goal.id, goal.state, goal.turns), shown["detail"]
        assert shown["limits"]["max_turns"] == goal.max_turns
        assert shown["usage"]["seconds"] >= goal.seconds
        goal.seconds = shown["usage"]["seconds"]

    def refused(self, done: Done, code: int = USAGE) -> None:
        """Refused with one line of why, and nothing on standard output."""
        assert (done.code, done.out) == (code, ""), done
        assert done.err.startswith("goalrun: "), done.err

    # Verbs that run a goal

    @initialize(plan=PLANS, limit=st.integers(1, 3))
    def first(self, plan: str, limit: int) -> None:
        self.start(plan, limit)

    @precondition(lambda self: self.running is None and len(self.goals) < 4)
    @rule(plan=PLANS, limit=st.integers(1, 3))
    def start(self, plan: str, limit: int) -> None:
        self.prepare(plan)
        base = self.content()
        done = self.program.run(*self._start(limit), "--json")
        goal = Goal(done.json["id"], limit, known=[base])
        self.goals[goal.id] = goal
        self.happened(goal, plan)
        self.ended(done, goal)

    def _start(self, limit: int) -> tuple[str, ...]:
        limits = ("--max-turns", str(limit), "--stuck-after", "0", "--worker-isolation", "off", "--sandbox", "process")
        return ("start", "go on", "--worker-cmd", self.worker, "-c", CHECK, "--no-baseline", *limits)

    @precondition(lambda self: self.running is None and len(self.goals) < 4)
    @rule(limit=st.integers(1, 3))
    def start_in_the_background(self, limit: int) -> None:
        self.prepare("wait")
        base = self.content()
        done = self.program.run(*self._start(limit), "-d", "--json")
        assert (done.code, done.json["state"]) == (0, "running"), done
        self.running = self.goals[done.json["id"]] = Goal(done.json["id"], limit, known=[base])
        wait_until((self.told / "waits").exists, "the worker runs")

    @precondition(lambda self: self.goals)
    @rule(number=st.integers(0, 3), plan=PLANS, more=st.sampled_from([0, 0, 1, 2]), hint=st.sampled_from(["", "knock"]))
    def resume(self, number: int, plan: str, more: int, hint: str) -> None:
        goal = self.some(number)
        options = [*(["--max-turns", f"+{more}"] if more else []), *(["--hint", hint] if hint else [])]
        if self.running is not None:
            code = BUSY if goal.state != "achieved" and goal.max_turns + more > goal.turns else USAGE
            # A hint is taken by the goal that it is for only when that begins to run.
            return self.refused(self.program.run("resume", goal.id, "--no-wait", *options[: 2 * bool(more)]), code)
        if goal.state == "achieved" or goal.max_turns + more <= goal.turns:
            return self.refused(self.program.run("resume", goal.id, *options))
        self.prepare(plan)
        goal.max_turns += more
        goal.hints += [hint] if hint else []
        done = self.program.run("resume", goal.id, *options, "--json")
        self.happened(goal, plan)
        return self.ended(done, goal)

    @precondition(lambda self: self.goals)
    @rule(number=st.integers(0, 3), plan=PLANS)
    def step(self, number: int, plan: str) -> None:
        goal = self.some(number) if self.running is None else self.running
        if self.running is not None:
            assert self.program.run("step", goal.id).code == 0
            return self.let_go(plan, one_turn=True)
        if goal.state == "achieved" or goal.max_turns <= goal.turns:
            return self.refused(self.program.run("step", goal.id))
        self.prepare(plan)
        done = self.program.run("step", goal.id, "--json")
        self.happened(goal, plan, one_turn=True)
        return self.ended(done, goal)

    # Verbs about a goal that runs in the background

    @precondition(lambda self: self.running is not None)
    @rule(plan=PLANS)
    def let_go(self, plan: str, *, one_turn: bool = False) -> None:
        """The worker goes on; the goal runs to its end."""
        goal = self.running
        assert goal is not None
        (self.told / "plan").write_text(plan)
        (self.told / "go").touch()
        wait_until(lambda: self.look(goal)["pid"] is None, "the goal ends")
        # Its first prompt was told before a hint that came later.
        hints, goal.hints = goal.hints, []
        self.happened(goal, plan, one_turn=one_turn)
        goal.hints = hints if goal.turns < 2 else []
        self.running = None

    @precondition(lambda self: self.running is not None)
    @rule(verb=st.sampled_from(["pause", "stop", "kill"]))
    def end_running(self, verb: str) -> None:
        goal = self.running
        assert goal is not None
        if verb == "kill":
            pid = self.look(goal)["pid"]
            os.kill(pid, signal.SIGKILL)
            psutil.wait_procs([psutil.Process(pid)] if psutil.pid_exists(pid) else [], timeout=30)
            wait_until(lambda: self.look(goal)["pid"] is None, "its end is seen")
            goal.state = "interrupted"
        else:
            done = self.program.run(verb, goal.id, "--json")
            assert done.code == 0, done
            goal.state = {"pause": "paused", "stop": "stopped"}[verb]
        self.running = None

    @precondition(lambda self: self.running is not None)
    @rule()
    def start_another(self) -> None:
        """With --no-wait a busy workspace means that there is no new goal."""
        self.refused(self.program.run(*self._start(1), "--no-wait"), BUSY)

    # Verbs about a goal that does not run

    @precondition(lambda self: self.goals and self.running is None)
    @rule(number=st.integers(0, 3), verb=st.sampled_from(["pause", "stop"]))
    def end(self, number: int, verb: str) -> None:
        goal = self.some(number)
        done = self.program.run(verb, goal.id)
        if goal.state == "achieved":
            return self.refused(done)
        if verb == "stop" or goal.state == "interrupted":
            goal.state = {"pause": "paused", "stop": "stopped"}[verb]
        assert (done.code, done.out) == (0, f"{goal.state}  {goal.id}\n"), done
        return None

    @precondition(lambda self: self.goals)
    @rule(number=st.integers(0, 3), text=st.sampled_from(["look up", "turn left"]))
    def hint(self, number: int, text: str) -> None:
        goal = self.some(number)
        done = self.program.run("hint", goal.id, text)
        if goal.state == "achieved":
            return self.refused(done)
        goal.hints.append(text)
        assert done.code == 0, done
        return None

    @precondition(lambda self: self.goals)
    @rule(number=st.integers(0, 3), turn=st.integers(0, 4))
    def restore(self, number: int, turn: int) -> None:
        goal = self.some(number)
        before = self.content()
        done = self.program.run("restore", goal.id, "--turn", str(turn))
        if turn > goal.turns:
            self.refused(done)
        elif self.running is not None:
            self.refused(done, BUSY)
        elif before not in goal.known:
            self.refused(done)
            assert self.content() == before
        else:
            assert done.code == 0, done
            assert self.content() == goal.known[turn]

    @rule(dry=st.booleans(), keep=st.integers(0, 1))
    def clean(self, *, dry: bool, keep: int) -> None:
        achieved = sorted((goal.id for goal in self.goals.values() if goal.state == "achieved"), reverse=True)[keep:]
        done = self.program.run("clean", "--keep", str(keep), "--json", *(["--dry-run"] if dry else []))
        assert (done.code, done.json["removed"]) == (0, achieved)
        assert done.json["kept"] == len(self.goals) - len(achieved)
        for goal in [] if dry else achieved:
            del self.goals[goal]

    # Verbs that only look

    def look(self, goal: Goal) -> dict[str, Any]:
        return Home(self.program.home).result(goal.id)

    @precondition(lambda self: self.goals)
    @rule(number=st.integers(0, 3), verb=st.sampled_from(["status", "show", "list", "logs", "diff", "verify"]))
    def look_at(self, number: int, verb: str) -> None:
        goal = self.some(number)
        if verb == "list":
            shown = self.program.run("list", "--json").json["goals"]
            assert [found["id"] for found in shown] == sorted(self.goals, reverse=True)
        elif verb == "verify":
            done = self.program.run("verify", "-c", CHECK, "--no-baseline", "--sandbox", "process", "--json")
            assert done.code == (0 if self.content()[1] else 12), done
        elif verb in {"status", "show"}:
            newest = self.program.run(verb, "--json")
            self.compare(newest.json, self.goals[max(self.goals)])
            assert newest.json.keys() == self.program.run("show", goal.id, "--json").json.keys()
        else:
            done = self.program.run(verb, goal.id, "--json")
            assert done.code == 0, done
            for line in done.out.splitlines() if verb == "logs" else [done.out]:
                json.loads(line)

    @rule(
        arguments=st.sampled_from(
            [["status", "g-nothing"], ["resume", "../x"], ["restore"], ["hint"], ["list", "-n", "0"]]
        )
    )
    def ask_nonsense(self, arguments: tuple[str, ...]) -> None:
        done = self.program.run(*arguments)
        assert done.code == USAGE, done
        assert "Traceback" not in done.err

    @invariant()
    def every_goal_is_as_the_model_says(self) -> None:
        home = Home(self.program.home)
        assert home.ids() == sorted(self.goals, reverse=True)
        for shown in home.results(home.ids()):
            goal = self.goals[shown["id"]]
            self.compare(shown, goal)
            assert (shown["pid"] is not None) == (goal is self.running)
            assert [record["turn"] for record in shown["turn_records"]] == list(range(1, goal.turns + 1))
        assert not (self.program.home / "log").exists()


Verbs.TestCase.settings = settings(
    max_examples=3 * TIMES,
    stateful_step_count=10,
    deadline=None,
    derandomize=TIMES == 1,
    database=None,
    suppress_health_check=list(HealthCheck),
)
TestVerbs = Verbs.TestCase
