"""Many goals, workers that are killed and stopped at random, and what has to hold afterwards."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import psutil
import psycopg
from fleet.hosts import Network
from fleet.place import Place, bare, daemon
from support import git

ROBOT = """
import json, os, pathlib, random, sys, time
ledger, turns, longest = pathlib.Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
goal, turn = os.environ["GOALRUN_GOAL_ID"], int(os.environ["GOALRUN_TURN"])

def note(what):
    line = json.dumps({"goal": goal, "turn": turn, "what": what, "at": time.time()}) + "\\n"
    descriptor = os.open(ledger, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(descriptor, line.encode())
    os.close(descriptor)

sys.stdin.read()
note("begin")
time.sleep(random.uniform(0, longest))
with open("work.txt", "a") as file:
    file.write("done\\n" if turn >= turns else f"turn {turn}\\n")
note("end")
print(json.dumps({"tokens": 100, "usd": 0.25}))
"""
"""An agent that counts what it did where no machine that dies takes it away."""
TOKENS, USD = 100, 0.25


class Plan(NamedTuple):
    """How large a storm is."""

    goals: int
    repositories: int
    workers: int
    slots: int
    kills: int
    stops: int
    heartbeat: float
    turns: int = 2
    longest: float = 1.0
    seed: int = 1
    patience: float = 3600.0
    restarts: int = 0
    cuts: int = 0
    cut: float = 30.0


@dataclass
class History:
    """What happened, and what was found wrong; printed as it goes."""

    began: float = field(default_factory=time.monotonic)
    lines: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    takeovers: list[float] = field(default_factory=list)

    def say(self, text: str) -> None:
        self.lines.append(f"{time.monotonic() - self.began:7.1f} s  {text}")
        sys.stderr.write(self.lines[-1] + "\n")

    def expect(self, holds: bool, what: str) -> None:  # noqa: FBT001 - a fact
        if not holds:
            self.wrong.append(what)
            self.say(f"WRONG: {what}")


class Storm:
    """One run of a plan."""

    def __init__(self, place: Place, plan: Plan, prefix: tuple[str, ...] = (), network: Network | None = None) -> None:
        self.place, self.plan, self.prefix, self.network = place, plan, prefix, network
        self.history = History()
        self.ledger = place.folder / "ledger.jsonl"
        self._random = random.Random(plan.seed)  # noqa: S311 - a storm that can be had again
        self._alive: dict[str, subprocess.Popen[str]] = {}
        self._frozen: dict[str, tuple[float, list[int]]] = {}
        self._cut: dict[str, float] = {}
        self._number = 0
        self._watched: list[tuple[float, str, list[tuple[str, int]]]] = []

    def run(self) -> History:
        """Submit, disturb, wait, check."""
        # A server of its own: what receives a push does not die with the machine that sends it.
        with daemon(self.place.folder, self.place.server.address) as address:
            return self._run(address)

    def _run(self, address: str) -> History:
        ids = self._submit(address)
        for _ in range(self.plan.workers):
            self._start()
        disturb = ["kill"] * self.plan.kills + ["stop"] * self.plan.stops + ["restart"] * self.plan.restarts
        disturb += ["cut"] * self.plan.cuts
        self._random.shuffle(disturb)
        end = time.monotonic() + self.plan.patience
        # Spread over the run by how many goals are over, so that a slow machine sees the same storm.
        marks = sorted(self._random.uniform(0.02, 0.6) * len(ids) for _ in disturb)
        while (over := self._over()) < len(ids) or self._cut:
            if time.monotonic() > end:
                self.history.expect(not end, f"only {over} of {len(ids)} goals ended in {self.plan.patience:.0f} s")
                break
            if disturb and over >= marks[0] and self._disturb(disturb[0]):
                disturb.pop(0)
                marks.pop(0)
            self._watch()
            time.sleep(0.1)
        self.history.expect(not disturb, f"the storm was over before {disturb}")
        self._settle()
        check(self, ids)
        return self.history

    def _submit(self, address: str) -> list[str]:
        folder = self.place.folder
        robot = folder / "robot.py"
        robot.write_text(ROBOT, encoding="utf-8")
        self.repos = [bare(folder / f"repo-{n}.git", {"work.txt": ""}) for n in range(self.plan.repositories)]
        for repo in self.repos:
            git(repo, "config", "core.logAllRefUpdates", "always")
        words = [sys.executable, str(robot), str(self.ledger), str(self.plan.turns), str(self.plan.longest)]
        text = (
            '[submission]\nname = "storm"\n[defaults]\nworker = "robot"\nchecks = ["grep -q done work.txt"]\n'
            'objective = "finish"\n[defaults.verification]\nbaseline = false\n[defaults.agents.robot]\n'
            f'command = {json.dumps(words)}\nreads = "find"\n'
            '[defaults.agents.robot.find]\ntotal_tokens = "$.tokens"\nusd = "$.usd"\n'
        )
        for number in range(self.plan.goals):
            repo = self.repos[number % len(self.repos)]
            text += f'[[goals]]\nkey = "goal-{number}"\nrepo = "{address}/{repo.name}"\n'
        ids = self.place.submit(text)
        self.history.say(f"{len(ids)} goals over {len(self.repos)} repositories are queued")
        return ids

    def _start(self) -> None:
        self._number += 1
        name = f"worker-{self._number}"
        machine = self.network.machine(name) if self.network is not None else ()
        words = ("--slots", str(self.plan.slots))
        self._alive[name] = self.place.worker(name, *words, prefix=(*machine, *self.prefix))
        self.history.say(f"{name} begins")

    def _over(self) -> int:
        with suppress(psycopg.OperationalError):
            return int(self.place.sql("SELECT count(*) AS n FROM goal WHERE ended_at IS NOT NULL")[0]["n"])
        return 0

    def _disturb(self, what: str) -> bool:
        """Kill, stop or cut off a worker that has goals, or restart the server; False if there is none now."""
        self._wake()
        if what == "restart":
            self._restart()
            return True
        busy = self.place.sql("SELECT id, attempt, worker, turns FROM goal WHERE worker IS NOT NULL")
        away = self._frozen.keys() | self._cut.keys()
        names = sorted({row["worker"] for row in busy} & self._alive.keys() - away)
        if not names or (what != "kill" and len(self._alive) - len(away) < 2):
            return False
        name = self._random.choice(names)
        held = [(row["id"], row["attempt"]) for row in busy if row["worker"] == name]
        told = {"kill": self._kill, "stop": self._freeze, "cut": self._cut_off}[what](name)
        self._watched.append((time.monotonic(), name, held))
        self.history.say(f"{told}; it had {len(held)} goals")
        if what == "kill":
            self._start()
        return True

    def _restart(self) -> None:
        self.place.server.stop()
        self.history.say("PostgreSQL is shut down")
        time.sleep(2 * self.plan.heartbeat)
        self.place.server.start()
        self.history.say("PostgreSQL is back")

    def _kill(self, name: str) -> str:
        process = self._alive.pop(name)
        process.kill()
        process.wait()
        return f"SIGKILL to {name}"

    def _freeze(self, name: str) -> str:
        whole = self._random.random() < 0.5
        pids = stop(self._alive[name].pid, whole=whole)
        long = self._random.uniform(2.5, 4) * self.plan.heartbeat
        self._frozen[name] = (time.monotonic() + long, pids)
        of = "all its processes" if whole else "the worker alone"
        return f"SIGSTOP to {name} ({of}) for {long:.1f} s"

    def _cut_off(self, name: str) -> str:
        assert self.network is not None
        self.network.cut(name)
        self._cut[name] = time.monotonic() + self.plan.cut
        return f"the network of {name} is cut for {self.plan.cut:.1f} s"

    def _wake(self, *, everybody: bool = False) -> None:
        for name, (until, pids) in [*self._frozen.items()]:
            if everybody or time.monotonic() >= until:
                for pid in reversed(pids):
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGCONT)
                del self._frozen[name]
                self.history.say(f"SIGCONT to {name}")
        for name, until in [*self._cut.items()]:
            if self.network is not None and (everybody or time.monotonic() >= until):
                self.network.mend(name)
                del self._cut[name]
                self.history.say(f"the network of {name} is back")

    def _watch(self) -> None:
        """How long until all goals of a worker that is gone are taken over, or over."""
        self._wake()
        for entry in [*self._watched]:
            since, name, held = entry
            try:
                rows = self.place.sql("SELECT id, attempt FROM goal WHERE id = ANY(%s)", [goal for goal, _ in held])
            except psycopg.OperationalError:
                continue
            now = {row["id"]: row["attempt"] for row in rows}
            if all(now[goal] != attempt for goal, attempt in held):
                took = (time.monotonic() - since) / self.plan.heartbeat
                self.history.takeovers.append(took)
                self.history.say(f"all goals of {name} are out of its hands after {took:.2f} heartbeats")
                self._watched.remove(entry)

    def _settle(self) -> None:
        self._wake(everybody=True)
        for name, process in self._alive.items():
            self.history.expect(process.poll() is None, f"{name} ended by itself")
        self.place.end()
        self.history.say("all workers have ended")
        for name in self._alive:
            places = [self.place.folder / name / where for where in ("state/goals", "state-worktrees")]
            left = [path.name for folder in places for path in folder.glob("g-*")]
            self.history.expect(not left, f"{name} kept {left}")


def stop(pid: int, *, whole: bool) -> list[int]:
    """Stop a process, or it and all that it started, parents first."""
    process = psutil.Process(pid)
    chosen = [process, *process.children(recursive=True)]
    if not whole:
        # With namespaces the worker is the child of the program that made them.
        chosen = [each for each in chosen if each.status() != psutil.STATUS_ZOMBIE and "worker" in each.cmdline()]
    for each in chosen:
        with suppress(psutil.Error):
            each.send_signal(signal.SIGSTOP)
    return [each.pid for each in chosen]


def check(storm: Storm, ids: list[str]) -> None:
    """What has to hold, whatever happened."""
    history, place, plan = storm.history, storm.place, storm.plan
    goals = {row["id"]: row for row in place.sql("SELECT * FROM goal")}
    records = place.sql(
        "SELECT goal, seq, attempt, body, extract(epoch FROM written)::float AS at FROM record ORDER BY 1, 2"
    )
    events: dict[str, list[tuple[float, dict[str, object]]]] = {goal: [] for goal in ids}
    for row in records:
        events[row["goal"]].append((row["at"], json.loads(row["body"])))
    ledger = [json.loads(line) for line in storm.ledger.read_text(encoding="utf-8").splitlines()]
    states = Counter(row["state"] for row in goals.values())
    history.expect(states == {"achieved": plan.goals}, f"the goals ended as {dict(states)}")
    lost = 0
    for goal in ids:
        lost += _check_goal(history, goals[goal], events[goal], [each for each in ledger if each["goal"] == goal], plan)
        _check_branch(history, goals[goal], place.folder)
    left = place.sql("SELECT count(*) AS n FROM procrastinate_jobs")[0]["n"]
    history.expect(left == 0, f"{left} jobs are left in the queue")
    tokens = sum(row["tokens"] for row in goals.values())
    ends = sum(each["what"] == "end" for each in ledger)
    history.expect(ends * TOKENS == tokens + lost * TOKENS, f"{ends} runs ended, {tokens} tokens and {lost} lost runs")
    blind = sum(row["blind_tokens"] for row in goals.values())
    days = place.sql("SELECT sum(tokens)::bigint AS tokens, sum(usd) AS usd FROM spend")[0]
    history.expect(days["tokens"] == tokens, f"by day {days['tokens']} tokens, by goal {tokens}")
    history.say(
        f"{dict(states)}; {len(records)} records; {sum(row['takeovers'] for row in goals.values())} takeovers;"
        f" agents counted {ends} runs, {tokens // TOKENS} are on the bill with {tokens} tokens and"
        f" {tokens // TOKENS * USD:.2f} USD, {lost} were over when their machine died and are among the {blind} runs"
        " that the bill says nobody knows about"
    )
    if history.takeovers:
        history.say(f"takeovers took at most {max(history.takeovers):.2f} heartbeats of {plan.heartbeat} s")


def _check_goal(
    history: History,
    row: dict[str, object],
    events: list[tuple[float, dict[str, object]]],
    ledger: list[dict[str, object]],
    plan: Plan,
) -> int:
    """One goal's records against what its agent counted; how many runs were over and are not recorded."""
    goal = row["id"]
    finished = {event["turn"]: at for at, event in events if event["kind"] == "worker_finished"}
    kinds = Counter(event["kind"] for _, event in events)
    history.expect(
        kinds["worker_finished"] == len(finished) == kinds["turn_finished"] == plan.turns, f"{goal}: {kinds}"
    )
    history.expect(kinds["goal_created"] == 1, f"{goal} was created {kinds['goal_created']} times")
    begun = [each for each in ledger if each["what"] == "begin"]
    ended = Counter(each["turn"] for each in ledger if each["what"] == "end")
    for each in begun:
        at = finished.get(each["turn"])
        history.expect(at is None or float(str(each["at"])) < at, f"{goal}: turn {each['turn']} ran again, recorded")
    history.expect(row["tokens"] == TOKENS * plan.turns, f"{goal}: {row['tokens']} tokens on the bill")
    lost = sum(ended.values()) - plan.turns
    history.expect(len(begun) - plan.turns <= int(str(row["blind_tokens"])), f"{goal}: {len(begun)} runs, and not said")
    return lost


def _check_branch(history: History, row: dict[str, object], folder: Path) -> None:
    goal, repo = str(row["id"]), folder / str(row["repo"]).rpartition("/")[2]
    branch = f"goalrun/{goal}"
    found = git(repo, "rev-parse", f"refs/heads/{branch}", check=False).strip()
    history.expect(
        row["delivered"] == f"{branch} {found}", f"{goal}: delivered {row['delivered']}, the branch is {found}"
    )
    log = repo / "logs/refs/heads" / branch
    pushes = len(log.read_text(encoding="utf-8").splitlines()) if log.exists() else 0
    history.expect(pushes == 1, f"{goal}: its branch was written {pushes} times")
    text = git(repo, "show", f"{branch}:work.txt", check=False)
    history.expect(text == "turn 1\ndone\n", f"{goal}: delivered {text!r}")


def namespaces() -> tuple[str, ...]:
    """What makes a worker a machine of its own, as far as processes go; nothing where that is not allowed."""
    words = ("unshare", "--pid", "--mount-proc", "--uts", "--fork", "--kill-child")
    with suppress(OSError):
        if subprocess.run([*words, "true"], check=False, capture_output=True).returncode == 0:
            return words
    return ()
