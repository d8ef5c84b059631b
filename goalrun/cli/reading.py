"""The commands that only look. `list` and `status` import nothing slow."""

import json
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from goalrun.adapters.clock import TICK_SECONDS
from goalrun.adapters.home import Home, home_folder
from goalrun.adapters.views import JOURNAL, runner
from goalrun.cli.render import NO_GOALS, list_lines, note, out, print_json, print_result, show_lines, status_lines
from goalrun.errors import SpecError

if TYPE_CHECKING:
    from goalrun.core.events import Record
    from goalrun.core.model import GoalState, Snapshot

DIFF_CHARS = 1 << 20
READ_BYTES = 1 << 16


def open_home() -> Home:
    """The state folder, to look at; it need not be there."""
    home = Home(home_folder())
    home.refuse_other()
    return home


def find(home: Home, name: str) -> str:
    """The goal that a user means; "" is the newest of the workspace that the current folder is in."""
    if name:
        return home.find(name, None)
    return home.find("", _plain_workspace() or _workspace_of_git())


def _plain_workspace() -> Path | None:
    """The workspace where that is plain to see, without asking git, which is slow to import; else None."""
    with suppress(OSError):
        here = Path.cwd().resolve(strict=True)
        if ".git" in here.parts:
            return None
        top = next((folder for folder in (here, *here.parents) if (folder / ".git").exists()), None)
        return here if top is None else top if (top / ".git/HEAD").is_file() else None
    return None


def _workspace_of_git() -> Path:
    from goalrun.adapters.git import forget_git_variables
    from goalrun.wiring.session import workspace_here

    forget_git_variables()
    return workspace_here()[0]


def list_goals(most: int | None, *, as_json: bool) -> int:
    """The newest goals, newest first; None is all of them."""
    home = open_home()
    known = home.ids()
    shown = known[:most]
    results = list(home.results(shown, turns=as_json))
    more = len(known) - len(shown)
    if as_json:
        print_json({"schema": 1, "goals": results, "more": more})
        return 0
    for line in list_lines(results):
        out(line)
    if more:
        note(f"and {more} more: goalrun list --all")
    if not results:
        note(NO_GOALS)
    return 0


def status(name: str, *, as_json: bool) -> int:
    """Where a goal stands."""
    home = open_home()
    result = home.result(find(home, name), turns=as_json)
    print_result(result, status_lines(result), as_json=as_json)
    return 0


def show(name: str, *, as_json: bool) -> int:
    """Everything about a goal."""
    home = open_home()
    result = home.result(find(home, name))
    print_result(result, show_lines(result), as_json=as_json)
    return 0


def diff(name: str, turn: str | None, *, as_json: bool) -> int:
    """What a goal, or one turn of it, changed."""
    from goalrun.adapters.journal import replay
    from goalrun.wiring.parts import open_store
    from goalrun.wiring.session import open_session

    session = open_session(write=False)
    goal = find(session.home, name)
    folder = session.home.folder(goal)
    state = replay(folder / JOURNAL)
    if state.base is None:
        raise SpecError(f"goal {goal} has no base yet: it has not run")
    before, after = state.base, state.last_snapshot or state.base
    if turn is not None:
        after = turn_commit(state, turn)
        number = _turn_number(state, turn)
        before = turn_commit(state, str(number - 1)) if number > 0 else state.base
    patch = open_store(folder, state.spec).patch(before.commit, after.commit, DIFF_CHARS)
    if as_json:
        print_json({"schema": 1, "id": goal, "before": before.commit, "after": after.commit, "diff": patch})
    else:
        from goalrun.core.evidence import plain

        # A worker chose these bytes: what a terminal would obey is taken out; a pipe gets the patch as it is.
        sys.stdout.write(plain(patch) if sys.stdout.isatty() else patch)
    return 0


def _turn_number(state: "GoalState", turn: str) -> int:
    if turn == "best":
        if state.best is None:
            raise SpecError(f"goal {state.spec.id} has no finished turn yet")
        return state.best
    if turn == "base":
        return 0
    try:
        return int(turn)
    except ValueError:
        raise SpecError(f"--turn {turn!r} is no turn", hint="--turn N, --turn best, or --turn 0 for the base") from None


def turn_commit(state: "GoalState", turn: str) -> "Snapshot":
    """The snapshot of a turn; 0 is the base.

    Raises:
        SpecError: there is no such turn.
    """
    if not turn:
        raise SpecError("which turn?", hint="--turn N, --turn best, or --turn 0 for the base")
    number = _turn_number(state, turn)
    if number == 0 and state.base is not None:
        return state.base
    if not 1 <= number <= len(state.turns):
        raise SpecError(f"goal {state.spec.id} has turns 1 to {len(state.turns)}, not {turn}")
    return state.turns[number - 1].outcome.snapshot


def logs(name: str, *, follow: bool, as_json: bool) -> int:
    """Record by record, what the worker said in its place; with ``follow`` until the goal ends."""
    home = open_home()
    goal = find(home, name)
    folder = home.folder(goal)
    printer = _LogPrinter(folder, as_json=as_json)
    while True:
        # Asked before reading: what is written until then is read below.
        ended = runner(folder) is None
        printer.print_new()
        if ended or not follow:
            return 0
        sys.stdout.flush()
        time.sleep(TICK_SECONDS)


class _LogPrinter:
    """Prints each record once, and the worker's output as it grows."""

    def __init__(self, folder: Path, *, as_json: bool) -> None:
        self._folder = folder
        self._as_json = as_json
        self._seq = 0
        self._state: GoalState | None = None
        self._transcript: Path | None = None
        self._offset = 0

    def print_new(self) -> None:
        from goalrun.adapters.journal import records
        from goalrun.core.replay import apply

        for record in records(self._folder / JOURNAL, after=self._seq):
            self._print_output()
            self._state = apply(self._state, record)
            self._seq = record.seq
            self._print_record(record)
        self._print_output()

    def _print_record(self, record: "Record") -> None:
        from goalrun.cli.progress import lines
        from goalrun.core.events import TurnStarted

        assert self._state is not None  # noqa: S101 - set just before; for the type checker
        event = record.event
        if self._as_json:
            out(record.model_dump_json())
        else:
            for line in lines(record, self._state, sys.stdout):
                out(f"{record.at[11:19]}  {line}")
        if isinstance(event, TurnStarted):
            name = f"worker-{event.attempt}"
            self._transcript = self._folder / "turns" / f"turn-{event.turn}" / name / "stdout"
            self._offset = 0

    def _print_output(self) -> None:
        for text in self._new_output():
            if self._as_json:
                out(json.dumps({"kind": "output", "text": text}))
            else:
                for line in text.splitlines():
                    out(f"          | {line}")

    def _new_output(self) -> Iterator[str]:
        from goalrun.core.evidence import plain

        if self._transcript is None or not self._transcript.exists():
            return
        with self._transcript.open("rb") as file:
            file.seek(self._offset)
            while data := file.read(READ_BYTES):
                self._offset += len(data)
                yield plain(data.decode("utf-8", "replace"))
