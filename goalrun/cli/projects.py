"""What a project probably wants checked: guesses from the files that are there, for a person to confirm."""

import json
import re
import shlex
import shutil
import sys
import tomllib
from contextlib import suppress
from pathlib import Path

import typer

from goalrun.adapters.home import Home
from goalrun.core.evidence import one_line
from goalrun.settings import Loaded

MAX_MANIFEST_BYTES = 1 << 20
MAX_WORKFLOWS = 20
_CHECK = re.compile(
    r"(?:(?:uv|poetry|pdm|hatch) run )?(?:python3? -m )?(?:pytest|unittest|tox|nox|ruff check|mypy|pyright|flake8)\b"
    r"|(?:npm|pnpm|yarn) (?:test|run (?:test|lint|type-?check))\b|npx (?:tsc|eslint|vitest|jest)\b"
    r"|cargo (?:test|clippy|check)\b|cargo fmt .*--check|go (?:test|vet)\b|make (?:check|test|lint)\b"
)
"""How commands begin that say whether a project is in order."""
ASKED = "asked-for-a-limit"
"""In the state folder: the question is put once."""


def proposed_checks(folder: Path, path: str | None) -> list[str]:
    """Checks that fit the project in a folder, most telling first."""
    return [*_python(folder, path), *_javascript(folder), *_rust(folder), *_go(folder), *_make(folder)]


def _python(folder: Path, path: str | None) -> list[str]:
    marks = ("pyproject.toml", "setup.py", "setup.cfg", "pytest.ini", "tox.ini", "requirements.txt")
    tests = any(folder.glob("test*/**/test_*.py")) or any(folder.glob("test_*.py"))
    if not tests and not any((folder / mark).is_file() for mark in marks):
        return []
    python = "python" if shutil.which("python", path=path) else "python3"
    uses_pytest = "pytest" in _text(folder / "pyproject.toml") + _text(folder / "requirements.txt")
    configured = (folder / "pytest.ini").is_file() or (folder / "conftest.py").is_file()
    if uses_pytest or configured or any(folder.glob("test*/conftest.py")) or shutil.which("pytest", path=path):
        return [f"{python} -m pytest -q"]
    return [f"{python} -m unittest{_where(folder)}"] if tests else []


def _where(folder: Path) -> str:
    """What makes unittest find tests in a folder that is no package: it passes over those ("Test Discovery")."""
    places = sorted({path.parent for path in folder.glob("test*/**/test_*.py")})
    found_as_it_is = any(folder.glob("test_*.py")) or any((place / "__init__.py").is_file() for place in places)
    return f" discover -s {shlex.quote(str(places[0].relative_to(folder)))}" if places and not found_as_it_is else ""


def _javascript(folder: Path) -> list[str]:
    with suppress(ValueError, AttributeError, TypeError):
        scripts = json.loads(_text(folder / "package.json") or "{}").get("scripts", {})
        if "test" in scripts and "no test specified" not in scripts["test"]:
            return ["npm test"]
    return []


def _rust(folder: Path) -> list[str]:
    with suppress(ValueError):
        return ["cargo test"] if tomllib.loads(_text(folder / "Cargo.toml")) else []
    return []


def _go(folder: Path) -> list[str]:
    return ["go test ./..."] if (folder / "go.mod").is_file() else []


def _make(folder: Path) -> list[str]:
    for name in ("Makefile", "makefile", "GNUmakefile"):
        targets = {line.partition(":")[0].strip() for line in _text(folder / name).splitlines() if ":" in line}
        for target in ("check", "test"):
            if target in targets:
                return [f"make {target}"]
    return []


def more_checks(folder: Path, path: str | None) -> dict[str, str]:
    """Checks that are good to propose, but not to take unasked, by the file that says so; what is proposed is first."""
    found: dict[str, str] = {}
    for file in sorted(folder.glob(".github/workflows/*.y*ml"))[:MAX_WORKFLOWS]:
        for command in ci_commands(_text(file)):
            found.setdefault(command, str(file.relative_to(folder)))
    manifest = _text(folder / "pyproject.toml")
    for tool, command in (("ruff", "ruff check"), ("mypy", "mypy"), ("tox", "tox -q")):
        if f"[tool.{tool}" in manifest and shutil.which(tool, path=path):
            found.setdefault(command, "pyproject.toml")
    if (folder / "tox.ini").is_file():
        found.setdefault("tox -q", "tox.ini")
    if (folder / "noxfile.py").is_file():
        found.setdefault("nox -s tests" if "def tests" in _text(folder / "noxfile.py") else "nox", "noxfile.py")
    with suppress(ValueError, AttributeError, TypeError):
        scripts = json.loads(_text(folder / "package.json") or "{}").get("scripts", {})
        for name in ("lint", "typecheck", "type-check"):
            if name in scripts:
                found.setdefault(f"npm run {name}", "package.json")
    return {command: source for command, source in found.items() if command not in proposed_checks(folder, path)}


def ci_commands(workflow: str) -> list[str]:
    """The commands of a workflow of GitHub's that look like checks: whole lines of ``run``, without placeholders.

    Read line by line, not as YAML: it is a guess that a person confirms.
    """
    found: list[str] = []
    deeper = -1
    for line in workflow.splitlines():
        text = line.strip()
        indent = len(line) - len(line.lstrip())
        if deeper >= 0 and text and indent <= deeper:
            deeper = -1
        key, _, value = text.removeprefix("- ").partition(":")
        if key.strip() == "run":
            deeper = indent if value.strip() in {"|", ">", "|-", ">-", "|+"} else -1
            text = value.strip().strip("\"'")
        elif deeper < 0:
            continue
        if _CHECK.match(text) and "${{" not in text and not text.endswith("\\"):
            found.append(one_line(text, 200))
    return list(dict.fromkeys(found))


def _text(path: Path) -> str:
    with suppress(OSError), path.open("rb") as file:
        return file.read(MAX_MANIFEST_BYTES).decode("utf-8", "replace")
    return ""


def ask_checks(proposed: list[str]) -> list[str]:
    """Ask a person, in a terminal, which checks decide."""
    typer.echo("No check is given. A goal is achieved when commands succeed; which?", err=True)
    for check in proposed:
        typer.echo(f"  found here: {check}", err=True)
    answer = typer.prompt("check", default=proposed[0] if proposed else None, err=True)
    checks = [answer.strip()]
    while answer := typer.prompt("another (empty to go on)", default="", show_default=False, err=True).strip():
        checks.append(answer)
    return checks


def with_limit(loaded: Loaded, home: Home) -> Loaded:
    """Settings with a limit of what is spent: at the very first start, in a terminal, a person is asked for one."""
    settings = loaded.settings
    asked = home.path / ASKED
    limited = any(f"limits.{name}" in loaded.sources for name in ("max_usd", "max_tokens", "max_time", "max_turns"))
    if limited or settings.worker_cmd or asked.exists() or not (sys.stdin.isatty() and sys.stderr.isatty()):
        return loaded
    typer.echo("A goal can spend a lot while you are away. How much may this one cost?", err=True)
    usd = typer.prompt("US dollars (0: no limit but the turns)", default=0.0, type=float, err=True)
    asked.touch()
    if usd <= 0:
        return loaded
    typer.echo("  --max-usd, or max_usd under [limits] in goalrun.toml, says so next time", err=True)
    limits = settings.limits.but(max_usd=usd)
    return Loaded(settings.but(limits=limits), {**loaded.sources, "limits.max_usd": "asked"})
