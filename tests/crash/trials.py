"""Which commands are killed, where they are taken up again, and what has to have become of the goal at the end."""

import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import psutil
from crash.history import problems, states
from crash.place import CHECK, ITEMS, Ended, Place
from crash.reading import read_history
from support import wait_until

from goalrun.adapters.home import Home

TURNS = 3
START = ("start", "make it right", "-c", "sh tests/check.sh")
NEW = frozenset({"start", "wrap"})
"""What makes a goal, and is taken up by a resume once that is there."""
OPEN = ("--sandbox", "process", "--worker-isolation", "off")
PREPARED = ("--hidden-check", "test -e shop.txt", "--prepare", "mkdir -p node_modules; echo x > node_modules/x")
SLOW_SECONDS = 1.0
"""How long anything of a dead run may live."""


class Scenario(NamedTuple):
    """A command that is killed, and what surrounds it.

    Attributes:
        words: the command.
        before: commands that come first and are left alone; the last may be one that dies at ``dead``.
        live: a goal runs meanwhile, whose worker waits in the middle of a turn.
        verb: the process that is killed, where it is not the one of the command.
        turns: of the goal at its end.
        hint: what a turn has to be told.
        removed: the goal is gone at the end.
        environment: of the user.
    """

    name: str
    words: tuple[str, ...]
    before: tuple[tuple[str, ...], ...] = ()
    dead: tuple[str, int] | None = None
    live: bool = False
    verb: str = ""
    turns: int = TURNS
    hint: str = ""
    removed: bool = False
    environment: Mapping[str, str] = {}


TWO_TURNS = ((*START, "--max-turns", "2"),)
IN_TURN_TWO = ("git write-tree before", 3)
SCENARIOS = (
    Scenario("start", (*START, "--judge", "owl")),
    Scenario("start, restoring, at level process", (*START, *OPEN, *PREPARED, "--protected-edits", "restore")),
    Scenario("start -d", (*START, "-d"), verb="run-detached"),
    Scenario("start -d itself", (*START, "-d")),
    Scenario("start, with troubles", (*START, *OPEN), environment={"CRASH_TROUBLE": "1"}),
    Scenario("start, queued", (*START, "--max-turns", "9"), live=True, turns=0),
    Scenario("resume", ("resume", "--max-turns", "5", "--hint", "hint-one"), TWO_TURNS, hint="hint-one"),
    Scenario("resume of a cut turn", ("resume",), (START,), dead=("process ended", 4)),
    Scenario("hint", ("hint", "hint-two"), TWO_TURNS, hint="hint-two"),
    Scenario("restore", ("restore", "--turn", "1"), TWO_TURNS),
    Scenario("stop of a dead goal", ("stop",), (START,), dead=("process running", 4)),
    Scenario("pause of a dead goal", ("pause",), (START,), dead=("process running", 4)),
    Scenario("step", ("step",), (START,), dead=("process running", 4)),
    Scenario("stop", ("stop",), live=True),
    Scenario("pause", ("pause",), live=True),
    Scenario("clean", ("clean",), (START,), removed=True),
    Scenario("wrap", ("wrap", "steps", "make it right", "-c", "sh tests/check.sh", *OPEN), turns=2),
)


class Trial(NamedTuple):
    """What became of one run that was to die.

    Attributes:
        label: where it died; "" if it did not.
        seconds: until nothing of it was left.
    """

    label: str
    seconds: float
    problems: Sequence[str]
    ended: Ended


