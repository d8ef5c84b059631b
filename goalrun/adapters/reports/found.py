"""What a report says, whatever program wrote it, what goalrun asks of a test program, and words of commands."""

import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple, Protocol, TypeVar

from goalrun.core.evidence import one_line
from goalrun.core.model import TestCounts

MAX_REPORT_BYTES = 64 << 20
MAX_FAILING = 200
_COMPOUND = re.compile(r"[;&|<>$`(){}\n\\#*?\[\]~!]")
_ASSIGNMENT = re.compile(r"\w+=.*", re.DOTALL)
T = TypeVar("T")
Outcome = Literal["passed", "failed", "skipped"]
_WORST: tuple[Outcome, ...] = ("passed", "skipped", "failed")


class Found(NamedTuple):
    """Every test of a report by its id, which is stable from run to run."""

    outcomes: Mapping[str, Outcome]

    @property
    def counts(self) -> TestCounts:
        """How many of each."""
        values = list(self.outcomes.values())
        return TestCounts(passed=values.count("passed"), failed=values.count("failed"), skipped=values.count("skipped"))

    @property
    def failing(self) -> tuple[str, ...]:
        """Ids of failing tests, bounded."""
        return tuple(test for test, outcome in self.outcomes.items() if outcome == "failed")[:MAX_FAILING]


def collect(tests: Iterable[tuple[str, Outcome]]) -> Found:
    """A report from its entries; of several with one id the worst counts."""
    outcomes: dict[str, Outcome] = {}
    for name, outcome in tests:
        test = one_line(name)
        before = outcomes.get(test, "passed")
        outcomes[test] = max(before, outcome, key=_WORST.index)
    return Found(outcomes)


class Runner(Protocol):
    """A test program that can be asked for a report."""

    name: str

    def prepare(self, words: Sequence[str], start: Path, report: Path) -> list[str] | None:
        """The words of a command with a report added; None when the command does not plainly run this program.

        Args:
            words: the user's command, split as a shell splits it; it has no shell syntax and no variables in front.
            start: the folder that the command starts in, to look into (never to change).
            report: where the report has to go, as the command sees it. It does not exist yet.
        """
        ...

    def read(self, report: Path, output: Path) -> Found | None:
        """What the report says; None when there is none that can be read, or it is not complete.

        Args:
            report: the file that ``prepare`` asked for, as goalrun sees it.
            output: standard output and error of the command, for programs that report there.

        Raises:
            ValueError: what is there is not a report of this program.
        """
        ...

    def plant(self, start: Path, found: Found, token: str) -> str | None:
        """Make one test fail that the command will run: the canary, in a copy of the tree that is thrown away.

        Args:
            start: the folder that the command starts in.
            found: a report of the same command on the same tree, to tell where its tests are.
            token: short random letters and digits, to make a plausible name from.

        Returns:
            The id that the failing test will have in a report; None where none can be planted.
        """
        ...


def read_whole(path: Path) -> bytes | None:
    """A report's bytes, if it is a plain file of a sensible size."""
    if path.is_symlink() or not path.is_file() or path.stat().st_size > MAX_REPORT_BYTES:
        return None
    return path.read_bytes()


def plain_words(command: str) -> list[str]:
    """The words of a single simple command; none where it has shell syntax that words cannot carry."""
    quoteless = re.sub(r"'[^']*'|\"[^\"$`\\]*\"", "", command)
    if _COMPOUND.search(quoteless):
        return []
    try:
        return shlex.split(command)
    except ValueError:
        return []


def front_of(words: Sequence[str], *launchers: str) -> int:
    """How many words in front of a command only set variables, or are ``launchers`` of what does."""
    command = (n for n, word in enumerate(words) if word not in launchers and not _ASSIGNMENT.fullmatch(word))
    return next(command, len(words))


def turned(tests: Sequence[T], token: str) -> list[T]:
    """All of them, beginning with one that a token chooses."""
    first = int(token, 36) % len(tests) if tests else 0
    return [*tests[first:], *tests[:first]]


def unequal(token: str) -> dict[str, int]:
    """Two numbers that a canary compares: ``left`` and ``right``."""
    number = int(token, 36) % 97
    return {"left": number, "right": number + 1}
