"""JavaScript and TypeScript: node's own test program, jest, vitest, mocha, and ``npm test`` where it runs one of them.

Reports: jestjs.io "CLI options" (``--json``), vitest.dev and mochajs.org "Reporters",
nodejs.org "Test runner" ("Custom reporters").
"""

import json
import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from goalrun.adapters.reports.found import Found, front_of, plain_words, read_whole, turned, unequal
from goalrun.adapters.reports.javascript_report import (
    MOCHA_REPORTER,
    NODE_REPORTER,
    noting_start,
    read_report,
    with_reporter,
)
from goalrun.core.evidence import one_line

_SUFFIXES = frozenset({".js", ".mjs", ".cjs", ".jsx", ".ts", ".mts", ".cts", ".tsx"})
_NO_RUN = frozenset({"--", "-h", "--help", "-v", "-V", "--version", "--watch"})
_NODE_VALUES = frozenset({
    "-r", "--require", "--import", "--loader", "--experimental-loader", "-C", "--conditions", "--env-file",
    "--test-name-pattern", "--test-skip-pattern", "--test-concurrency", "--test-timeout", "--test-shard",
    "--test-reporter", "--test-reporter-destination",
})  # fmt: skip
"""Options of node whose value is a word of its own."""
_NO_NODE_TEST = re.compile(r"--watch|--check|--eval|--print|--version|--help|-[cehpv]")
_NO_JEST = frozenset({
    "--json", "--outputFile", "--watchAll", "--listTests", "--showConfig", "--init", "--clearCache"
})  # fmt: skip
_NO_VITEST = re.compile(r"-w|--(output-?file|merge-?reports|ui$|standalone|clear-?cache)", re.IGNORECASE)
_NO_MOCHA = re.compile(r"-[ow]|--(reporter-?option|list-|dry-?run)", re.IGNORECASE)


class _Program:
    """What the programs have in common: flags ask for a report, and some code is a test that fails."""

    name: str
    code: str

    def prepare(self, words: Sequence[str], start: Path, report: Path) -> list[str] | None:
        """See ``found.Runner``."""
        del start
        flags = self.flags(words, report)
        return None if flags is None else self.wrapped(self.placed(words, flags), report)

    def flags(self, words: Sequence[str], report: Path) -> list[str] | None:
        """What asks for a report; None when the command does not plainly run this program."""
        raise NotImplementedError

    def placed(self, words: Sequence[str], flags: list[str]) -> list[str]:
        """The command with its flags."""
        return [*words, *flags]

    def wrapped(self, words: list[str], report: Path) -> list[str]:
        """The command with what its flags need around it."""
        return noting_start(words, report)

    def read(self, report: Path, output: Path) -> Found | None:
        """See ``found.Runner``."""
        del output
        return read_report(report)

    def plant(self, start: Path, found: Found, token: str) -> str | None:
        """A failing test at the end of a test file that ran, chosen by the token; see ``found.Runner``."""
        title = f"handles {token}"
        code = self.code.format(title=json.dumps(title), token=token, **unequal(token))
        files = sorted({test.split("::")[0] for test in found.outcomes if "::" in test})
        for file in turned(files, token):
            if _is_script(file, start):
                with (start / file).open("a", encoding="utf-8") as opened:
                    opened.write(f"\n\n{code}\n")
                return one_line(f"{file}::{title}")
        return None


