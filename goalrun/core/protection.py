"""Which paths a worker may not change, and what an edit of one is. Pure: paths in, verdicts out.

Paths are relative to the workspace, with ``/``, as text. Globs follow git's ignore rules: one without a
slash matches in every folder, ``*`` stops at a slash, ``**`` does not, and a match of a folder covers
everything below it. Case does not matter: on some file systems ``Tests/`` is ``tests/``.
"""

import re
import sys
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from functools import cached_property, lru_cache
from pathlib import PurePosixPath
from posixpath import join, normpath
from typing import Literal

from goalrun.core import commands
from goalrun.core.mentions import Mentions
from goalrun.core.model import Tamper
from goalrun.core.spec import VerificationSpec
from goalrun.core.value import Value

TEST_ROOTS = (
    "tests", "test", "__tests__", "spec", "specs", "testdata", "__snapshots__", "__mocks__", "__fixtures__", "e2e",
    "expected", "golden", "goldens",
)  # fmt: skip
"""Folders, at any depth, whose whole content is tests and their data."""

TEST_FILES = (
    "test_*.py", "*_test.py", "*_test.go",
    "*.test.js", "*.test.jsx", "*.test.ts", "*.test.tsx", "*.test.mjs", "*.test.cjs", "*.test.mts", "*.test.cts",
    "*.spec.js", "*.spec.jsx", "*.spec.ts", "*.spec.tsx", "*.spec.mjs", "*.spec.cjs", "*.spec.mts", "*.spec.cts",
    "*.snap", "*.golden",
)  # fmt: skip
"""Test files outside test roots. New ones may be added; those of the base stay as they were."""

HARNESS = (
    # Python
    "conftest.py", "pytest.ini", ".pytest.ini", "pytest.toml", ".pytest.toml", "tox.ini", "tox.toml", "setup.cfg",
    "pyproject.toml", "noxfile.py", ".coveragerc", ".coveragerc.toml", "mypy.ini", ".mypy.ini", "ruff.toml",
    ".ruff.toml", ".flake8", ".pylintrc", "pylintrc", "pyrightconfig.json", "sitecustomize.py", "usercustomize.py",
    "*.pth", ".python-version", ".tool-versions", "mise.toml", ".mise.toml", "requirements*.txt", "uv.lock",
    "poetry.lock", "pdm.lock", "Pipfile", "Pipfile.lock",
    # JavaScript and TypeScript
    "package.json", "package-lock.json", "npm-shrinkwrap.json", "yarn.lock", "pnpm-lock.yaml",
    "pnpm-workspace.yaml", "bun.lock", "bun.lockb", ".npmrc", ".yarnrc", ".yarnrc.yml", ".pnpmfile.cjs",
    "bunfig.toml", "jest.config.*", "jest.setup.*", "jest-preset.*", "vitest.config.*", "vitest.workspace.*",
    "vitest.projects.*", "vitest.setup.*", "vite.config.*", ".mocharc*", "mocha.opts", "babel.config.*", ".babelrc*",
    ".swcrc", "ava.config.*", "playwright.config.*", "cypress.config.*", "karma.conf.*", "tsconfig*.json",
    "jsconfig.json", ".eslintrc*", ".eslintignore", "eslint.config.*", "biome.json", "biome.jsonc", ".nvmrc",
    ".node-version", ".nycrc*", ".c8rc*", "deno.json", "deno.jsonc", "deno.lock",
    # Rust
    "Cargo.toml", "Cargo.lock", ".cargo/", "rust-toolchain", "rust-toolchain.toml", "clippy.toml", ".clippy.toml",
    "nextest.toml",
    # Go
    "go.mod", "go.sum", "go.work", "go.work.sum", ".golangci.*",
    # Make and other runners of checks
    "Makefile", "GNUmakefile", "*.mk", "justfile", ".justfile", "Taskfile.yml", "Taskfile.yaml", "Rakefile", ".rspec",
    "phpunit.xml*", ".mvn/", "gradle.properties",
    # Installed dependencies, where somebody tracks them
    "node_modules/", "site-packages/",
    # CI and this program
    ".github/workflows/", ".github/actions/", ".gitlab-ci.yml", ".circleci/", ".buildkite/", "azure-pipelines.yml",
    "bitbucket-pipelines.yml", "Jenkinsfile", ".travis.yml", ".pre-commit-config.yaml", ".gitmodules",
    "goalrun.toml", ".goalrun/",
)  # fmt: skip
"""Test, lint and build configuration, locks, CI. A new one where the base has a folder is an edit too."""

