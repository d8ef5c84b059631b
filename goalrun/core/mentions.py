"""What checks are made of beside the files that they name: fragments, scripts and plugins, found in the base. Pure.

Only what cannot be the product itself counts: a script of shell that runs another one may be testing it, so nothing is
followed from file to file but by programs whose work is to run others: make, npm, tox, nox.
"""

import re
from collections.abc import Callable, Iterator
from functools import cache
from itertools import chain
from posixpath import basename, dirname, join, normpath

from goalrun.core import commands, javascript
from goalrun.core.makefiles import Make
from goalrun.core.value import Value

PYTEST_FILES = ("pyproject.toml", "pytest.ini", ".pytest.ini", "pytest.toml", "tox.ini", "setup.cfg")
MAX_LINES = 1_000
RUNNER_FILES = {"tox": ("tox.ini", "tox.toml", "setup.cfg", "pyproject.toml"), "nox": ("noxfile.py",)}
_PLUGIN_OPTION = re.compile(r"(?:^|[\s\"',\[])-p[\s\"',]+([A-Za-z_][\w.]*)")
_PLUGIN_LIST = re.compile(r"pytest_plugins\s*=\s*([(\[]?[^)\]\n]*(?:\n[^)\]]*)?[)\]]?)")
_SECTION = re.compile(r"^\[+([A-Za-z][^\]\[\"']*)\]+\s*$", re.MULTILINE)
_OF_TOX = re.compile(r"tox|testenv|tool\.tox")
_ARGUMENTS = re.compile(r"(?:.*/)?[^./]+|.*\.(?:cfg|ini|toml|txt)")
_CALL = re.compile(r"\bsession\.\w+\(")
_KEY = re.compile(r"^\s*[\w-]+\s*=|\{(?:toxinidir|tox_root)\}[/\\]?|[\[\](),]")
Read = Callable[[str], str | None]


class Mentions(Value):
    """Paths of the workspace.

    Attributes:
        files: of the base; part of the checks.
        absent: not in the base, some of them globs; if they appeared, the checks would mean something else.
        made: not in the base: what the checks make, and would take for made if it was there.
    """

    files: frozenset[str] = frozenset()
    absent: frozenset[str] = frozenset()
    made: frozenset[str] = frozenset()


def mentioned(checks: tuple[str, ...], subfolder: str, base: frozenset[str], read: Read) -> Mentions:
    """What the checks of a goal are made of.

    Args:
        checks: the commands.
        subfolder: where they start.
        base: every file of the base.
        read: the text of a file of the base; None where it is none.
    """
    read = cache(read)
    files: set[str] = set()
    absent: set[str] = set()
    make = Make(base, read)
    lines = [(subfolder, check) for check in checks]
    for folder, line in lines:  # it grows on the way
        scripts = list(javascript.lines_run(line, folder, base, read))
        more = dict.fromkeys([*make.follow(line, folder), *scripts])
        lines += [each for each in more if each not in lines and len(lines) < MAX_LINES]
        files.update(
            commands.scripts(line, folder), _expected(line, folder, base, read), _of_runners(line, folder, read)
        )
        absent |= commands.sourced(line, folder)
        for place, script in scripts:
            files.update(normpath(join(place, word)) for word in commands.named_words(script) if "." in word)
    nodes = (found for folder, line in lines for found in commands.modules_of_node(line, folder))
    for meant in chain(nodes, javascript.files_configured(lines, base, read), _plugins(checks, subfolder, base, read)):
        if not base.isdisjoint(meant):
            files.update(meant)
            absent.update(meant)
    return Mentions(
        files=frozenset((files | make.files) & base),
        absent=frozenset(name for name in (absent | make.fragments) - base if not name.startswith("..")),
        made=frozenset(make.targets - base),
    )


def _expected(check: str, subfolder: str, base: frozenset[str], read: Read) -> Iterator[str]:
    """Expected results that the check compares with, or a script of it."""
    yield from commands.compared(check, subfolder)
    for word in set(commands.words(check)):
        script = normpath(join(subfolder, word))
        if script in base and (script.endswith((".sh", ".bash")) or "." not in basename(script)):
            yield from commands.compared(read(script) or "", subfolder)


def _of_runners(check: str, subfolder: str, read: Read) -> Iterator[str]:
    """Files that the commands of tox and nox name, where the check runs them."""
    for runner in RUNNER_FILES.keys() & set(commands.words(check)):
        for name in RUNNER_FILES[runner]:
            path = normpath(join(subfolder, name))
            text = read(path) or ""
            lines = _CALL.split(text) if runner == "nox" else _lines_of_tox(text, whole=name == "tox.toml")
            for line in lines:
                plain = re.sub(r"\s+", " ", _KEY.sub(" ", line).replace('"', " ").replace("'", " ")).lstrip(" -!")
                yield from (normpath(join(subfolder, word)) for word in commands.named_words(plain))


def _lines_of_tox(text: str, *, whole: bool) -> Iterator[str]:
    """The lines of tox's own sections; in ``tox.toml`` every section is."""
    parts = _SECTION.split(text)
    sections = zip(parts[1::2], parts[2::2], strict=True)
    for body in [parts[0], *(body for name, body in sections if whole or _OF_TOX.match(name))]:
        yield from body.splitlines()


def _plugins(checks: tuple[str, ...], subfolder: str, base: frozenset[str], read: Read) -> Iterator[tuple[str, str]]:
    """Modules of the workspace that pytest loads as plugins, each as a file and as a package."""
    named = {normpath(join(subfolder, word)) for check in checks for word in commands.named_words(check)}
    names: set[str] = set()
    for check in checks:
        names.update(_PLUGIN_OPTION.findall(check))
    for path in base:
        name = basename(path)
        if name == "conftest.py":
            for listed in _PLUGIN_LIST.findall(read(path) or ""):
                names.update(re.findall(r"[\"']([\w.]+)[\"']", listed))
        elif (path in named and _ARGUMENTS.fullmatch(path)) or (name in PYTEST_FILES and dirname(path).count("/") < 2):  # noqa: PLR2004 - near the top
            names.update(_PLUGIN_OPTION.findall(read(path) or ""))
    for module in names:
        path = module.replace(".", "/")
        yield from ((f"{top}{path}.py", f"{top}{path}/__init__.py") for top in ("", "src/", "tests/", "lib/"))
