"""Which line of a file says what: TOML and JSON are read without that."""

import re
from bisect import bisect_right

from goalrun.core.flow.plan import Where

Lines = dict[Where, int]
"""The line of each place that is known; lines count from 1."""
_PIECES = re.compile(
    r"""\"\"\"(?:\\.|[^\\])*?\"{3,5}|'''.*?'{3,5}|"(?:\\.|[^"\\\n])*"|'[^'\n]*'|\#[^\n]*"""
    r"""|^[ \t]*(?P<head>\[\[?[^\[\]\n]+\]\]?)|^[ \t]*(?P<key>[\w-]+)[ \t]*=""",
    re.DOTALL | re.MULTILINE,
)


def toml_lines(text: str) -> Lines:
    """The line of each table and each key in a TOML text; keys of inline tables have that of their table."""
    starts = [0, *(match.end() for match in re.finditer("\n", text))]
    found: Lines = {}
    counts: dict[Where, int] = {}
    table: Where = ()
    for match in _PIECES.finditer(text):
        line = bisect_right(starts, match.start(match.lastgroup) if match.lastgroup else 0)
        if match["head"]:
            table = _table(match["head"], counts)
            found.setdefault(table, line)
        elif match["key"]:
            found.setdefault((*table, _singular(match["key"])), line)
    return found


def _table(head: str, counts: dict[Where, int]) -> Where:
    """Where a header leads; each ``[[…]]`` is one more of its list."""
    path: Where = ()
    names = [_singular(name.strip().strip("\"'")) for name in head.strip("[]").split(".")]
    for number, name in enumerate(names):
        path = (*path, name)
        if head.startswith("[[") and number == len(names) - 1:
            counts[path] = counts.get(path, -1) + 1
        if path in counts:
            path = (*path, counts[path])
    return path


def _singular(key: str) -> str:
    return "step" if key == "steps" else key


def json_lines(text: str, ids: list[str]) -> Lines:
    """The line of each step in a JSON text, by its id."""
    found: Lines = {}
    for number, name in enumerate(ids):
        match = re.search(rf'"id"\s*:\s*"{re.escape(name)}"', text)
        if match is not None:
            found[("step", number)] = text.count("\n", 0, match.start()) + 1
    return found


def line_at(lines: Lines, where: Where) -> int:
    """The line of a place, or of what it is in; 1 for the file as a whole."""
    return next((lines[where[:size]] for size in range(len(where), 0, -1) if where[:size] in lines), 1)
