"""pytest: a JUnit file beside its own output (docs.pytest.org, "Creating JUnitXML format files")."""

import re
from collections.abc import Sequence
from pathlib import Path

from goalrun.adapters.reports.found import Found, read_whole, turned, unequal
from goalrun.adapters.reports.junit import read_junit

CANARY = "\n\ndef test_{name}() -> None:\n    assert {left} == {right}\n"
_VALUES = frozenset({
    "--concurrency", "--context", "--data-file", "--debug", "--include", "--omit", "--rcfile", "--save-signal",
    "--source", "--source-dirs", "--source-pkgs",
})  # fmt: skip
"""Options of ``coverage run`` whose value is a word of its own."""


class Pytest:
    """``pytest …``, ``py.test …``, ``python -m pytest …``, and ``coverage run … -m pytest …``."""

    name = "pytest"

    def prepare(self, words: Sequence[str], start: Path, report: Path) -> list[str] | None:
        """See ``found.Runner``."""
        del start
        runs = runs_module(words, "pytest") or Path(words[0]).name in {"pytest", "py.test"} or _measures(words)
        if "--" in words or not runs:
            return None
        return [*words, f"--junitxml={report}", "-o", "junit_family=xunit2"]

    def read(self, report: Path, output: Path) -> Found | None:
        """See ``found.Runner``."""
        del output
        content = read_whole(report)
        return read_junit(content) if content is not None else None

    def plant(self, start: Path, found: Found, token: str) -> str | None:
        """A failing function at the end of a test file that ran, chosen by the token; see ``found.Runner``."""
        modules = sorted({test.split("::")[0] for test in found.outcomes if "::" in test})
        for module in turned(modules, token):
            path = _file_of(module, start)
            if path is not None:
                with path.open("a", encoding="utf-8") as file:
                    file.write(CANARY.format(name=token, **unequal(token)))
                return f"{_module_of(path, module)}::test_{token}"
        return None


def _measures(words: Sequence[str]) -> bool:
    """Whether a command is ``coverage run``, perhaps with options, of pytest (coverage.readthedocs.io, "Execution")."""
    start = words.index("coverage") if runs_module(words, "coverage") else 0
    if Path(words[start]).name != "coverage" or list(words[start + 1 : start + 2]) != ["run"]:
        return False
    rest = list(words[start + 2 :])
    while rest and rest[0].startswith("-") and rest[0] not in {"-m", "--module"}:
        del rest[: 2 if rest[0] in _VALUES else 1]
    return rest[1:2] == ["pytest"]


def runs_module(words: Sequence[str], module: str) -> bool:
    """Whether a command is ``python -m MODULE``, perhaps with options of python's own in between."""
    if not re.fullmatch(r"(python|pypy)[\d.]*", Path(words[0]).name):
        return False
    rest = list(words[1:])
    while rest and rest[0] in {"-B", "-b", "-bb", "-E", "-I", "-P", "-q", "-s", "-u", "-v"}:
        rest.pop(0)
    return rest[:2] == ["-m", module]


def _file_of(module: str, start: Path) -> Path | None:
    """The file of a dotted name that may end in classes: ``tests.test_a.TestB`` is in ``tests/test_a.py``."""
    parts = module.split(".")
    for size in range(len(parts), 0, -1):
        path = start.joinpath(*parts[: size - 1], f"{parts[size - 1]}.py")
        if path.is_file() and not path.is_symlink():
            return path
    return None


def _module_of(path: Path, module: str) -> str:
    parts = module.split(".")
    return ".".join(parts[: parts.index(path.stem) + 1])