class NodeTest(_Program):
    """``node --test …``."""

    name = "node:test"
    code = (
        'Promise.all([import("node:test"), import("node:assert")]).then(([{{ test }}, assert]) =>\n'
        "  test({title}, () => {{ assert.default.strictEqual({left}, {right}); }}));"
    )
    """Dynamic imports work in either kind of module."""

    def flags(self, words: Sequence[str], report: Path) -> list[str] | None:
        """See ``_Program``."""
        options = words[1 : self.positional(words)]
        if Path(words[0]).name != "node" or "--test" not in options or words[1 + len(options) :][:1] == ["--"]:
            return None
        if any(_NO_NODE_TEST.match(option) for option in options):
            return None
        reporters = sum(bool(re.match(r"--test-reporter(=|$)", option)) for option in options)
        destinations = sum(option.startswith("--test-reporter-destination") for option in options)
        if destinations != reporters and (reporters, destinations) != (1, 0):
            return None
        # Reporters and destinations pair up by position: the user's own, where there are any, come before or after.
        ours = [f"--test-reporter={report}.mjs", f"--test-reporter-destination={report}"]
        shown = [] if reporters else ["--test-reporter=spec"]
        return ours + shown + ([] if destinations else ["--test-reporter-destination=stdout"])

    def placed(self, words: Sequence[str], flags: list[str]) -> list[str]:
        """In front of files: node takes what follows them for more files."""
        return [words[0], *flags, *words[1:]]

    def wrapped(self, words: list[str], report: Path) -> list[str]:
        """See ``_Program``."""
        return with_reporter(words, report, NODE_REPORTER, ".mjs")

    def positional(self, words: Sequence[str]) -> int:
        """Where node's options end, and files begin."""
        index = 1
        while index < len(words) and words[index].startswith("-") and words[index] != "--":
            index += 2 if words[index] in _NODE_VALUES else 1
        return index


class Jest(_Program):
    """``jest …``, ``npx jest …``, ``node … node_modules/.bin/jest …``."""

    name = "jest"
    code = "test({title}, () => {{ expect({left}).toBe({right}); }});"

    def flags(self, words: Sequence[str], report: Path) -> list[str] | None:
        """See ``_Program``."""
        options = _arguments(words, "jest")
        if options is None or _has(options, _NO_JEST):
            return None
        ci = [] if _has(options, {"--ci", "--no-ci"}) else ["--ci"]
        return [*ci, "--json", f"--outputFile={report}"]


class Vitest(_Program):
    """``vitest run …``, or ``vitest …``: where nobody sits at a terminal, that is the same."""

    name = "vitest"
    code = (
        'import {{ expect as expect_{token}, test as test_{token} }} from "vitest";\n'
        "test_{token}({title}, () => {{ expect_{token}({left}).toBe({right}); }});"
    )
    """Imports may stand at the end of a module."""

    def flags(self, words: Sequence[str], report: Path) -> list[str] | None:
        """See ``_Program``."""
        options = _arguments(words, "vitest")
        if options is None or any(_NO_VITEST.match(option) for option in options):
            return None
        if options[:1] and options[0] in {"watch", "dev", "bench", "list", "init", "related", "typecheck"}:
            return None
        shown = [] if _has(options, {"--reporter", "--reporters"}) else ["--reporter=default"]
        return [*shown, "--reporter=json", f"--outputFile.json={report}"]


class Mocha(_Program):
    """``mocha …``, ``npx mocha …``."""

    name = "mocha"
    code = (
        ';(typeof it === "function" ? it : test)({title}, () => {{\n'
        '  throw new Error("expected {left}, received {right}");\n}});'
    )
    """Which of the two names there is depends on mocha's interface; it has no assertions of its own."""

    def flags(self, words: Sequence[str], report: Path) -> list[str] | None:
        """See ``_Program``."""
        options = _arguments(words, "mocha")
        if options is None or options[:1] == ["init"] or any(_NO_MOCHA.match(option) for option in options):
            return None
        return [f"--reporter={report}.cjs"]  # of several the last one counts

    def wrapped(self, words: list[str], report: Path) -> list[str]:
        """See ``_Program``."""
        return with_reporter(words, report, MOCHA_REPORTER, ".cjs")


