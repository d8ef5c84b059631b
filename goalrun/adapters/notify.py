"""How people are told that a goal has ended, or waits for them: on the desktop, and through a webhook."""

import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from goalrun.adapters import post
from goalrun.core.evidence import one_line
from goalrun.core.model import GoalState, State
from goalrun.core.spec import NotifySpec

ASKED_FOR = frozenset({State.PAUSED, State.STOPPED})
"""Ends that somebody asked for: they know."""
_APPLE = (
    "-e", "on run argv",
    "-e", "display notification (item 2 of argv) with title (item 1 of argv)",
    "-e", "end run",
)  # fmt: skip


class Call(NamedTuple):
    """A program to run, with the event on its standard input.

    Attributes:
        name: of its files in the goal's ``hooks`` folder.
        env: variables beside the user's own.
    """

    name: str
    argv: tuple[str, ...]
    env: Mapping[str, str] = {}


def calls(notify: NotifySpec, state: GoalState, path: str | None) -> list[Call]:
    """What to run now that a goal has ended or waits; the address goes where other users cannot read it."""
    found = []
    if notify.webhook is not None:
        program = (sys.executable, "-P", str(Path(post.__file__)))
        found.append(Call("webhook", program, {post.VARIABLE: notify.webhook}))
    if notify.desktop and state.status not in ASKED_FOR and (argv := on_desktop(*message(state), path)):
        found.append(Call("desktop", argv))
    return found


def message(state: GoalState) -> tuple[str, str]:
    """A title and a line: how the goal ended, and what it was about."""
    detail = one_line(state.detail, 120)
    return f"goalrun: {state.status.value}", one_line(f"{one_line(state.spec.objective, 80)} ({detail})")


def on_desktop(title: str, text: str, path: str | None) -> tuple[str, ...]:
    """The command that shows a notification here; empty where there is none."""
    if program := shutil.which("notify-send", path=path):
        return (program, "--app-name=goalrun", "--", title, text)
    if program := shutil.which("osascript", path=path):
        return (program, *_APPLE, title, text)
    return ()


def on_terminal(state: GoalState) -> str:
    """What makes a terminal ask for attention: a bell, and a notification where it knows OSC 9 (iTerm2, kitty, …)."""
    return f"\x1b]9;{one_line(': '.join(message(state)), 200)}\x1b\\\a"
