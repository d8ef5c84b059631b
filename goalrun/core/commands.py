"""What a line of shell names, runs, sources and compares with. Pure. It looks at words and is no parser."""

import re
from collections.abc import Iterator
from posixpath import join, normpath

LOOKS_ONLY = frozenset(
    {"test", "[", "[[", "grep", "egrep", "fgrep", "rg", "compileall", "py_compile", "mypy", "pyright", "ruff", "black",
     "isort", "flake8", "pylint", "eslint", "prettier", "tsc", "shellcheck", "gofmt", "rustfmt"}
)  # fmt: skip
"""Commands whose operands are the thing that is checked, not a part of the check."""
NODE_SUFFIXES = (".js", ".cjs", ".mjs", ".ts", ".cts", ".mts", "/index.js", "/index.ts")
_SEPARATORS = re.compile(r"[\s;&|()<>\"'`=]+")
_SHELLS = re.compile(r"(?:^|[\s;&|(`@-])(?:(?:\S*/)?(?:bash|sh|dash|zsh)(?:\s+-\w+)*|source|\.)\s+([\w./-]+)")
_SOURCED = re.compile(
    r"(?:(?:^|[;&|({\n])|\b(?:then|do|else)\b)\s*(?:source|\.)\s+[\"']?([\w./-]+)"
    r"|\s--env-file(?:-if-exists)?[\s=][\"']?([\w./-]+)"
)
_WRITTEN = re.compile(r"(?:>|\b(?:cp|mv|tee|install|ln)\s[^;&|\n]*?\s)\s*[\"']?([\w./-]+)[\"']?\s*(?=$|[;&|)}\n])")
_COMPARED = re.compile(r"(?:^|[\s;&|(`])(?:diff|cmp)\s+([^;&|)\n]+)")
_CD = re.compile(r"(?:^|[\s;&|({])cd\s+[\"']?([^\s;&|)\"']+)")
_NODE = re.compile(r"(?:^|[\s;&|(`\"'/])(?:node|ts-node|tsx)(?:\s+-\S+)*\s+[\"']?([\w./@-]+)")


def words(line: str) -> list[str]:
    """All words, options and operands alike."""
    return [word for word in _SEPARATORS.split(line) if word]


def named_words(line: str) -> Iterator[str]:
    """The words that may name files, without what the line's commands merely look at."""
    for command in re.split(r"[;&|\n()`]+|\$\(", line):
        found = [word for word in re.split(r"[\s<>\"'=]+", command) if word]
        greps = bool(found) and found[0].endswith(("grep", "rg"))
        patterns = greps and any(word == "-f" or word.startswith("--file") for word in found)
        module = found[2] if found[1:2] == ["-m"] and len(found) > 2 else ""  # noqa: PLR2004 - python -m MODULE
        if patterns or not (found and {found[0], module} & LOOKS_ONLY):
            # Programs of Python take further arguments from a file that is named after an @.
            yield from (word.lstrip("@") for word in found)


def steps(line: str) -> list[str]:
    """Where the line goes with ``cd``, one after the other."""
    return _CD.findall(line)


def places(line: str, folder: str) -> set[str]:
    """The folders that parts of the line may run in: where it starts, and where it goes with ``cd``."""
    taken = steps(line)
    gone = {normpath(join(folder, *taken[: count + 1])) for count in range(len(taken))}
    return {folder, *gone, *(normpath(join(folder, step)) for step in taken)}


def scripts(line: str, folder: str) -> Iterator[str]:
    """Scripts that the line has a shell run, or sources."""
    yield from (normpath(join(place, script)) for place in places(line, folder) for script in _SHELLS.findall(line))


def sourced(line: str, folder: str) -> set[str]:
    """Files that the line takes variables from, there or not, where it does not write them itself."""
    found = {normpath(join(folder, one or other)) for one, other in _SOURCED.findall(line)}
    return found - {normpath(join(folder, word)) for word in _WRITTEN.findall(line)}


def compared(line: str, folder: str) -> Iterator[str]:
    """Expected results: what the line compares with."""
    for operands in _COMPARED.findall(line):
        for word in operands.split():
            name = word.strip("\"'<>")
            if re.fullmatch(r"[\w./-]+", name) and not name.startswith("-"):
                yield normpath(join(folder, name))


def modules_of_node(line: str, folder: str) -> Iterator[tuple[str, ...]]:
    """For each program that the line has node run, the files that its name can mean."""
    for place in places(line, folder):
        yield from (as_node_finds_it(normpath(join(place, name))) for name in _NODE.findall(line))


def as_node_finds_it(path: str) -> tuple[str, ...]:
    """The files that a path can mean to node, and to what runs TypeScript (nodejs.org, "Modules", "File modules")."""
    return (path, *(f"{path}{suffix}" for suffix in NODE_SUFFIXES))