ANYWHERE = (
    "conftest.py", "sitecustomize.py", "usercustomize.py", "sitecustomize/", "usercustomize/", "*.pth", ".goalrun/",
    ".cargo/", ".npmrc", "site-packages/",
)  # fmt: skip
"""Harness names that are refused even in folders that the worker made: they act on what lies around them."""

LOCKS = ("*.lock", "*-lock.json", "*-lock.yaml", "go.sum", "go.work.sum", "npm-shrinkwrap.json", "bun.lockb")
"""Written by test programs and package managers as they run."""
RECORDED = (
    ".coverage", ".coverage.*", ".nyc_output/", ".pytest_cache/", ".mypy_cache/", ".ruff_cache/", ".eslintcache",
    "*.tsbuildinfo", ".tox/", ".nox/", ".fingerprint/", "*.o",
)  # fmt: skip
"""What tools keep for their next run. Checks start without the worker's, which may be left around in all honesty."""
LOADED = ("conftest.py", "sitecustomize.py", "usercustomize.py", "*.pth", "pytest.ini", ".pytest.ini", "pytest.toml")
"""Loaded by being there, also in the middle of a run."""

RUNNER_MODULES = frozenset(
    {"pytest", "_pytest", "pluggy", "iniconfig", "xdist", "coverage", "hypothesis", "nose", "nose2", "tox", "nox",
     "mypy", "ruff", "pip", "setuptools", "packaging", "assertpy", "hamcrest", "sure", "expects", "mock",
     "pytest_mock", "testfixtures", "parameterized", "ddt", "behave", "responses", "respx", "freezegun", "time_machine",
     "faker", "factory", "numpy", "pandas", "scipy", "attr", "attrs", "pydantic", "requests", "httpx", "yaml", "tomli",
     "tomli_w", "django", "flask", "jinja2", "sqlalchemy", "click", "typer", "rich"}
)  # fmt: skip
"""Modules of test programs and of libraries that tests lean on: a new file of such a name would be imported instead."""

TAKEN_MODULES = RUNNER_MODULES | (sys.stdlib_module_names - {"test"})
"""Names that a new module at the top of an import path may not take."""
PROGRAMS = (".py", ".js", ".mjs", ".cjs", ".jsx", ".ts", ".mts", ".cts", ".tsx", ".rs", ".go", ".sh", ".bash", ".rb")
SYSTEM_PROGRAMS = frozenset(
    {"awk", "bash", "cargo", "cat", "cmp", "comm", "cut", "diff", "egrep", "env", "expr", "false", "fgrep", "find",
     "go", "grep", "head", "jq", "ls", "node", "npm", "npx", "perl", "pytest", "python", "python3", "sed", "sh",
     "sort", "tail", "timeout", "true", "uniq", "wc", "xargs"}
)  # fmt: skip
"""A check that puts a folder on PATH would run a new file of such a name in the place of the system's program."""
MODULE_SUFFIXES = frozenset({".py", ".pyc", ".pyd", ".so"})


@lru_cache(maxsize=4096)
def _pattern(glob: str) -> re.Pattern[str]:
    body = glob.casefold().removeprefix("./").rstrip("/")
    anchored = "/" in body
    body = body.lstrip("/")
    regex = "" if anchored else "(?:.*/)?"
    place = 0
    while place < len(body):
        piece, place = _translate(body, place)
        regex += piece
    return re.compile(rf"{regex}(?:/.*)?", re.DOTALL)


def _translate(glob: str, place: int) -> tuple[str, int]:
    if glob.startswith("**/", place):
        return "(?:.*/)?", place + 3
    if glob.startswith("**", place):
        return ".*", place + 2
    char = glob[place]
    if char == "[":
        end = glob.find("]", place + 2)
        if end > 0:
            inner = re.sub(r"([\\\[&~|])", r"\\\1", glob[place + 1 : end]).replace("--", r"-\-")
            inner = "^" + inner[1:] if inner.startswith("!") else inner
            return f"(?!/)[{inner}]", end + 1
    return {"*": "[^/]*", "?": "[^/]"}.get(char, re.escape(char)), place + 1


