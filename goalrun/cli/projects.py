"""What a project probably wants checked: guesses from the files that are there, for a person to confirm."""

import json
import shutil
import sys
import tomllib
from contextlib import suppress
from pathlib import Path

import typer

from goalrun.adapters.home import Home
from goalrun.settings import Loaded

MAX_MANIFEST_BYTES = 1 << 20
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
    return [f"{python} -m unittest"] if tests else []


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
    limits = type(settings.limits)(**{**dict(settings.limits), "max_usd": usd})
    return Loaded(type(settings)(**{**dict(settings), "limits": limits}), {**loaded.sources, "limits.max_usd": "asked"})
