"""A workspace, a state folder and a diary; runs of the real program in it, which end as a plan says."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import psutil
from support import repository

from goalrun.adapters.identity import GOAL_VARIABLE

HERE = Path(__file__).parent
DEADLINE_SECONDS = 60.0
CHECK = 'echo "checked by $0"\ngrep -q fixed shop.txt\n'
FLOW = """[[step]]
id = "plan"
agent = "step"
writes = false
prompt = "plan {goal.objective}"

[[step]]
id = "each"
agent = "step"
each = ["one", "two", "three"]
prompt = "each-{item} in turn {goal.turn}, by {steps.plan.output}"

[[step]]
id = "fix"
agent = "step"
needs = ["each"]
prompt = "fix in turn {goal.turn}"
"""
ITEMS = ("one", "two", "three")
MINE = "user.txt"
"""A file of the user's own, which nobody may touch."""
_TELLS = """
[agents.{name}.find]
input_tokens = "type=result: $.input"
output_tokens = "type=result: $.output"
usd = "type=result: $.usd"
session = "$.session"
text = "type=result: $.text"
limited = "type=limited: $.why"
reset = "type=limited: $.reset"
"""


def _never() -> bool:
    return False


class Ended(NamedTuple):
    """A run of the program that is over; ``died`` if a signal ended it."""

    code: int
    out: str
    err: str

    @property
    def died(self) -> bool:
        return self.code == -signal.SIGKILL


@dataclass
class Place:
    """Everything that a run has to do with, below one folder.

    Attributes:
        environment: variables of the user's, beside those that all runs have.
    """

    top: Path
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def home(self) -> Path:
        return self.top / "state"

    @property
    def workspace(self) -> Path:
        return self.top / "ws"

    @property
    def diary(self) -> Path:
        return self.top / "diary"

    def make(self) -> None:
        """The workspace: a repository, with an agent of the user's own, and a file that is in no commit."""
        python = [sys.executable, "-I", "-S"]
        worker, judge = [*python, str(HERE / "worker.py")], [*python, str(HERE / "judge.py")]
        config = (
            f"worker = 'mine'\n[agents.mine]\ncommand = {json.dumps(worker)}\n"
            f"resume = {json.dumps([*worker, '{session}'])}\nsession = 'resume'\nreads = 'find'\n"
            + _TELLS.format(name="mine")
            + f"[agents.owl]\ncommand = {json.dumps(judge)}\njudge = {json.dumps(judge)}\nreads = 'find'\n"
            "[agents.owl.find]\ntext = '$.answer'\n"
            "input_tokens = '$.input'\noutput_tokens = '$.output'\nusd = '$.usd'\n"
            f"[agents.step]\ncommand = {json.dumps([*python, str(HERE / 'step.py')])}\nreads = 'find'\n"
            + _TELLS.format(name="step")
        )
        files = {"tests/check.sh": CHECK, "goalrun.toml": config, "shop.txt": "broken\n"}
        repository(self.workspace, {**files, ".goalrun/flows/steps.toml": FLOW})
        (self.workspace / MINE).write_text("mine\n", encoding="utf-8")

    def save(self) -> None:
        """Keep everything as it is now, for ``load``."""
        shutil.copytree(self.top, self.top.with_suffix(".saved"), symlinks=True)

    def load(self) -> None:
        """Everything as it was when it was kept."""
        shutil.rmtree(self.top)
        shutil.copytree(self.top.with_suffix(".saved"), self.top, symlinks=True)

    def spawn(self, words: Sequence[str], plan: Mapping[str, Any] | None = None) -> subprocess.Popen[bytes]:
        """Start the program; what it prints goes into files."""
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("GOALRUN_", "GIT_", "XDG_"))}
        env = {
            **kept,
            "GOALRUN_HOME": str(self.home),
            "XDG_CONFIG_HOME": str(self.top / "config"),
            "NO_COLOR": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONPATH": str(HERE / "site"),
            "CRASH_PLACE": str(self.top),
            "CRASH_WITNESS": str(self.diary),
            "CRASH_PLAN": json.dumps({"witness": str(self.diary), **(plan or {})}),
            **self.environment,
        }
        with (self.top / "out").open("wb") as out, (self.top / "err").open("wb") as err:
            return subprocess.Popen(
                [sys.executable, "-P", "-m", "goalrun", *words],
                cwd=self.workspace, env=env, stdin=subprocess.DEVNULL, stdout=out, stderr=err, start_new_session=True,
            )  # fmt: skip

    def ended(self, process: subprocess.Popen[bytes]) -> Ended:
        """Wait for a run."""
        code = process.wait(timeout=DEADLINE_SECONDS)
        out, err = ((self.top / name).read_text("utf-8", "replace") for name in ("out", "err"))
        return Ended(code, out, err)

    def run(self, *words: str, plan: Mapping[str, Any] | None = None, until: Callable[[], bool] = _never) -> Ended:
        """Run the program to its end, whatever that is; it is killed when ``until`` says so."""
        process = self.spawn(words, plan)
        stops = plan is not None and bool(plan.get("stop"))
        look = os.WSTOPPED | os.WNOWAIT | os.WNOHANG
        while (stops or until is not _never) and process.poll() is None:
            if until() or (stops and os.waitid(os.P_PID, process.pid, look) is not None):
                process.kill()
            time.sleep(0.01)
        return self.ended(process)

    def kill_stopped(self) -> None:
        """Kill background processes that were stopped, as they were to be."""
        for process in self.left():
            with suppress(psutil.Error):
                if process.status() == psutil.STATUS_STOPPED:
                    process.kill()

    def left(self) -> list[psutil.Process]:
        """The living processes of any run here: all inherit a variable that names the place, or have the goal's id."""
        return [process for process in psutil.process_iter() if self._ours(process)]

    def _ours(self, process: psutil.Process) -> bool:
        with suppress(psutil.Error, OSError):
            if process.status() == psutil.STATUS_ZOMBIE:
                return False
            env = process.environ()
            return env.get("CRASH_PLACE") == str(self.top) or env.get(GOAL_VARIABLE, "-") in self._ids()
        return False

    def _ids(self) -> set[str]:
        return {folder.name for folder in self.goals()}

    def alone(self) -> tuple[float, list[str]]:
        """Wait until nothing of a dead run lives: how long that took, in seconds, and what would not end."""
        began = time.monotonic()
        while (left := self.left()) and time.monotonic() - began < DEADLINE_SECONDS / 4:
            psutil.wait_procs(left, timeout=0.02)
        names = []
        for process in left:
            with suppress(psutil.Error):
                names.append(f"{process.pid} {' '.join(process.cmdline())[:200]}")
                process.kill()
        return time.monotonic() - began, names

    def goals(self) -> list[Path]:
        """The folders of all goals, oldest first."""
        return sorted(self.home.glob("goals/g-*"))

    def facts(self) -> list[dict[str, Any]]:
        """The diary."""
        lines = self.diary.read_text("utf-8").splitlines() if self.diary.exists() else []
        return [json.loads(line) for line in lines]
