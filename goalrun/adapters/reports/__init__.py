"""Structured reports of test programs: which tests a check ran, beside its exit status.

A program is found in the user's own command. Its report goes to a file outside the tree; the tree is not changed.
"""

import secrets
import shlex
from pathlib import Path
from typing import NamedTuple

from goalrun.adapters.reports.cargo import Cargo
from goalrun.adapters.reports.found import Found, Runner, front_of, plain_words
from goalrun.adapters.reports.golang import Go
from goalrun.adapters.reports.javascript import Jest, Mocha, NodeTest, NpmTest, Vitest
from goalrun.adapters.reports.pytest import Pytest
from goalrun.adapters.reports.unittest import Unittest

RUNNERS: tuple[Runner, ...] = (Pytest(), Unittest(), Cargo(), Go(), NodeTest(), Jest(), Vitest(), Mocha(), NpmTest())


class Report(NamedTuple):
    """A command that also writes a report, and where to; ``runner`` is None where exit status alone speaks."""

    command: str
    path: Path
    runner: Runner | None

    def read(self, output: Path) -> Found | None:
        """The report; None if none was asked for, none is there, or it cannot be read."""
        if self.runner is None:
            return None
        try:
            return self.runner.read(self.path, output)
        except (ValueError, LookupError, TypeError, OSError, RecursionError):
            return None


def prepare(command: str, start: Path, folder: Path, seen: Path) -> Report:
    """Add a report to a command that plainly runs a known test program; leave every other as it is.

    Args:
        command: the user's own.
        start: the folder that the command starts in, as goalrun sees it.
        folder: where reports go.
        seen: the same folder, as the command sees it.
    """
    token = secrets.token_hex(8)
    report = folder / token
    words = plain_words(command)
    assignments = front_of(words)
    for runner in RUNNERS if words[assignments:] else ():
        changed = runner.prepare(words[assignments:], start, seen / token)
        if changed is not None:
            # A quoted name would be a program's, not a variable's.
            variables = [
                f"{name}={shlex.quote(value)}" for name, _, value in (w.partition("=") for w in words[:assignments])
            ]
            return Report(" ".join([*variables, shlex.join(changed)]), report, runner)
    return Report(command, report, None)


__all__ = ["Found", "Report", "Runner", "prepare"]