def matches(path: str, globs: Iterable[str]) -> bool:
    """Whether any of the globs matches the path or a folder that it is in."""
    return _any_of(tuple(globs)).fullmatch(path.casefold()) is not None


@lru_cache(maxsize=256)
def _any_of(globs: tuple[str, ...]) -> re.Pattern[str]:
    nothing = "(?!)"
    return re.compile("|".join(f"(?:{_pattern(glob).pattern})" for glob in globs) or nothing, re.DOTALL)


def bad_glob(glob: str) -> str:
    """Why a glob cannot be used; "" when it can."""
    if not glob.casefold().removeprefix("./").strip("/.") and "*" not in glob:
        return "it matches no path"
    try:
        _pattern(glob)
    except re.error as failure:
        return str(failure)
    return ""


class Change(Value):
    """One path that differs between the base and a snapshot."""

    path: str
    before: bool
    after: bool


class Finding(Value):
    """What an edit of a path means.

    The checks run without it; with ``extra`` they also run once with it. ``left_out`` and ``extra`` are no tampering.
    """

    path: str
    kind: Literal["modified", "deleted", "added", "shadow", "extra", "left_out"]

    @property
    def tamper(self) -> Tamper | None:
        """The edit as tampering; None where it is none."""
        return None if self.kind in {"extra", "left_out"} else Tamper(path=self.path, kind=self.kind)


