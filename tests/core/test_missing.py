"""Hints where the base lacks a dependency."""

import pytest
from values import changed, goal

from goalrun.core.missing import hint
from goalrun.core.model import CheckResult, VerificationReport
from goalrun.core.spec import GoalSpec


def told(excerpt: str, spec: GoalSpec | None = None, **check: object) -> str:
    result = CheckResult.model_validate({"command": "x", "outcome": "fail", "excerpt": excerpt, **check})
    return hint(spec or goal(), VerificationReport(outcome="fail", checks=(result,), sandbox="process"))


# As printed by Python 3.11, bash 5.2, node 20, cargo 1.95; that of go is from its source.
@pytest.mark.parametrize(
    ("excerpt", "name", "command"),
    [
        ("ModuleNotFoundError: No module named 'requests.auth'", "requests.auth", "pip install"),
        ("/usr/bin/python: No module named pytest\n", "pytest", "pip install"),
        ("bash: line 1: pytest: command not found\n", "pytest", "pip install"),
        ("Error: Cannot find module 'left-pad'\nRequire stack:\n- /ws/app.js", "left-pad", "npm ci"),
        ("Cannot find package '@scope/left' imported from /ws/app.mjs", "@scope/left", "npm ci"),
        ("error: no matching package named `tiny` found\nlocation searched: crates.io index", "tiny", "cargo fetch"),
        ("error: failed to download `tiny v1.2.3`\n", "tiny v1.2.3", "cargo fetch"),
        ("error: failed to get `tiny` as a dependency of package `app v0.1.0 (/ws)`", "tiny", "cargo fetch"),
        ("app.go:3:8: no required module provides package example.org/x; to add it:", "example.org/x", "go mod vendor"),
    ],
)
def test_a_message_for_want_of_a_dependency_is_known(excerpt: str, name: str, command: str) -> None:
    found = told(f"before\n{excerpt}\nafter")
    assert found.startswith(f"is {name} a dependency? checks get those of --deps PATH, or of --prepare")
    assert command in found
    assert "\n" not in found


@pytest.mark.parametrize(
    "excerpt",
    [
        "AssertionError: 1 != 2",
        "Error: Cannot find module './mine'",
        "Error: Cannot find module '/ws/mine'",
        "I found no matching package",
        "",
    ],
)
def test_other_messages_are_none(excerpt: str) -> None:
    assert told(excerpt) == ""


def test_only_a_failing_check_that_may_be_shown_is_looked_at() -> None:
    message = "No module named 'x'"
    assert told(message)
    assert told(message, outcome="pass") == ""
    assert told(message, hidden=True) == ""
    assert told(message, changed(goal(), prepare="make deps")) == ""
    assert told(message, changed(goal(), worktree=False)) == ""


def test_a_name_cannot_break_the_line() -> None:
    assert "\x1b" not in told("Cannot find module 'a\x1b[31m\nb'")
