"""What several threads have to record, and to have for themselves."""

import threading
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from goalrun.core.events import Event
from goalrun.core.ports import Note
from goalrun.flows.ports import Files, Poll

TICK_SECONDS = 0.1
"""Between two looks at whether there is any use in waiting on."""


class _Told:
    """Events of one thread on their way to the journal."""

    def __init__(self, events: Sequence[Event]) -> None:
        self.events = events
        self.over = False
        self.failure: BaseException | None = None


class Notes:
    """Events of many threads in one journal: those of the same moment are one transaction."""

    def __init__(self, note: Note) -> None:
        self._note = note
        self._queue: list[_Told] = []
        self._lock = threading.Lock()
        self._writing = threading.Lock()

    def __call__(self, *events: Event) -> None:
        """Make events durable, together with what other threads have to record at the same time."""
        mine = _Told(events)
        with self._lock:
            self._queue.append(mine)
        with self._writing:
            if not mine.over:
                self._write()
        if mine.failure is not None:
            raise mine.failure

    def _write(self) -> None:
        with self._lock:
            told, self._queue = self._queue, []
        failure: BaseException | None = None
        try:
            self._note(*(event for each in told for event in each.events))
        except BaseException as failed:  # noqa: BLE001 - raised by each of those whose events they are
            failure = failed
        for each in told:
            each.over, each.failure = True, failure


class Turns:
    """Who may write which files now: one at a time."""

    def __init__(self) -> None:
        self._lines: dict[str, deque[object]] = {}
        self._moved = threading.Condition()

    @contextmanager
    def alone(self, files: Files, poll: Poll) -> Iterator[None]:
        """Have files for oneself, in the order of asking: what changes in them meanwhile is one's own doing."""
        mine, line = object(), self._lines.setdefault(files.folder, deque())
        with self._moved:
            line.append(mine)
        try:
            with self._moved:
                while line[0] is not mine:
                    self._moved.wait(TICK_SECONDS)
                    poll()
            yield
        finally:
            with self._moved:
                line.remove(mine)
                self._moved.notify_all()
