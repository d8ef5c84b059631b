"""Structured reports of test programs: what a check counted, beside its exit status.

A program is found in the user's own command. Its report goes to a file outside the tree; the tree is not changed.
"""

import re
import secrets
import shlex
from pathlib import Path
from typing import NamedTuple
from xml.parsers import expat

from goalrun.core.evidence import one_line
from goalrun.core.model import TestCounts

MAX_REPORT_BYTES = 64 << 20
MAX_FAILING = 200
_COMPOUND = re.compile(r"[;&|<>$`(){}\n\\#]")


class Found(NamedTuple):
    """What a report says; failing tests by id, bounded."""

    counts: TestCounts
    failing: tuple[str, ...]


class Report(NamedTuple):
    """A command that also writes a report, and where to."""

    command: str
    path: Path | None

    def read(self) -> Found | None:
        """The report; None if none was asked for, written, or could be read."""
        if self.path is None or not self.path.is_file() or self.path.stat().st_size > MAX_REPORT_BYTES:
            return None
        try:
            return read_junit(self.path.read_bytes())
        except (expat.ExpatError, ValueError):
            return None


def prepare(command: str, folder: Path, seen: Path) -> Report:
    """Add a report to a command that plainly runs pytest; leave every other as it is.

    Args:
        command: the user's own.
        folder: where reports go.
        seen: the same folder, as the command sees it.
    """
    if _COMPOUND.search(command) or not _runs_pytest(command):
        return Report(command, None)
    name = f"{secrets.token_hex(8)}.xml"
    return Report(f"{command} --junitxml={shlex.quote(str(seen / name))} -o junit_family=xunit2", folder / name)


def _runs_pytest(command: str) -> bool:
    try:
        words = shlex.split(command)
    except ValueError:
        return False
    while words and re.fullmatch(r"\w+=.*", words[0]):
        words.pop(0)
    if not words or "--" in words:
        return False
    program = Path(words[0]).name
    if re.fullmatch(r"python[\d.]*", program):
        return words[1:3] == ["-m", "pytest"]
    return program in {"pytest", "py.test"}


class _JUnit:
    """Counts the test cases of a JUnit XML file as it streams by."""

    def __init__(self) -> None:
        self.passed = self.failed = self.skipped = 0
        self.failing: list[str] = []
        self.case = ""
        self.outcome = ""

    def start(self, name: str, attributes: dict[str, str]) -> None:
        if name == "testcase":
            where = attributes.get("classname", "")
            self.case = one_line(f"{where}::{attributes.get('name', '')}" if where else attributes.get("name", ""))
            self.outcome = "passed"
        elif name in {"failure", "error"}:
            self.outcome = "failed"
        elif name == "skipped" and self.outcome == "passed":
            self.outcome = "skipped"

    def end(self, name: str) -> None:
        if name != "testcase":
            return
        self.passed += self.outcome == "passed"
        self.skipped += self.outcome == "skipped"
        self.failed += self.outcome == "failed"
        if self.outcome == "failed" and len(self.failing) < MAX_FAILING and self.case not in self.failing:
            self.failing.append(self.case)


def read_junit(content: bytes) -> Found:
    """Read a JUnit report.

    Raises:
        ValueError: it declares entities, which no test program does and an XML bomb needs.
        expat.ExpatError: it is no XML.
    """
    report = _JUnit()
    parser = expat.ParserCreate()
    parser.StartElementHandler = report.start
    parser.EndElementHandler = report.end
    parser.StartDoctypeDeclHandler = _refuse
    parser.EntityDeclHandler = _refuse
    parser.Parse(content, True)  # noqa: FBT003 - expat's own signature
    counts = TestCounts(passed=report.passed, failed=report.failed, skipped=report.skipped)
    return Found(counts, tuple(report.failing))


def _refuse(*_: object) -> None:
    raise ValueError("a report may not declare a document type")
