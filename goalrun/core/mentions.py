"""What checks are made of beside the files that they name: fragments, scripts and plugins, found in the base. Pure.

Only what cannot be the product itself counts: a script that runs another one may be testing it, so nothing is followed
from script to script.
"""

import json
import re
from collections.abc import Callable, Iterator
from itertools import pairwise
from posixpath import basename, dirname, join, normpath

from goalrun.core.spec import Value

MAKEFILES = ("GNUmakefile", "makefile", "Makefile")
PYTEST_FILES = ("pyproject.toml", "pytest.ini", ".pytest.ini", "pytest.toml", "tox.ini", "setup.cfg")
MAX_FRAGMENTS = 100
_SHELLS = re.compile(r"(?:^|[\s;&|(`@-])(?:(?:\S*/)?(?:bash|sh|dash|zsh)(?:\s+-\w+)*|source|\.)\s+([\w./-]+)")
_COMPARED = re.compile(r"(?:^|[\s;&|(`])(?:diff|cmp)\s+([^;&|)\n]+)")
_RULE = re.compile(r"^([^\s:#=][^:#=]*):(?![=:])([^#;=]*)(?:;(.*))?$")
_INCLUDE = re.compile(r"^(?:-include|sinclude|include)\s+(.+)$")
_PLUGIN_OPTION = re.compile(r"(?:^|[\s\"',\[])-p[\s\"',]+([A-Za-z_][\w.]*)")
_PLUGIN_LIST = re.compile(r"pytest_plugins\s*=\s*([(\[]?[^)\]\n]*(?:\n[^)\]]*)?[)\]]?)")
Read = Callable[[str], str | None]


class Mentions(Value):
    """Paths of the workspace.

    Attributes:
        files: of the base; part of the checks.
        absent: not in the base; if they appeared, the checks would mean something else.
    """

    files: frozenset[str] = frozenset()
    absent: frozenset[str] = frozenset()


def mentioned(checks: tuple[str, ...], subfolder: str, base: frozenset[str], read: Read) -> Mentions:
    """What the checks of a goal are made of.

    Args:
        checks: the commands.
        subfolder: where they start.
        base: every file of the base.
        read: the text of a file of the base; None where it is none.
    """
    found: set[str] = set()
    for check in checks:
        words = set(re.split(r"[\s;&|()<>\"'`=]+", check))
        if words & {"make", "gmake"}:
            found.update(_make(check, subfolder, base, read))
        if words & {"npm", "yarn", "pnpm", "npx", "bun"}:
            found.update(_package_scripts(subfolder, read))
        for script in words:
            found.update(_expected(normpath(join(subfolder, script)), subfolder, base, read))
        found.update(_compared(check, subfolder))
    found.update(_plugins(checks, base, read))
    return Mentions(
        files=frozenset(found & base),
        absent=frozenset(name for name in found - base if not name.startswith("..")),
    )


def _make(check: str, subfolder: str, base: frozenset[str], read: Read) -> Iterator[str]:
    """Fragments, the scripts of the recipes that the check runs, and the targets that a file could stand in for."""
    arguments = re.split(r"\s+", check.partition("make")[2])
    elsewhere = next((after for before, after in pairwise(arguments) if before == "-C"), "")
    folder = normpath(join(subfolder, elsewhere)).removeprefix(".")
    top = next((join(folder, name) for name in MAKEFILES if join(folder, name) in base), None)
    if top is None:
        return
    lines: list[str] = []
    for path, text in _fragments(top, folder, read):
        yield path
        lines += text.splitlines()
    rules, phony, first = _rules(lines)
    wanted = [word for word in arguments if word in rules] or ([first] if first else [])
    seen: set[str] = set()
    while wanted:
        target = wanted.pop()
        if target in seen:
            continue
        seen.add(target)
        needs, recipe = rules.get(target, ([], []))
        wanted += needs
        if target not in phony and target in rules:
            yield normpath(join(folder, target))
        for line in recipe:
            yield from (normpath(join(folder, script)) for script in _SHELLS.findall(line))
            yield from _compared(line, folder)


def _fragments(path: str, folder: str, read: Read) -> Iterator[tuple[str, str]]:
    """A makefile and what it includes, there or not."""
    pending = [path]
    seen: set[str] = set()
    while pending and len(seen) < MAX_FRAGMENTS:
        name = pending.pop()
        if name in seen:
            continue
        seen.add(name)
        text = read(name) or ""
        yield name, text
        for line in text.splitlines():
            if (included := _INCLUDE.match(line.strip())) is not None:
                pending += [normpath(join(folder, word)) for word in included[1].split() if "$" not in word]


def _rules(lines: list[str]) -> tuple[dict[str, tuple[list[str], list[str]]], set[str], str]:
    """The rules of a makefile by target: prerequisites and recipe; what is phony; the first target."""
    rules: dict[str, tuple[list[str], list[str]]] = {}
    phony: set[str] = set()
    first = ""
    current: list[str] = []
    for line in lines:
        if line.startswith("\t"):
            for target in current:
                rules[target][1].append(line[1:])
        elif (rule := _RULE.match(line)) is not None:
            needs = rule[2].split()
            current = [target for target in rule[1].split() if "%" not in target]
            if ".PHONY" in current:
                phony.update(needs)
            for target in current:
                known = rules.setdefault(target, ([], []))
                known[0].extend(needs)
                known[1].extend([rule[3]] if rule[3] else [])
                first = first or (target if not target.startswith(".") else "")
    return rules, phony, first


def _package_scripts(subfolder: str, read: Read) -> Iterator[str]:
    """Files that the test scripts of package.json name."""
    try:
        scripts = json.loads(read(normpath(join(subfolder, "package.json"))) or "{}").get("scripts", {})
        lines = [str(scripts[name]) for name in ("pretest", "test", "posttest") if name in scripts]
    except (ValueError, AttributeError, TypeError, RecursionError):
        return
    for line in lines:
        yield from (normpath(join(subfolder, word)) for word in re.split(r"[\s;&|()<>\"'`=]+", line) if "." in word)


def _expected(script: str, subfolder: str, base: frozenset[str], read: Read) -> Iterator[str]:
    """Expected results that a script of the check compares with."""
    if script in base and (script.endswith((".sh", ".bash")) or "." not in basename(script)):
        yield from _compared(read(script) or "", subfolder)


def _compared(text: str, folder: str) -> Iterator[str]:
    for operands in _COMPARED.findall(text):
        for word in operands.split():
            name = word.strip("\"'<>")
            if re.fullmatch(r"[\w./-]+", name) and not name.startswith("-"):
                yield normpath(join(folder, name))


def _plugins(checks: tuple[str, ...], base: frozenset[str], read: Read) -> Iterator[str]:
    """Modules of the workspace that pytest loads as plugins."""
    names: set[str] = set()
    for check in checks:
        names.update(_PLUGIN_OPTION.findall(check))
    for path in base:
        name = basename(path)
        if name == "conftest.py":
            for listed in _PLUGIN_LIST.findall(read(path) or ""):
                names.update(re.findall(r"[\"']([\w.]+)[\"']", listed))
        elif name in PYTEST_FILES and dirname(path).count("/") < 2:  # noqa: PLR2004 - near the top
            names.update(_PLUGIN_OPTION.findall(read(path) or ""))
    for module in names:
        path = module.replace(".", "/")
        for top in ("", "src/", "tests/", "lib/"):
            yield from (f"{top}{path}.py", f"{top}{path}/__init__.py") if _there(f"{top}{path}", base) else ()


def _there(path: str, base: frozenset[str]) -> bool:
    return f"{path}.py" in base or f"{path}/__init__.py" in base
