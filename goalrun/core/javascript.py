"""JavaScript: what the scripts of ``package.json`` name, and what test programs load because they are configured to.

Sources: docs.npmjs.com "scripts"; jestjs.io "Configuring Jest"; vitest.dev "Configuring Vitest"; mochajs.org
"Configuring Mocha". Pure.
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator
from fnmatch import fnmatchcase
from posixpath import basename, dirname, join, normpath

from goalrun.core import commands

PROGRAMS = frozenset({"npm", "yarn", "pnpm", "npx", "bun", "npm-run-all", "run-s", "run-p", "concurrently"})
_EVERYWHERE = frozenset(
    {"-w", "--workspace", "--workspaces", "-ws", "-r", "--recursive", "--filter", "workspace", "workspaces"}
)
_SHORT = {"t": ("test",), "tst": ("test",), "ci": ("install", "prepare"), "i": ("install", "prepare"),
          "install": ("prepare",)}  # fmt: skip
MAX_FILES = 100
MAX_VALUE = 10_000
_CONFIGURATION = re.compile(
    r"(?:.*/)?(?:(?:jest|vitest|vite)\.config\..*|vitest\.(?:workspace|projects)\..*|\.mocharc.*|package\.json)"
)
_NAMED = re.compile(r"\s(?:-c|--config|--package)[\s=]+[\"']?([\w./@-]+)")
_KEY = re.compile(
    r"(?<![\w.$/-])[\"']?(setupFiles(?:AfterEnv)?|globalSetup|globalTeardown|reporters?|transform|resolver"
    r"|(?:testE|snapshotE|e)nvironment|(?:testR|r)unner|testSequencer|testResultsProcessor|snapshotSerializers"
    r"|snapshotResolver|require|file|import|loader|ui|extends|preset|projects)[\"']?\s*[:=]\s*"
)
"""Keys whose values name code, or more configuration; mappers and aliases are left out, as they name the product."""
_MORE = frozenset({"extends", "preset", "projects"})
_ITEM = re.compile(r"\n\s*-\s")
_ROOT = re.compile(r"\brootDir[\"']?\s*:\s*[\"']([\w./-]+)")
_ROOTED = re.compile(r"<rootDir>/?|\$\{configDir\}/?")
Read = Callable[[str], str | None]


def lines_run(check: str, subfolder: str, base: frozenset[str], read: Read) -> Iterator[tuple[str, str]]:
    """The lines of the package's scripts that a check runs, each with the folder that it starts in."""
    words = set(commands.words(check))
    if not words & PROGRAMS:
        return
    for folder in _packages(words, subfolder, base):
        scripts = _table(read(join(folder, "package.json")), "scripts")
        wanted = _called(words, scripts)
        seen: set[str] = set()
        while wanted:
            name = wanted.pop()
            for each in (f"pre{name}", name, f"post{name}"):
                line = scripts.get(each)
                if each in seen or not isinstance(line, str):
                    continue
                seen.add(each)
                yield folder, line
                inner = set(commands.words(line))
                wanted += _called(inner, scripts) if inner & PROGRAMS else []


def _packages(words: set[str], subfolder: str, base: frozenset[str]) -> list[str]:
    """Folders of packages whose scripts a command may run: the nearest one, those that it names, or all."""
    folders = sorted((dirname(path) for path in base if basename(path) == "package.json"), key=len)
    nearest = [each for each in folders if f"{subfolder}/".startswith(f"{each}/" if each else "")]
    named = {normpath(join(subfolder, word)) for word in words}
    return [each for each in folders if each in nearest[-1:] or each in named or words & _EVERYWHERE][:MAX_FILES]


def _called(words: set[str], scripts: dict[str, object]) -> list[str]:
    """The scripts that a command's words call, also as in ``run-s test:*``."""
    calls = {word.removeprefix("npm:") for word in words}.union(*(_SHORT.get(word, ()) for word in words))
    # The events of an installation run what is around them even where they are no scripts themselves.
    return [name for name in scripts if any(fnmatchcase(name, call) for call in calls)] + sorted(
        {"install", "prepare"} & calls
    )


def files_configured(lines: Iterable[tuple[str, str]], base: frozenset[str], read: Read) -> Iterator[tuple[str, ...]]:
    """Configurations of test programs, and what they name by a key that loads code: files that each name can mean.

    Args:
        lines: commands that run, with their folders; they may name a configuration.
        base: every file of the base.
        read: the text of a file.
    """
    pending = sorted(filter(_CONFIGURATION.fullmatch, base), key=lambda path: (path.count("/"), path))[:MAX_FILES]
    pending += [normpath(join(folder, name)) for folder, line in lines for name in _NAMED.findall(line)]
    seen: set[str] = set()
    while pending and len(seen) < 2 * MAX_FILES:
        path = pending.pop(0)
        if path in seen or path not in base:
            continue
        seen.add(path)
        yield (path,)
        text = read(path) or ""
        if basename(path) == "package.json":
            text = json.dumps([_table(text, "jest"), _table(text, "mocha")])
        for key, files in _configured(text, dirname(path)):
            yield files
            pending += files if key in _MORE else ()


def _configured(text: str, folder: str) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Keys of a configuration with the files that a word of their values can mean, from the folder that it is in."""
    root = _ROOT.search(text)
    folders = {folder, join(folder, root[1])} if root else {folder}
    for found in _KEY.finditer(text):
        for word in re.split(r"[\s\"'`\[\]{}(),:]+", _value(text[found.end() : found.end() + MAX_VALUE])):
            # A bare name is a package's.
            for start in folders if re.search(r"[./]", word) else ():
                yield found[1], commands.as_node_finds_it(normpath(join(start, _ROOTED.sub("", word))))


def _value(text: str) -> str:
    """A value of JavaScript, JSON or YAML: to its closing bracket, else to the end of its line or list."""
    depth = 0
    for place, char in enumerate(text):
        depth += (char in "[{(") - (char in "]})")
        line_ends = char == "\n" and not _ITEM.match(text, place)
        if depth < 0 or (depth == 0 and (char in ",;" or line_ends)):
            return text[:place]
    return text


def _table(manifest: str | None, name: str) -> dict[str, object]:
    """A table of a ``package.json``; empty where there is none that can be read."""
    try:
        return dict(json.loads(manifest or "{}").get(name, {}))
    except (ValueError, AttributeError, TypeError, RecursionError):
        return {}
