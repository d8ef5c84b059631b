"""What goalrun's own process is made to do in these tests: to write down what it did, and to die at a named point.

The product only names points (``goalrun.adapters.points``); Python names its own, for files, folders, locks and
processes. All come by here as audit events (PEP 578), before what they name is done. ``CRASH_PLAN`` says, as JSON:

    witness   the file for what happened, a JSON object a line
    points    the file for every point that is met, where they are to be listed
    at        [label, occurrence]: where to die
    after     labels: die at the first point that has none of these
    among     with ``after``: only at one of these
    named     with ``after``: only where goalrun itself names a point, or starts a process
    stop      be stopped (SIGSTOP) there in place of being killed
    verb      only in the process of this command of goalrun's

This file needs the standard library alone, and none of goalrun.
"""

import json
import os
import re
import signal
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

PLAN = "CRASH_PLAN"
NAMED = "goalrun.point"
OF_PATHS = frozenset({
    "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.chmod", "os.truncate",
    "shutil.copyfile", "shutil.copytree", "shutil.move", "shutil.rmtree", "sqlite3.connect", "tempfile.mkdtemp",
})  # fmt: skip
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
CHANCE = re.compile(
    r"g-\d{8}-[a-z2-7]{9}|(?<=^verify-).+|(?<=^goalrun-agent-).+|(?<=^goalrun-judge-).+|(?<=^goalrun-probe-).+|^tmp[a-z0-9_]{8}|^[a-z0-9_]{8}$|[0-9a-f]{7,}|\d+"
)


def label(event: str, arguments: tuple[Any, ...]) -> str | None:
    """What a point is called: the same in every run, so without numbers and chance; None for what is no point."""
    if event == NAMED:
        return str(arguments[0])
    if event == "subprocess.Popen":
        words = [os.fsdecode(word) for word in arguments[1]]
        what = "goalrun" if "goalrun" in words else "nursery" if "-I" in words else Path(words[0]).name
        return f"start of {what}"
    if event in OF_PATHS or (event == "open" and _for_writing(*arguments)):
        place = arguments[1 if event == "os.rename" else 0]
        if isinstance(place, str | bytes | os.PathLike):
            path = Path(os.fsdecode(place).removeprefix("file:").partition("?")[0])
            return f"{event} {CHANCE.sub('#', path.name)}"
    return None


def _for_writing(path: object, mode: object, flags: object) -> bool:
    if isinstance(path, str) and (path.startswith(("/dev/", "/proc/")) or path.endswith(".pyc")):
        return False
    return bool(isinstance(flags, int) and flags & WRITES) or (
        isinstance(mode, str) and set(mode) & set("wax+") != set()
    )


class Listener:
    """Counts points, writes down which records are durable, and dies where it is told to."""

    def __init__(self, plan: Mapping[str, Any]) -> None:
        self._plan = plan
        self._met: Counter[str] = Counter()
        self._busy = False
        self._witness = os.open(plan["witness"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        points = plan.get("points")
        self._points = os.open(points, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600) if points else None

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        # What is done in here raises events of its own.
        if self._busy:
            return
        self._busy = True
        try:
            name = label(event, arguments)
            if name is not None:
                self._reached(event, name, arguments)
        finally:
            self._busy = False

    def _reached(self, event: str, name: str, arguments: tuple[Any, ...]) -> None:
        self._met[name] += 1
        if name.startswith("journal ") and name.endswith(" durable"):
            self._say(what="record", kind=name.split()[1], journal=arguments[1], seq=arguments[2], digest=arguments[3])
        if self._points is not None:
            os.write(self._points, json.dumps([name, self._met[name]]).encode() + b"\n")
        if self._dies(event, name):
            self._say(what="dies", label=name, occurrence=self._met[name])
            os.kill(os.getpid(), signal.SIGSTOP if self._plan.get("stop") else signal.SIGKILL)

    def _dies(self, event: str, name: str) -> bool:
        if "after" in self._plan:
            named = event in {NAMED, "subprocess.Popen"} or "named" not in self._plan
            return named and name not in self._plan["after"] and name in self._plan.get("among", (name,))
        return self._plan.get("at") == [name, self._met[name]]

    def _say(self, **fact: object) -> None:
        os.write(self._witness, json.dumps(fact).encode() + b"\n")


def listen() -> None:
    """Do what the plan says, if it is about this process."""
    plan = json.loads(os.environ[PLAN])
    if plan.get("verb") in {None, *sys.orig_argv[4:5]}:
        sys.addaudithook(Listener(plan))
