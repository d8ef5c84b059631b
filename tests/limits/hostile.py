"""Commands that do what no command should, each bounded in itself: ``python hostile.py WHAT MARKER``.

The marker is on the command line of every process that they start, so that whoever is left can be found.
"""

import ctypes
import os
import platform
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

MANY = 1_000
FOR_EVER = 600
"""Seconds; a bound for the worst case, in which nobody ends these processes."""
FORKS = 20_000
FAMILIES = 40
SYS_EXIT = 60 if platform.machine() == "x86_64" else 93
"""syscall(2); 93 is the number on arm64 and riscv64."""


def storm() -> None:
    """A thousand children, each asleep, and a parent that waits for them."""
    for _ in range(MANY):
        if os.fork() == 0:
            time.sleep(FOR_EVER)
            os._exit(0)
    say(f"{MANY} children")
    time.sleep(FOR_EVER)


def orphans() -> None:
    """A thousand processes of nobody, each in a session of its own with nothing open; then a good end."""
    all_closed, closes = os.pipe()
    family = os.fork()
    if family == 0:
        for _ in range(MANY):
            if os.fork() == 0:
                os.setsid()
                # The pipe is the last to go: its end tells that this one is on its own.
                os.closerange(0, 3)
                os.closerange(3, closes + 1)
                time.sleep(FOR_EVER)
        os._exit(0)
    os.waitpid(family, 0)
    os.close(closes)
    os.read(all_closed, 1)
    say(f"{MANY} orphans")


def deaf() -> None:
    """Ends for no signal that can be ignored, nor do its children."""
    ignore_signals()
    for _ in range(3):
        if os.fork() == 0:
            break
    else:
        say("deaf")
    while True:
        time.sleep(FOR_EVER)


def held() -> None:
    """Hangs, while an orphan that ignores signals holds its output."""
    family = os.fork()
    if family == 0:
        if os.fork() == 0:
            os.setsid()
            ignore_signals()
            time.sleep(FOR_EVER)
        os._exit(0)
    os.waitpid(family, 0)
    say("held")
    time.sleep(FOR_EVER)


def let_go() -> None:
    """Ends well, while an orphan that ignores signals holds its output."""
    if os.fork() == 0:
        os.setsid()
        ignore_signals()
        time.sleep(FOR_EVER)
    say("let go")


def breeding() -> None:
    """Told to end, it starts families in which each process forks the next one, in a new session, and ends.

    All together they fork so many times and no more; the last ones stay.
    """
    ignore_signals()
    signal.signal(signal.SIGTERM, lambda *_: None)
    say("breeding")
    signal.pause()
    ignore_signals()
    for family in range(FAMILIES):
        if os.fork() == 0:
            breed(range(family, FORKS, FAMILIES))
    time.sleep(FOR_EVER)


def breed(generations: range) -> None:
    """One family; never returns."""
    for _ in generations:
        if os.fork():
            os._exit(0)
        os.setsid()
    time.sleep(FOR_EVER)
    os._exit(0)


def headless() -> None:
    """A process whose first thread has ended, so that the system shows it as a zombie, and its child; a good end."""
    pid = os.fork()
    if pid == 0:
        os.setsid()
        first_ended = threading.Event()
        threading.Thread(target=go_on_without_head, args=(first_ended,), daemon=True).start()
        first_ended.set()
        # exit(2) ends the calling thread alone; Python's own ways out end the process.
        ctypes.CDLL(None).syscall(SYS_EXIT, 0)
    while b") Z " not in stat(pid):
        time.sleep(0.01)
    say("headless")


def go_on_without_head(first_ended: threading.Event) -> None:
    """A child first, then sleep."""
    first_ended.wait()
    os.fork()
    time.sleep(FOR_EVER)


def stat(pid: int) -> bytes:
    """What /proc says of a process."""
    return Path(f"/proc/{pid}/stat").read_bytes()


def ignore_signals() -> None:
    """All that can be."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)


def say(text: str) -> None:
    """At once."""
    os.write(1, text.encode() + b"\n")


if __name__ == "__main__":
    DEEDS: dict[str, Callable[[], None]] = {
        deed.__name__: deed for deed in (storm, orphans, deaf, held, let_go, breeding, headless)
    }
    DEEDS[sys.argv[1]]()
