"""Looking on: one goal, or all of them, from any terminal; read from the journal and the files beside it."""

import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from goalrun.adapters.clock import TICK_SECONDS
from goalrun.adapters.home import Home
from goalrun.adapters.journal import records
from goalrun.adapters.views import JOURNAL, WAITING, runner
from goalrun.cli.progress import lines
from goalrun.cli.reading import find, open_home
from goalrun.cli.render import NO_GOALS, ending, list_lines, note, out
from goalrun.core.events import Record
from goalrun.core.model import EXIT_CODES, GoalState, State
from goalrun.core.picture import Picture, seen
from goalrun.core.replay import apply
from goalrun.errors import Interrupted, UnknownGoal


def watch(name: str, *, every: bool) -> int:
    """Show a goal until it ends or somebody leaves; without one of this workspace, all goals."""
    home = open_home()
    goal = "" if every else _meant(home, name)
    if not sys.stderr.isatty():
        return _told(home, goal)
    from goalrun.cli.screen import Screen, can_take_over

    if not can_take_over(sys.stderr):
        return _told(home, goal)
    with _ended_by_signals(), Screen() as screen:
        from goalrun.cli.lookout import Lookout

        over = Lookout(home, screen).look(goal)
    return _ended(home, goal) if goal and over else 0


def _meant(home: Home, name: str) -> str:
    if name:
        return find(home, name)
    try:
        return find(home, "")
    except UnknownGoal:
        # None of this workspace: all that there are.
        return ""


def _ended(home: Home, goal: str) -> int:
    result = home.result(goal, turns=False)
    for line in ending(result):
        out(line)
    return exit_code(result)


def exit_code(result: dict[str, Any]) -> int:
    """What ``start`` would have ended with."""
    return EXIT_CODES.get(State(result["state"]), 0) if result["state"] in set(State) else Interrupted.exit_code


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end the looking with the terminal put in order."""

    def leave(number: int, _: FrameType | None) -> NoReturn:
        raise SystemExit(128 + number)

    before = {number: signal.signal(number, leave) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Follower:
    """Reads one goal's journal as it grows, and folds it into a picture."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._seq = 0
        self._state: GoalState | None = None
        self.picture: Picture | None = None
        self.runs = True
        self.note = ""

    def read(self) -> list[tuple[Record, GoalState]]:
        """The new records, with the state after each.

        Raises:
            GoalrunError: the journal cannot be read.
        """
        # Asked before reading: what is written until then is read below.
        runs = runner(self._folder) is not None
        found = []
        for record in records(self._folder / JOURNAL, after=self._seq):
            self._state = apply(self._state, record)
            self._seq = record.seq
            self.picture = seen(self.picture, record, self._state)
            found.append((record, self._state))
        self.runs = runs
        self.note = ""
        with suppress(OSError):
            self.note = "queued: " + (self._folder / WAITING).read_text(encoding="utf-8", errors="replace")
        return found


def _told(home: Home, goal: str) -> int:
    """The same in lines, for what is no terminal."""
    if not goal:
        results = list(home.results(home.ids()[:20], turns=False))
        for line in list_lines(results):
            out(line)
        if not results:
            note(NO_GOALS)
        return 0
    follower = Follower(home.folder(goal))
    while True:
        for record, state in follower.read():
            for line in lines(record, state, sys.stderr):
                note(line)
        if not follower.runs:
            return _ended(home, goal)
        time.sleep(TICK_SECONDS)
