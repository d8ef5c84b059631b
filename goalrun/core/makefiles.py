"""make: what a check that runs it is made of (gnu.org, "GNU make"). Pure.

Variables are followed as far as they are plain; functions but ``wildcard``, and conditions, are not.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from fnmatch import filter as matching
from posixpath import join, normpath

from goalrun.core import commands

MAKEFILES = ("GNUmakefile", "makefile", "Makefile")
MAX_FRAGMENTS = 100
MAX_ROUNDS, MAX_LINE = 5, 100_000
_MAKE = re.compile(r"(?:^|[\s;&|(@`+-])(?:\S*/)?g?make(?=[\s;&|)`]|$)([^;&|\n)`]*)")
_FOLDER = re.compile(r"\s(?:-[bBdeiknpqrRsStvw]*C\s*|--directory[\s=]\s*)[\"']?([^\s\"']+)")
_FILE = re.compile(r"\s(?:-[bBdeiknpqrRsStvw]*f\s*|--(?:make)?file[\s=]\s*)[\"']?([^\s\"']+)")
_RULE = re.compile(r"^([^\s:#=][^:#=]*):(?![=:])([^#;=]*)(?:;(.*))?$")
_INCLUDE = re.compile(r"^(?:-include|sinclude|include)\s+(.+)$")
_ASSIGNED = re.compile(r"^(?:(?:export|override)\s+)*([\w.-]+)\s*(:{0,3}|[?+])=\s*([^#]*)")
_REFERENCE = re.compile(r"\$[({]([\w.-]+)[)}]")
_WILDCARD = re.compile(r"\$[({]wildcard\s+([^(){}]*)[)}]")
_UNKNOWN = re.compile(r"\S*\$[({][^(){}]*[)}]?\S*")
_GLOB = re.compile(r"[*?\[]")


class Make:
    """Follows the makes that a command runs.

    Attributes:
        files: makefiles, and what they include.
        fragments: what makefiles include, there or not, and globs.
        targets: what a file of the name would stand in for.
    """

    def __init__(self, base: frozenset[str], read: Callable[[str], str | None]) -> None:
        self.files: set[str] = set()
        self.fragments: set[str] = set()
        self.targets: set[str] = set()
        self._base = base
        self._read = read

    def follow(self, command: str, folder: str) -> Iterator[tuple[str, str]]:
        """Take in every make of a line of shell; the lines of the recipes that it runs, and where they start."""
        for found in _MAKE.finditer(command):
            place = normpath(join(folder, *commands.steps(command[: found.start()]), *_FOLDER.findall(found[1])))
            place = "" if place == "." else place
            named = tuple(normpath(join(place, name)) for name in _FILE.findall(found[1]))
            default = (join(place, name) for name in MAKEFILES if join(place, name) in self._base)
            for line in self._recipes(place, named or tuple(default)[:1], found[1].split()):
                yield place, line

    def _recipes(self, folder: str, tops: tuple[str, ...], arguments: list[str]) -> Iterator[str]:
        variables = {"MAKE": "make", "CURDIR": "."}
        variables.update((name, value) for name, mark, value in (word.partition("=") for word in arguments) if mark)
        lines = list(self._lines(tops, folder, variables))
        rules, phony, first = _rules(_expanded(line, variables) for line in lines)
        wanted = [word for word in arguments if word in rules] or ([first] if first else [])
        seen: set[str] = set()
        while wanted:
            target = wanted.pop()
            if target in seen or target not in rules:
                continue
            seen.add(target)
            needs, recipe = rules[target]
            wanted += needs
            if target not in phony:
                self.targets.add(normpath(join(folder, target)))
            yield from recipe

    def _lines(self, tops: tuple[str, ...], folder: str, variables: dict[str, str]) -> Iterator[str]:
        """The lines of some makefiles and of what they include; variables are noted on the way."""
        pending = list(tops)
        seen: set[str] = set()
        given = set(variables)
        while pending and len(seen) < MAX_FRAGMENTS:
            name = pending.pop(0)
            if name in seen:
                continue
            seen.add(name)
            self.files.add(name)
            for line in (self._read(name) or "").replace("\\\n", " ").splitlines():
                yield line
                if (found := _ASSIGNED.match(line.lstrip(" "))) is not None and found[1] not in given:
                    _assign(variables, found[1], found[2], found[3].strip())
                elif (found := _INCLUDE.match(line.strip())) is not None:
                    pending += self._included(_expanded(found[1], variables), folder)

    def _included(self, names: str, folder: str) -> list[str]:
        paths = [normpath(join(folder, word)) for word in _UNKNOWN.sub(" ", names).split()]
        self.fragments.update(paths)
        return [
            each for path in paths for each in (sorted(matching(self._base, path)) if _GLOB.search(path) else [path])
        ]


def _assign(variables: dict[str, str], name: str, operator: str, value: str) -> None:
    if operator == "+":
        variables[name] = f"{variables.get(name, '')} {value}".strip()
    elif operator != "?" or name not in variables:
        variables[name] = value


def _expanded(line: str, variables: dict[str, str]) -> str:
    """A line with its plain variables in place; the others stay as they are written."""
    for _ in range(MAX_ROUNDS):
        line = _REFERENCE.sub(lambda found: variables.get(found[1], found[0]), _WILDCARD.sub(r"\1", line))[:MAX_LINE]
    return line


def _rules(lines: Iterable[str]) -> tuple[dict[str, tuple[list[str], list[str]]], set[str], str]:
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
