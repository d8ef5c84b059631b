"""go test: the stream of events that ``-json`` makes of its output."""

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from goalrun.adapters.reports.cargo import CUT
from goalrun.adapters.reports.found import Found, Outcome, collect, read_whole, turned, unequal

CANARY = '\n\nfunc {name}(t *{testing}T) {{\n\tt.Fatal("{left} != {right}")\n}}\n'
_ENDS: dict[str, Outcome] = {"pass": "passed", "bench": "passed", "fail": "failed", "skip": "skipped"}
_ACTIONS = {*_ENDS, "start", "run", "pause", "cont", "output", "attr", "artifacts"}
# Of these some run no tests, and -C has to be the first word, so that no -json can go before it.
_LEFT_ALONE = {"c", "n", "list", "fuzz", "h", "help", "exec", "o", "C"}
_NEED_NOT_END = "Benchmark"
# go writes events of a package that cannot be built from 1.24 on, and before that only this line.
_NOT_BUILT = re.compile(r"FAIL\t(\S+) \[(?:build|setup) failed\]\r?")
_TEST = re.compile(r"^func (Test\w*)\(\s*\w+\s+\*((?:\w+\.)?)T\s*\)", re.MULTILINE)
_MODULE = re.compile(r"^module\s+\"?([^\s\"]+)", re.MULTILINE)


class Go:
    """``go test …``."""

    name = "go"

    def prepare(self, words: Sequence[str], start: Path, report: Path) -> list[str] | None:
        """See ``found.Runner``."""
        del start, report
        if Path(words[0]).name != "go" or words[1:2] != ["test"]:
            return None
        end = next((at for at, word in enumerate(words) if word in {"-args", "--args"}), len(words))
        options = {re.sub(r"^--?(test\.)?", "", word) for word in words[2:end] if word.startswith("-")}
        if {option.partition("=")[0] for option in options} & _LEFT_ALONE:
            return None
        if any(option.startswith("json=") for option in options):
            return None
        return list(words) if "json" in options else [*words[:2], "-json", *words[2:]]

    def read(self, report: Path, output: Path) -> Found | None:
        """See ``found.Runner``."""
        del report
        content = read_whole(output)
        if content is None:
            return None
        stream = _Stream()
        for line in content.decode("utf-8", "replace").split("\n"):
            # What does not look like an event comes from go itself: a download, an error of the compiler.
            if line.startswith("{"):
                stream.take(json.loads(line))
            elif not_built := _NOT_BUILT.fullmatch(line):
                stream.take({"Action": "fail", "Package": not_built[1]})
            elif CUT.fullmatch(line):
                return None
        return collect(stream.tests()) if stream.complete else None

    def plant(self, start: Path, found: Found, token: str) -> str | None:
        """A failing function in a file that has a test that ran, or would if it could be built; see ``found.Runner``.

        Named after that test, so that a command which selects some tests by name selects this one too. Best is a test
        that passed: none after it is lost to a panic.
        """
        tests = sorted(test for test in found.outcomes if "/" not in _name(test))
        passed = [test for test in tests if found.outcomes[test] == "passed"]
        others = [test for test in tests if found.outcomes[test] != "passed"]
        modules = _modules(start)
        for test in [*turned(passed, token), *others]:
            package = test.partition("::")[0]
            for path, name, testing in _defining(package, _name(test), start, modules):
                canary = f"{name}_{token}"
                with path.open("a", encoding="utf-8") as file:
                    file.write(CANARY.format(name=canary, testing=testing, **unequal(token)))
                return f"{package}::{canary}"
        return None


class _Stream:
    """Takes the events one by one; a test that began has to end, and so has a package. Of benchmarks go tells less."""

    def __init__(self) -> None:
        self._ended: list[tuple[str, str, Outcome]] = []
        self._running: set[tuple[str, str]] = set()
        self._packages: dict[str, Outcome | None] = {}

    def take(self, event: object) -> None:
        """Take the next event.

        Raises:
            ValueError: go does not write such an event, or not here.
        """
        match event:
            case {"Action": "build-output" | "build-fail"}:
                return
            case {"Action": str() as action, "Package": str() as package, **rest} if action in _ACTIONS and package:
                test = rest.get("Test", "")
            case _:
                raise ValueError("no event of go test")
        if not isinstance(test, str):
            raise TypeError("no event of go test: its test has no name")
        if self._packages.setdefault(package, None) is not None:
            raise ValueError(f"more events of a package that has ended: {package[:200]!r}")
        if not test:
            self._packages[package] = _ENDS.get(action)
        else:
            self._take_test(package, test, action)

    def _take_test(self, package: str, test: str, action: str) -> None:
        if action == "run" and (package, test) in self._running:
            raise ValueError(f"a test begins twice: {test[:200]!r}")
        if action == "run" and not test.startswith(_NEED_NOT_END):
            self._running.add((package, test))
        elif action in _ENDS:
            if (package, test) not in self._running and not test.startswith(_NEED_NOT_END):
                raise ValueError(f"a test ends that did not begin: {test[:200]!r}")
            self._running.discard((package, test))
            self._ended.append((package, test, _ENDS[action]))

    @property
    def complete(self) -> bool:
        """Whether all that began has ended, and packages ended as their tests did.

        In a package that failed, tests may be left open: one that panics takes the others with it.
        """
        failed = {package for package, outcome in self._packages.items() if outcome == "failed"}
        contradicted = {package for package, _, outcome in self._ended if outcome == "failed"} - failed
        left_open = {package for package, _ in self._running} - failed
        return bool(self._packages) and None not in self._packages.values() and not contradicted and not left_open

    def tests(self) -> Iterator[tuple[str, Outcome]]:
        """Ids and outcomes; a package that failed before any test began stands for itself.

        One that failed after its tests passed does not: mended, it has no id more that could take this one's place.
        """
        for package, test, outcome in self._ended:
            yield f"{package}::{test}", outcome
        for package, test in sorted(self._running):
            yield f"{package}::{test}", "failed"
        began = {package for package, *_ in self._ended} | {package for package, _ in self._running}
        for package, result in self._packages.items():
            if result == "failed" and package not in began:
                yield package, "failed"


def _name(test: str) -> str:
    """The name of a test in its package; "" where the package stands for itself."""
    return test.partition("::")[2]


def _modules(start: Path) -> dict[str, Path]:
    """Modules by path: the one that ``start`` is in, and those of a workspace below it."""
    around = next((folder / "go.mod" for folder in (start, *start.parents) if (folder / "go.mod").is_file()), None)
    files = [*start.glob("*/go.mod"), *start.glob("*/*/go.mod"), *([around] if around else [])]
    found = {}
    for file in files:
        module = _MODULE.search(file.read_text(encoding="utf-8", errors="replace"))
        if module:
            found[module[1]] = file.parent
    return found


def _defining(package: str, name: str, start: Path, modules: dict[str, Path]) -> Iterator[tuple[Path, str, str]]:
    """The files of a package that have a test ("": any), with its name and what it calls the ``testing`` package."""
    inside = [module for module in modules if f"{package}/".startswith(f"{module}/")]
    if not inside:
        return
    module = max(inside, key=len)
    folder = modules[module] / package.removeprefix(module).lstrip("/")
    for path in sorted(folder.glob("*_test.go")):
        if path.is_symlink() or not path.resolve().is_relative_to(start.resolve()):
            continue
        for match in _TEST.finditer(path.read_text(encoding="utf-8", errors="replace")):
            if name in {"", match[1]}:
                yield path, match[1], match[2]