class Protection(Value):
    """The protected set of a goal: exact paths of the base, and names that must stay absent.

    Attributes:
        base_files: every file of the base.
        mentions: what the checks are made of beside what they name.
        frozen: folders of dependencies; what a snapshot has there would stand in their place.
        subfolder: where in the workspace the checks start; "" is the top.
    """

    spec: VerificationSpec
    checks: tuple[str, ...]
    base_files: frozenset[str]
    mentions: Mentions = Mentions()
    frozen: tuple[str, ...] = ()
    subfolder: str = ""

    @cached_property
    def named(self) -> frozenset[str]:
        """Files that a check's command names: scripts, tests and expected results are part of the check."""
        return frozenset(
            normpath(join(place, word.split("::")[0]))
            for check in self.checks
            for place in commands.places(check, self.subfolder)
            for word in commands.named_words(check)
        )

    @property
    def only_named(self) -> tuple[str, ...]:
        """Files of the base that nothing but their name in a check protects; the user may not expect it."""
        found = (
            path
            for path in (self.named | self.mentions.files) & self.base_files
            if not matches(path, self.spec.may_change)
        )
        return tuple(sorted(path for path in found if not self._protected(path, named=False)))

    @cached_property
    def base_folders(self) -> frozenset[str]:
        """Every folder of the base; "" is the top."""
        return frozenset(str(parent) for file in self.base_files for parent in PurePosixPath(file).parents) | {"."}

    @cached_property
    def test_files(self) -> tuple[str, ...]:
        """The base's tests: programs only, since a test may well write to its data."""
        tests = (path for path in self.base_files if in_test_root(path) or matches(path, TEST_FILES))
        return tuple(path for path in tests if path.endswith(PROGRAMS) and not matches(path, self.spec.may_change))

    def finding(self, change: Change) -> Finding | None:
        """What a change means; None when it is free.

        An addition inside a test root is ``extra`` when it shadows nothing: new tests are welcome, but the
        base's tests have to pass without them too.
        """
        path = change.path
        if matches(path, self.spec.may_change):
            return None
        if path in self.mentions.made or matches(path, RECORDED):
            return Finding(path=path, kind="left_out")
        if change.before:
            kind: Literal["modified", "deleted"] = "modified" if change.after else "deleted"
            return Finding(path=path, kind=kind) if self._protected(path) else None
        return self._addition(path)

    def escapes(self, changes: Sequence[Change]) -> list[Change]:
        """The changes, all made while checks ran, that can have changed what the checks mean.

        Test programs write files: new ones count only where they would be loaded, locks and caches never do, nor does
        an environment that a check makes for itself.
        """
        files = [PurePosixPath(change.path) for change in changes if not change.before]
        made = {str(file.parent) for file in files if file.name == "pyvenv.cfg"} - self.base_folders
        return [change for change in changes if self._escaped(change, made)]

    def _escaped(self, change: Change, environments: set[str]) -> bool:
        finding = self.finding(change)
        if finding is None or finding.tamper is None or matches(change.path, (*LOCKS, "__pycache__/")):
            return False
        if change.before:
            return True
        # A link to the frozen copy, or what tools write there.
        if self._in_frozen(change.path) or any(
            str(each) in environments for each in PurePosixPath(change.path).parents
        ):
            return False
        return finding.kind == "shadow" or matches(change.path, LOADED)

    def protects(self, path: str) -> bool:
        """Whether an edit of a file of the base does not count."""
        return not matches(path, self.spec.may_change) and self._protected(path)

    def _protected(self, path: str, *, named: bool = True) -> bool:
        globs = (*self.spec.protect, *TEST_FILES, *HARNESS)
        by_name = named and (path in self.named or path in self.mentions.files)
        return in_test_root(path) or by_name or matches(path, globs)

    def _addition(self, path: str) -> Finding | None:
        if matches(path, self.spec.protect) or matches(path, ANYWHERE):
            return Finding(path=path, kind="added")
        if matches(path, HARNESS) and self._beside_base(path):
            return Finding(path=path, kind="added")
        if self._in_frozen(path) or self._shadows(path) or self._stands_in(path):
            return Finding(path=path, kind="shadow")
        extra = (in_test_root(path) or matches(path, TEST_FILES)) and path not in self.named
        return Finding(path=path, kind="extra") if extra else None

    def _beside_base(self, path: str) -> bool:
        """Whether a harness file would act on files of the base: its folder is one of theirs, or in a test root."""
        return str(PurePosixPath(path).parent) in self.base_folders or in_test_root(path)

    def _in_frozen(self, path: str) -> bool:
        return any(path == folder or path.startswith(f"{folder}/") for folder in self._frozen_beside_base)

    @cached_property
    def _frozen_beside_base(self) -> tuple[str, ...]:
        """Where the base has files of its own, checks get those of the snapshot."""
        return tuple(folder for folder in self.frozen if folder not in self.base_folders | self.base_files)

    def _stands_in(self, path: str) -> bool:
        """Whether a check would read an added file that was not there before."""
        absent = self.mentions.absent
        return path in absent or any(fnmatchcase(path, name) for name in absent if re.search(r"[*?\[]", name))

    def _shadows(self, path: str) -> bool:
        """Whether an added file would be imported, or run, in the place of something else."""
        name = path.rpartition("/")[2]
        # As pathlib tells it, in a fraction of the time: every added file of a turn comes by here.
        dot = name.rfind(".")
        suffix = name[dot:] if 0 < dot < len(name) - 1 else ""
        if suffix in {".pyc", ".pyd", ".so"} and in_test_root(path):
            return True
        if name in SYSTEM_PROGRAMS:
            return True
        if suffix not in MODULE_SUFFIXES:
            return False
        pure = PurePosixPath(path)
        return any(self._eclipses(part) for part in (pure, *pure.parents) if part.name)

    def _eclipses(self, part: PurePosixPath) -> bool:
        stem = part.name.split(".")[0]
        if not stem:
            # Nothing is imported by such a name.
            return False
        if str(part.parent) in {".", "src", "lib"} and str(part) not in self.base_folders and stem in TAKEN_MODULES:
            return True
        module, package = str(part.with_name(f"{stem}.py")), str(part.with_name(stem))
        if part.suffix == "":
            return module in self.base_files and self._protected(module)
        if part.suffix == ".py":
            return package in self.base_folders and in_test_root(f"{package}/")
        return module in self.base_files


def in_test_root(path: str) -> bool:
    """Whether a path is, or lies in, a folder of tests."""
    return any(part in TEST_ROOTS for part in path.casefold().split("/")[:-1])
