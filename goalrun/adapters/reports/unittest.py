"""unittest: it has no report of its own, so its runner is started with one that writes JSON (``unittest_run.py``)."""

import ast
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from goalrun.adapters.files import files_below
from goalrun.adapters.reports.found import Found, Outcome, collect, read_whole, turned, unequal
from goalrun.adapters.reports.pytest import runs_module

METHOD = "\n\n{group}.{test} = lambda self: self.assertEqual({left}, {right})\n"
CLASS = """

class {group}(__import__("unittest").TestCase):
    def {test}(self):
        self.assertEqual({left}, {right})
"""
_METHOD = re.compile(r"\.test\w*$")
_TRIED = 200
_OUTCOMES: dict[str, Outcome] = {"passed": "passed", "failed": "failed", "skipped": "skipped"}
_NOT_OURS = {"node_modules", "site-packages", "__pycache__"}


class _Home(NamedTuple):
    """Where a test lives; ``group`` is its class if that is plainly there, else empty."""

    path: Path
    module: str
    group: str


class Unittest:
    """``python -m unittest …``."""

    name = "unittest"

    def prepare(self, words: Sequence[str], start: Path, report: Path) -> list[str] | None:
        """See ``found.Runner``."""
        del start
        if not runs_module(words, "unittest") or Path(words[0]).name.startswith(("python2", "pypy2")):
            return None
        if {"-h", "--help"} & set(words):
            return None
        options = words.index("-m")
        return [*words[:options], "-c", _script(), str(report), *words[options + 2 :]]

    def read(self, report: Path, output: Path) -> Found | None:
        """See ``found.Runner``."""
        del output
        content = read_whole(report)
        if content is None:
            return None
        document = json.loads(content)
        if not isinstance(document, dict) or set(document) != {"complete", "tests"}:
            raise ValueError("no report of unittest: it has other members")
        tests = [_test(entry) for entry in document["tests"]]
        if len({name for name, _ in tests}) < len(tests):
            raise ValueError("no report of unittest: a test is in it twice")
        return collect(tests) if document["complete"] is True else None

    def plant(self, start: Path, found: Found, token: str) -> str | None:
        """A failing method for a class that ran, else a class of its own beside it; see ``found.Runner``.

        Named after a test that ran, so that a command which selects some tests by name selects this one too.
        """
        tests = sorted(test for test, outcome in found.outcomes.items() if outcome == "passed" and _METHOD.search(test))
        # With a base on which nothing passes, those that fail have to do.
        tests = tests or sorted(test for test in found.outcomes if _METHOD.search(test))
        beside: tuple[str, _Home] | None = None
        for test in turned(tests, token)[:_TRIED]:
            home = _home(test, start)
            if home is not None and home.group:
                return _append(METHOD, home, home.group, f"{test.rpartition('.')[2]}_{token}", token)
            beside = beside or (home and (test, home))
        if beside is None:
            return None
        test, home = beside
        return _append(CLASS, home, f"Test{token.capitalize()}", f"{test.rpartition('.')[2]}_{token}", token)


def _append(template: str, home: _Home, group: str, test: str, token: str) -> str:
    with home.path.open("a", encoding="utf-8") as file:
        file.write(template.format(group=group, test=test, **unequal(token)))
    return f"{home.module}.{group}.{test}"


def _script() -> str:
    """The runner as one line, which leaves no name behind in ``__main__``."""
    source = Path(__file__).with_name("unittest_run.py").read_text(encoding="utf-8")
    return f"exec({source!r}, {{'__name__': '__main__'}})"


def _test(entry: object) -> tuple[str, Outcome]:
    match entry:
        case [str() as name, str() as outcome] if name and outcome in _OUTCOMES:
            return name, _OUTCOMES[outcome]
    raise ValueError("no report of unittest: a test is not a name and an outcome")


def _home(test: str, start: Path) -> _Home | None:
    """The one file below ``start`` that an id like ``tests.test_a.SomeTest.test_b`` can come from."""
    parts = test.split(".")
    if not all(part.isidentifier() for part in parts):
        return None
    modules = [Path(os.fsdecode(path)) for path in files_below(os.fsencode(start)) if path.endswith(b".py")]
    for size in range(len(parts) - 2, 0, -1):
        # The folder that module names start from depends on the command: ``discover -s tests`` makes it tests.
        files = [path for path in modules if path.stem == parts[size - 1] and _is_module(path, parts[:size], start)]
        if files:
            group = parts[size] if size == len(parts) - 2 else ""
            holding = [path for path in files if group and group in _classes(path)]
            group, files = (group, holding) if holding else ("", files)
            return _Home(files[0], ".".join(parts[:size]), group) if len(files) == 1 else None
    return None


def _is_module(path: Path, parts: Sequence[str], start: Path) -> bool:
    where = path.relative_to(start).with_suffix("").parts
    if where[-len(parts) :] != tuple(parts) or any(part in _NOT_OURS or part.startswith(".") for part in where):
        return False
    return path.is_file() and not path.is_symlink() and path.resolve().is_relative_to(start.resolve())


def _classes(path: Path) -> set[str]:
    """The classes at the top of a module, which are there at its end too."""
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError, OSError):
        return set()
    return {node.name for node in tree.body if isinstance(node, ast.ClassDef)}
