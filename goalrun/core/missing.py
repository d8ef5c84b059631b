"""What a failing check may be missing: a hint from what it printed, never a result."""

import re

from goalrun.core.evidence import one_line
from goalrun.core.model import VerificationReport
from goalrun.core.spec import GoalSpec

KINDS = (
    (
        # Python; bash. A module of the project itself is reported in the same words.
        r"No module named '?([\w.]+)|(?m:^\S*bash: line \d+: ([\w.+-]+): command not found)",
        'python -m venv .venv && .venv/bin/pip install -r requirements.txt" and -c ".venv/bin/python …',
    ),
    # Node, for require and for import; a name that begins with a dot or a slash is a file of the project.
    (r"Cannot find (?:module|package) '([^'./][^']*)'", "npm ci"),
    (
        # Cargo, without and with a network that cannot be reached.
        r"no matching package named `([^`]+)`|failed to (?:download|get) `([^`]+)`|download of (config\.json) failed",
        "cargo fetch",
    ),
    (r"no required module provides package (\S+?);|(?:lookup|dial tcp:?) (proxy\.golang\.org)", "go mod vendor"),
)
"""Messages for want of a dependency, and a command that would bring one, by language."""


def hint(spec: GoalSpec, base: VerificationReport) -> str:
    """What to try where a check of the base fails for want of a dependency; "" where nothing says so."""
    if spec.verification.prepare is not None or not spec.verification.worktree:
        return ""
    for check in base.checks:
        for pattern, command in KINDS if check.outcome == "fail" and not check.hidden else ():
            found = re.search(pattern, check.excerpt)
            if found is not None:
                name = one_line(next(filter(None, found.groups())), 80)
                return f'is {name} a dependency? checks get those of --deps PATH, or of --prepare "{command}"'
    return ""
