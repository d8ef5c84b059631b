"""What a run shows of itself: a live view on a terminal, lines elsewhere.

The view folds and draws in a thread of its own: a terminal that takes nothing (Ctrl-S) stops the drawing and not the
goal, and a bug in it ends the drawing alone. The goal's own thread only hands over each record.
"""

import queue
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal, Self

from goalrun.adapters.clock import TICK_SECONDS, utc_now
from goalrun.cli.progress import LineReporter, lines
from goalrun.cli.render import note
from goalrun.core.events import Record, TurnStarted
from goalrun.core.model import GoalState
from goalrun.core.picture import Picture, seen
from goalrun.core.ports import Reporter
from goalrun.wiring.running import SilentReporter

if TYPE_CHECKING:
    from goalrun.adapters.home import Home
    from goalrun.cli.screen import Screen

Loudness = Literal["quiet", "normal", "lines", "verbose"]
"""``normal`` is a live view where that can be."""
KEPT_LINES = 30
"""Lines of the last turn that stay when the view closes."""


@contextmanager
def shown(home: "Home", goal: str, loud: Loudness) -> Iterator[tuple[Reporter, Callable[[str], None]]]:
    """A reporter for a run, and what shows a line beside it."""
    if loud == "quiet":
        yield SilentReporter(), lambda _: None
        return
    if loud == "normal" and _on_a_terminal():
        with LiveView(home, goal) as view:
            yield view, view.tell
        return
    yield LineReporter(home.folder(goal) if loud == "verbose" else None), note


def _on_a_terminal() -> bool:
    if not sys.stderr.isatty():
        return False
    from goalrun.cli.screen import can_take_over

    return can_take_over(sys.stderr)


class LiveView:
    """Shows a goal that runs in this process, until it ends or somebody leaves; then lines go on."""

    def __init__(self, home: "Home", goal: str) -> None:
        self._home = home
        self._goal = goal
        self._news: queue.SimpleQueue[tuple[Record, GoalState]] = queue.SimpleQueue()
        self._picture: Picture | None = None
        self._note = ""
        self._kept: deque[str] = deque(maxlen=KEPT_LINES)
        self._lines = LineReporter(None)
        self._over = threading.Event()
        self._left = False
        self._failed = ""
        self._thread = threading.Thread(target=self._run, name="view", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        # The goal is over, recorded and let go of: now a terminal that takes nothing may hold us up.
        self._over.set()
        self._thread.join()
        if self._failed:
            note(f"the view was closed: {self._failed}")
        if not self._left:
            for line in self._kept:
                note(line)

    def show(self, record: Record, state: GoalState) -> None:
        """One record; see ``core.ports.Reporter``."""
        if self._left:
            self._lines.show(record, state)
            return
        self._news.put((record, state))
        self._note = ""
        if isinstance(record.event, TurnStarted):
            self._kept.clear()
        self._kept.extend(lines(record, state, sys.stderr))

    def tell(self, text: str) -> None:
        """One line beside the records."""
        self._note = text
        self._kept.append(text)
        if self._left:
            note(text)

    def _run(self) -> None:
        try:
            from goalrun.cli.screen import Screen

            with Screen() as screen:
                self._left = self._drawn_until_over(screen)
        except Exception as failure:  # noqa: BLE001 - whatever goes wrong in drawing must not touch the goal
            self._failed = f"{type(failure).__name__}: {failure}"
            self._left = True
        if self._left and not self._failed:
            note(f"the goal goes on; goalrun watch {self._goal} shows it again from another terminal, Ctrl-C pauses it")

    def _drawn_until_over(self, screen: "Screen") -> bool:
        """Draw until the goal is over; True if somebody leaves before that."""
        from goalrun.cli.goal_screen import GoalScreen

        shown = GoalScreen(self._home, screen)
        while not self._over.is_set():
            while not self._news.empty():
                self._picture = seen(self._picture, *self._news.get())
            shown.draw(self._goal, self._picture, self._note, utc_now())
            if any(shown.press(key, self._goal) == "leave" for key in screen.keys(TICK_SECONDS)):
                return True
        return False