class NpmTest:
    """``npm test`` and its like, where the package's ``test`` script is one plain command of a program above.

    Scripts around it (``pretest``, ``posttest``) run as ever: its arguments are not theirs, their exit status counts.
    """

    name = "npm test"

    def prepare(self, words: Sequence[str], start: Path, report: Path) -> list[str] | None:
        """See ``found.Runner``."""
        # `pnpm test` takes options for its own.
        words = ["pnpm", "run", "test"] if list(words) == ["pnpm", "test"] else words
        script = _script(words, start)
        flags = script.program.flags(script.words, report) if script is not None else None
        if script is None or flags is None:
            return None
        separator = ["--"] if words[0] == "npm" and "--" not in words else []
        changed = [*words, *separator, *flags]
        if isinstance(script.program, NodeTest) and script.program.positional(script.words) < len(script.words):
            # Node takes what follows a file for more files.
            if words[0] != "npm" or script.surrounded:
                return None
            front = ["env", *script.front] if script.front else []
            command = shlex.join([*front, *script.program.placed(script.words, flags)])
            changed = ["npm", "exec", "-c", command]
        return script.program.wrapped(changed, report)

    def read(self, report: Path, output: Path) -> Found | None:
        """See ``found.Runner``."""
        del output
        return read_report(report)

    def plant(self, start: Path, found: Found, token: str) -> str | None:
        """See ``found.Runner``."""
        script = _script(["npm", "test"], start)
        return script.program.plant(start, found, token) if script is not None else None


_PROGRAMS: tuple[_Program, ...] = (NodeTest(), Jest(), Vitest(), Mocha())


class _Script(NamedTuple):
    """A package's ``test`` script as a command of a program that is known here."""

    program: _Program
    front: list[str]
    words: list[str]
    surrounded: bool


def _script(words: Sequence[str], start: Path) -> _Script | None:
    """What a command like ``npm test`` runs, with the arguments that it hands on."""
    arguments = _handed_on(words)
    scripts = _scripts(start / "package.json")
    text = scripts.get("test")
    script = plain_words(text) if isinstance(text, str) else []
    if arguments is None or not script:
        return None
    parts = [*script, *arguments]
    size = front_of(parts, "cross-env")
    front, command = parts[:size], parts[size:]
    for program in _PROGRAMS if command else ():
        if program.flags(command, Path("report")) is not None:
            return _Script(program, front, command, surrounded=bool({"pretest", "posttest"} & scripts.keys()))
    return None


def _handed_on(words: Sequence[str]) -> list[str] | None:
    """The arguments for the script in ``npm test -- ARGUMENTS``; None when it is another command."""
    match words:
        case ["npm", "test" | "t"] | ["npm", "run" | "run-script", "test"]:
            return []
        case ["npm", "test" | "t", "--", *rest] | ["npm", "run" | "run-script", "test", "--", *rest]:
            return list(rest)
        case ["yarn", "test", *rest] | ["yarn" | "pnpm", "run", "test", *rest]:
            return list(rest)
        case _:
            return None


def _scripts(manifest: Path) -> dict[object, object]:
    try:
        parsed = json.loads(read_whole(manifest) or b"{}")
    except (ValueError, RecursionError, OSError):
        return {}
    scripts = parsed.get("scripts") if isinstance(parsed, dict) else None
    return scripts if isinstance(scripts, dict) else {}


def _arguments(words: Sequence[str], program: str) -> list[str] | None:
    """The arguments of a program that is run by name, through npx, or by node from a file; None for another command."""
    rest = list(words)
    launcher = Path(rest.pop(0)).name
    if launcher in {"npx", "node"}:
        skipped = re.compile(r"-y|--yes|--no|--no-install" if launcher == "npx" else r"--.+")
        while rest and skipped.fullmatch(rest[0]):
            rest.pop(0)
    elif launcher == "pnpm" and rest[:1] == ["exec"]:
        rest.pop(0)
    else:
        rest = [launcher, *rest]
    names = {program, f"{program}.js", f"{program}.mjs"} if launcher == "node" else {program}
    by_name = Path(rest[0]).name in names if rest else False
    return None if not by_name or _has(rest[1:], _NO_RUN) else rest[1:]


def _has(options: Sequence[str], names: set[str] | frozenset[str]) -> bool:
    return any(option.split("=", 1)[0] in names for option in options)


def _is_script(file: str, start: Path) -> bool:
    """Whether it is a plain file of the tree: reports name files, and the code under test can write a report."""
    path = start / file
    if Path(file).is_absolute() or path.suffix not in _SUFFIXES:
        return False
    try:
        return path.is_file() and path.resolve() == start.resolve() / file
    except OSError:
        return False
