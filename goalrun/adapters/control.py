"""What other shells ask of a goal: small files in the goal's folder, which its runner looks for.

There is nothing to connect to and nobody to signal, so a request can neither hit a stranger nor get lost.
"""

import secrets
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from time import time_ns
from types import FrameType
from typing import Literal

from goalrun.adapters.files import private_folder, write_whole
from goalrun.errors import Interrupted, UnknownGoal

Verb = Literal["pause", "stop", "step"]
Cut = Literal["pause", "leave"]
"""What a signal means: pause the goal, or end this process and leave the goal to ``resume --all``."""
MAX_HINT_BYTES = 64 << 10


class FileControl:
    """The runner's side, and that of whoever asks."""

    def __init__(self, folder: Path) -> None:
        if not folder.exists():
            raise UnknownGoal(f"goal {folder.name} was removed", hint="goalrun list shows all")
        self._folder = private_folder(folder / "control")
        self._signalled = ""
        self._meaning: Cut = "pause"

    def ask(self, verb: Verb) -> None:
        """Ask the runner to pause, to stop, or to pause after its turn."""
        write_whole(self._folder / verb, "")

    def asked(self, verb: Verb) -> bool:
        """Whether such a request lies there, not taken yet."""
        return (self._folder / verb).exists()

    def hint(self, text: str) -> None:
        """Leave a hint for the next turn."""
        # Named by time, so that hints are read in the order in which they were given, also when the clock was set back.
        given = [path.name.split("-")[1] for path in self._folder.glob("hint-*")]
        number = max(time_ns(), *(int(text) + 1 for text in given if text.isdecimal()), 0)
        write_whole(self._folder / f"hint-{number:020d}-{secrets.token_hex(4)}", text)

    def clear(self) -> None:
        """Drop requests that were meant for an earlier run; hints stay."""
        for verb in ("pause", "stop", "step"):
            (self._folder / verb).unlink(missing_ok=True)

    def check(self) -> None:
        """Raise ``Interrupted`` if the goal is to pause or stop now; stop wins."""
        if (self._folder / "stop").exists():
            raise Interrupted("stop", "goalrun stop")
        if (self._folder / "pause").exists():
            raise Interrupted("pause", "goalrun pause")
        if self._signalled:
            raise Interrupted(self._meaning, f"interrupted by {self._signalled}")

    def hints(self) -> tuple[str, ...]:
        """The hints that lie there, oldest first; ``forget_hints`` takes them away."""
        found = []
        for path in sorted(self._folder.glob("hint-*")):
            with path.open("rb") as file:
                found.append(file.read(MAX_HINT_BYTES).decode("utf-8", "replace"))
        return tuple(found)

    def forget_hints(self, count: int) -> None:
        """Take the oldest hints away, once they are recorded."""
        for path in sorted(self._folder.glob("hint-*"))[:count]:
            path.unlink(missing_ok=True)

    def pause_after_turn(self) -> bool:
        """Whether the goal is to pause before its next turn."""
        asked = self.asked("step")
        (self._folder / "step").unlink(missing_ok=True)
        return asked

    @contextmanager
    def signals(self, meaning: Cut = "pause") -> Iterator[None]:
        """Let SIGINT, SIGTERM and SIGHUP end the run; a second one ends the process at once.

        In a thread of a program that embeds goalrun, signals are that program's own.
        """
        self._meaning = meaning
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def note(number: int, _: FrameType | None) -> None:
            if self._signalled:
                raise KeyboardInterrupt
            self._signalled = signal.Signals(number).name

        numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        before = {number: signal.signal(number, note) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                with suppress(ValueError, TypeError):
                    signal.signal(number, handler)
