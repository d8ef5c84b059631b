"""A terminal, taken over for a while: whole lines at fixed places, only those that changed, and keys one by one.

Rich's Live moves the cursor up over what it drew before, which goes wrong as soon as the terminal is resized or counts
the width of a character otherwise. On the alternate screen (xterm, mode 1049) each line has its own place, nothing
wraps (mode 7), and a frame appears at once where the terminal knows synchronized output (mode 2026).
"""

import codecs
import os
import re
import select
import sys
import termios
from collections.abc import Iterator, Sequence
from contextlib import suppress
from io import StringIO
from typing import IO, Any, Self

from rich.console import Console
from rich.text import Text

from goalrun.cli.strokes import PLAIN

ENTER = "\x1b[?1049h\x1b[?25l\x1b[?7l\x1b[2J"
LEAVE = "\x1b[?7h\x1b[?25h\x1b[?1049l"
BEGIN, END = "\x1b[?2026h", "\x1b[?2026l"
LEAST_COLUMNS, LEAST_ROWS = 20, 6
_SEQUENCE = re.compile(r"\x1b(?:\[[0-9;]*[A-Za-z~]|O[A-Z])")
_NAMES = {
    "\x1b[A": "up", "\x1b[B": "down", "\x1bOA": "up", "\x1bOB": "down", "\x1b": "escape",
    "\r": "enter", "\n": "enter", "\x7f": "erase", "\b": "erase",
}  # fmt: skip


def can_take_over(stream: IO[str]) -> bool:
    """Whether a stream is a terminal that can be drawn on, and this process is the one in its foreground."""
    if not stream.isatty() or os.environ.get("TERM", "dumb") == "dumb":
        return False
    with suppress(OSError):
        columns, rows = os.get_terminal_size(stream.fileno())
        # Before anything: a process in the background is stopped when it touches the terminal.
        return in_front(stream.fileno()) and columns >= LEAST_COLUMNS and rows >= LEAST_ROWS
    return False


def in_front(terminal: int) -> bool:
    """Whether this process is in the foreground of a terminal."""
    with suppress(OSError):
        return os.tcgetpgrp(terminal) == os.getpgrp()
    return False


class Screen:
    """The terminal behind standard error, for as long as it is entered; keys come from standard input."""

    def __init__(self) -> None:
        self._out = sys.stderr.fileno()
        self._encoding = sys.stderr.encoding or "utf-8"
        self._in: int | None = sys.stdin.fileno() if sys.stdin.isatty() else None
        self._before: list[Any] | None = None
        self._shown: list[str] = []
        self._size = (0, 0)
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._console = Console(file=StringIO(), force_terminal=True, legacy_windows=False, width=10_000)

    def __enter__(self) -> Self:
        if self._in is not None:
            self._before = termios.tcgetattr(self._in)
            now = termios.tcgetattr(self._in)
            # Keys at once and unseen; Ctrl-C stays a signal. Ctrl-Z would leave the shell on a screen not its own.
            now[3] &= ~(termios.ICANON | termios.ECHO)
            now[6][termios.VSUSP] = b"\0"
            now[6][termios.VMIN], now[6][termios.VTIME] = 1, 0
            termios.tcsetattr(self._in, termios.TCSADRAIN, now)
        self._write(ENTER)
        return self

    def __exit__(self, *_: object) -> None:
        # A terminal that is gone, or somebody else's now, is not ours to put in order.
        with suppress(OSError, termios.error):
            if in_front(self._out):
                self._write(LEAVE)
                if self._in is not None and self._before is not None:
                    termios.tcsetattr(self._in, termios.TCSADRAIN, self._before)

    def size(self) -> tuple[int, int]:
        """Columns and rows, as they are now."""
        size = os.get_terminal_size(self._out)
        return size.columns, size.lines

    def paint(self, lines: Sequence[Text]) -> None:
        """Show these lines, from the top; the rest of the screen is empty."""
        if not in_front(self._out):
            return
        size = self.size()
        drawn = [self._drawn(line) for line in lines[: size[1]]]
        drawn += [""] * (size[1] - len(drawn))
        anew = size != self._size
        # Erased first: behind a line of full width the cursor still stands on its last cell.
        changed = [
            f"\x1b[{row};1H\x1b[K{text}\x1b[0m"
            for row, text in enumerate(drawn, start=1)
            if anew or row > len(self._shown) or self._shown[row - 1] != text
        ]
        if changed:
            self._write(BEGIN + ("\x1b[2J" if anew else "") + "".join(changed) + END)
        self._shown, self._size = drawn, size

    def _drawn(self, line: Text) -> str:
        with self._console.capture() as captured:
            self._console.print(line, end="", no_wrap=True, overflow="ignore", crop=False)
        return captured.get()

    def keys(self, seconds: float) -> Iterator[str]:
        """Keys that were pressed, waiting so long for the first: characters, or up, down, enter, erase, escape."""
        if self._in is None:
            select.select([], [], [], seconds)
            return
        ready, _, _ = select.select([self._in], [], [], seconds)
        if not ready or not in_front(self._in):
            return
        data = os.read(self._in, 1024)
        if not data:
            self._in = None
        yield from named(self._decoder.decode(data))

    def _write(self, text: str) -> None:
        if not codecs.lookup(self._encoding).name.startswith("utf"):
            text = text.translate(PLAIN)
        data = text.encode(self._encoding, "replace")
        while data:
            data = data[os.write(self._out, data) :]


def named(text: str) -> Iterator[str]:
    """What a terminal sent, key by key; sequences that mean nothing here are left out."""
    while text:
        found = _SEQUENCE.match(text)
        key = found[0] if found else text[0]
        text = text[len(key) :]
        if key in _NAMES:
            yield _NAMES[key]
        elif key.isprintable():
            yield key