class Stage:
    """A scenario in a place, set up again and again."""

    def __init__(self, place: Place, scenario: Scenario) -> None:
        self.place, self.scenario = place, scenario
        self._live: subprocess.Popen[bytes] | None = None
        # A supervisor that is killed takes along what the worker said of its session.
        self._sessions = True
        place.environment = scenario.environment
        place.top.mkdir()
        place.make()
        for words in scenario.before:
            last = words is scenario.before[-1] and scenario.dead is not None
            place.run(*words, plan={"at": scenario.dead} if last else None)
        place.save()

    def set_up(self) -> None:
        """Everything as before the command."""
        self._sessions = True
        self.place.load()
        if self.scenario.live:
            self.place.environment = {"CRASH_GATE": str(self.place.top / "gate")}
            self._live = self.place.spawn(START)
            wait_until(lambda: any(fact["what"] == "edited" for fact in self.place.facts()), "a worker works")

    def words(self) -> tuple[str, ...]:
        """The command, or what takes it up once a goal is there."""
        count = len(self.place.goals())
        if self.scenario.words[0] in NEW and count > (1 if self.scenario.live else 0):
            return ("resume",)
        return self.scenario.words

    def kill(self, plan: Mapping[str, Any]) -> Trial:
        """Run the command, have it die as planned, and look at what is left."""
        verb = self.scenario.verb if self.words() == self.scenario.words else ""
        known = len(self.place.facts())
        ended = self.place.run(*self.words(), plan={**plan, "verb": verb or self.words()[0]}, until=self.queued)
        if self.scenario.words[-1] == "-d":
            wait_until(partial(_idle, self.place), "the background process ends")
        deaths = [fact for fact in self.place.facts()[known:] if fact["what"] == "dies"]
        label = deaths[0]["label"] if deaths else ""
        return Trial(label, *self.look(), ended)

    def strike(self, what: str, when: float) -> Trial:
        """Kill the command after some seconds, alone or with everything; or the supervisor of its command ``when``."""
        process = self.place.spawn(self.words())
        if what.startswith("supervisor"):
            struck = _strike_supervisor(process, what, int(when))
        else:
            struck = _strike(process, when, everything=what == "everything")
        ended = self.place.ended(process)
        return Trial(what if struck else "", *self.look(sessions=not what.startswith("supervisor")), ended)

    def queued(self) -> bool:
        """The command waits for the workspace that the live goal has: there is no more to come."""
        return self._live is not None and bool(list(self.place.home.glob("goals/*/waiting")))

    def look(self, *, sessions: bool = True) -> tuple[float, list[str]]:
        """Wait until nothing of a dead run is left, then look at every goal; a live one is left alone."""
        if self._live is not None:
            return 0.0, []
        self._sessions = self._sessions and sessions
        seconds, orphans = self.place.alone()
        found = [f"still alive: {orphan}" for orphan in orphans]
        if seconds > SLOW_SECONDS and not orphans:
            found.append(f"what a dead run left lived {seconds:.2f} s")
        found += [f"{result['id']}: {result['detail']}" for result in self._unreadable()]
        for folder in self.place.goals():
            found += problems(read_history(self.place, folder, sessions=self._sessions))
        return seconds, found

    def _unreadable(self) -> list[dict[str, Any]]:
        home = Home(self.place.home)
        return [result for result in home.results(home.ids()) if result.get("unreadable")]

    def finish(self) -> list[str]:
        """Go on without a death until the goal is achieved; what is wrong with it then."""
        if self.scenario.words[0] in NEW:
            self._let_go()
        found = list(self._done())
        self._let_go()
        for _ in range(3):
            if self.scenario.removed or all(self._achieved(folder) for folder in self.place.goals()):
                break
            self.place.run("resume", "--max-turns", "9")
        return [*found, *self.look()[1], *self._final()]

    def _let_go(self) -> None:
        if self._live is not None:
            (self.place.top / "gate").touch()
            self._live.wait(timeout=60)
            self._live = None

    def _done(self) -> Iterator[str]:
        """Run the command once more, unharmed, if it has not been done; then it has to be."""
        words = self.words()
        ended = self.place.run(*words)
        allowed = {0, 2} if words[0] in {"resume", "stop", "pause"} else {0}
        if words[0] in {"stop", "pause", "restore", "hint", "clean"} and ended.code not in allowed:
            yield f"{' '.join(words)}, again: exit {ended.code}: {ended.err}"
        if words[0] == "restore" and (self.place.workspace / "shop.txt").read_text("utf-8") != "turn 1\n":
            yield "the restored file is not that of turn 1"

    def _achieved(self, folder: Path) -> bool:
        with suppress(KeyError):
            return bool(Home(self.place.home).result(folder.name)["state"] == "achieved")
        return False

    def _final(self) -> Iterator[str]:
        goals = self.place.goals()
        if self.scenario.removed:
            if list((self.place.home / "goals").iterdir()):
                yield "what was to be removed is there"
            return
        for name, text in (("shop.txt", "fixed\n"), ("tests/check.sh", CHECK)):
            if (self.place.workspace / name).read_text("utf-8") != text:
                yield f"{name} is not as it has to be at the end"
        if self.scenario.words[0] == "wrap":
            for item in ITEMS:
                path = self.place.workspace / f"each-{item}.txt"
                if not path.exists() or path.read_text("utf-8") != f"{self.scenario.turns}\n":
                    yield f"what the item {item} wrote is not there"
        for folder in goals[-1:]:
            yield from self._goal(folder)

    def _goal(self, folder: Path) -> Iterator[str]:
        history = read_history(self.place, folder)
        state = states(history.records)[-1]
        if state.status != "achieved" or len(state.turns) != self.scenario.turns:
            yield f"{folder.name} is {state.status} after {len(state.turns)} turns: {state.detail}"
        told = {line.removeprefix("- ") for fact in history.facts for line in fact.get("hints", ())}
        if self.scenario.hint and not any(self.scenario.hint in line for line in told):
            yield f"no turn was told {self.scenario.hint}"
        if self.scenario.turns == TURNS:
            second = state.turns[1].outcome
            edits = [*second.snapshot.protected_edits, *second.verification.tampering]
            if [edit.path for edit in edits] != ["tests/check.sh"]:
                yield f"the edit of the check in turn 2 is told as {edits}"


def _strike(process: subprocess.Popen[bytes], seconds: float, *, everything: bool) -> bool:
    """Kill a run when it is so old; whether it still ran."""
    with suppress(subprocess.TimeoutExpired):
        process.wait(timeout=seconds)
        return False
    below = []
    with suppress(psutil.Error):
        below = psutil.Process(process.pid).children(recursive=True) if everything else []
    process.kill()
    for child in below:
        with suppress(psutil.Error):
            child.kill()
    return True


def _strike_supervisor(process: subprocess.Popen[bytes], what: str, which: int) -> bool:
    """Kill or stop the so manieth supervisor that a run starts, the nursery first; whether there was one."""
    met: set[int] = set()
    while process.poll() is None:
        with suppress(psutil.Error):
            children = psutil.Process(process.pid).children()
            for child in (*children, *(below for each in children for below in each.children())):
                if any("supervisor" in word for word in child.cmdline()) and child.pid not in met:
                    met.add(child.pid)
                    if len(met) == which:
                        child.send_signal(signal.SIGKILL if what.endswith("KILL") else signal.SIGSTOP)
                        return True
        time.sleep(0.002)
    return False


def points(stage: Stage) -> tuple[list[tuple[str, int]], float]:
    """Every point that the command meets when nothing disturbs it, in order; and how long it takes, in seconds."""
    stage.set_up()
    listing = stage.place.top / "points"
    plan = {"points": str(listing), "verb": stage.scenario.verb or stage.scenario.words[0]}
    began = time.monotonic()
    stage.place.run(*stage.scenario.words, plan=plan, until=stage.queued)
    if stage.scenario.verb:
        wait_until(partial(_idle, stage.place), "the background process ends")
    seconds = time.monotonic() - began
    lines = listing.read_text("utf-8").splitlines()
    wrong = stage.finish()
    if wrong:
        raise AssertionError(f"{stage.scenario.name} goes wrong without any death: {wrong}")
    return [_point(line) for line in lines], seconds


def _idle(place: Place) -> bool:
    place.kill_stopped()
    return not place.left()


def _point(line: str) -> tuple[str, int]:
    name, _, count = line[2:-1].rpartition('", ')
    return name, int(count)


def walk(stage: Stage, **only: object) -> Iterator[Trial]:
    """Kill the command, and then what takes it up, at the first point with a new name, until there is none."""
    stage.set_up()
    tried: list[str] = []
    while True:
        trial = stage.kill({"after": tried, **only})
        if not trial.label:
            return
        tried.append(trial.label)
        yield trial
