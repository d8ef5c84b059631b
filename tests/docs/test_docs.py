"""What the documentation says is true: commands, options, codes, keys, links, and the examples themselves."""

import os
import re
import sys
from functools import cache
from pathlib import Path
from typing import get_args

import pytest
from pydantic import BaseModel
from support import PYTHON, Program, git, told
from typer.testing import CliRunner

from goalrun.cli import fleet_commands, flow_commands, setup_commands  # noqa: F401 - each adds its commands to the app
from goalrun.cli.commands import app
from goalrun.core.model import EXIT_CODES, State
from goalrun.errors import WorkspaceBusy
from goalrun.settings import AgentSettings, Settings

ROOT = Path(__file__).resolve().parents[2]
PAGES = (ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md")))
IDS = [str(page.relative_to(ROOT)) for page in PAGES]
FOREIGN_OPTIONS = {
    *("--git", "--git-dir", "--output-format", "--permission-mode", "--stat", "--bare", "--allow-empty", "--no-verify"),
    "--verbose",
    *("--test", "--nocapture", "--unshare-user", "--security-opt", "--only", "--level", "--locked", "--user"),
    *("--seconds", "--quick"),
}
"""Options of other programs that the pages mention."""
FEWEST_EXAMPLES = 5
EXAMPLE_SECONDS = 100
NO_STATE = "\N{EN DASH}"
"""Stands in the table of exit codes where no state belongs to a code."""

FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
EXAMPLE = re.compile(r"^<!-- test: run -->\n```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]*")
COMMAND = re.compile(r"(?<!from )\bgoalrun ([a-z][a-z-]*)([^\n`]*)")


@cache
def help_of(*command: str) -> str:
    """What the program itself says of a command, asked in this process: there are some seventy."""
    shown = CliRunner().invoke(app, [*command, "--help"], prog_name="goalrun", env={"COLUMNS": "300"})
    assert shown.exit_code == 0, shown.output
    return shown.output


@cache
def commands() -> frozenset[str]:
    listing = help_of().partition("Commands:\n")[2]
    return frozenset(re.findall(r"^  ([a-z][a-z-]*) ", listing, re.MULTILINE))


@cache
def options(*command: str) -> frozenset[str]:
    """Every option of a command and of those below it, long and short; without a command, of the program itself."""
    page, _, below = help_of(*command).partition("Options:\n")[2].partition("Commands:\n")
    heads = re.findall(r"^  (-\S.*?)(?:  |$)", page, re.MULTILINE)
    found = {name for head in heads for name in re.findall(r"(?<![\w-])--?[A-Za-z][\w-]*", head)}
    inner = re.findall(r"^  ([a-z][a-z-]*) ", below, re.MULTILINE) if command else []
    return frozenset(found).union(*(options(*command, name) for name in inner))


@cache
def all_options() -> frozenset[str]:
    return frozenset().union(options(), *(options(command) for command in commands()))


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def code_in(text: str) -> list[str]:
    """The pieces of a page that are code: fenced blocks with their continued lines joined, then inline code."""
    blocks = [body.replace("\\\n", " ") for _, body in FENCE.findall(text)]
    return blocks + re.findall(r"`([^`]+)`", FENCE.sub("", text))


def table(text: str, heading: str) -> list[list[str]]:
    """The cells of the first table below a heading, without its head."""
    section = text.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", row)[1:-1]] for row in rows[2:]]


def sections() -> dict[str, str]:
    """The sections of docs/cli.md, by the commands that their headings name."""
    found = {}
    for section in read("docs/cli.md").split("\n## ")[1:]:
        heading, _, body = section.partition("\n")
        if heading.startswith("goalrun "):
            found.update(dict.fromkeys(heading.removeprefix("goalrun ").split(", "), body))
    return found


def settings_keys() -> list[str]:
    """Every key that a configuration file may hold, tables of agents as agents.NAME."""
    found: list[str] = []
    for name, field in Settings.model_fields.items():
        annotation = field.annotation
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            found += [f"{name}.{key}" for key in annotation.model_fields]
        else:
            found.append(name)
            if AgentSettings in get_args(annotation):
                found += [f"{name}.NAME.{key}" for key in AgentSettings.model_fields]
    return found


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as forges make them."""
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def examples() -> list[tuple[str, str]]:
    """The blocks that are marked to be run, each with its place."""
    found = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for match in EXAMPLE.finditer(text):
            line = text.count("\n", 0, match.start()) + 1
            found.append((f"{page.relative_to(ROOT)}:{line}", match[1]))
    return found


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_every_command_that_is_mentioned_exists_and_takes_the_options_given(page: Path) -> None:
    for code in code_in(page.read_text(encoding="utf-8")):
        for command, rest in COMMAND.findall(code):
            assert command in commands(), f"goalrun {command}"
            # What stands in quotes, or after the command's end, belongs to other programs.
            own = re.split(r"[#|;&>)]| — ", re.sub(r"'[^']*'|\"[^\"]*\"", "", rest))[0]
            used = set(re.findall(r"(?<!\S)--?[A-Za-z][\w-]*", own))
            assert used <= options(command), f"goalrun {command}{rest}"


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_every_option_that_is_mentioned_exists(page: Path) -> None:
    assert set(OPTION.findall(page.read_text(encoding="utf-8"))) <= all_options() | FOREIGN_OPTIONS


def test_every_command_and_option_is_in_the_command_line_page() -> None:
    described = sections()
    assert set(described) == commands()
    for command, text in described.items():
        named = set(re.findall(r"(?<![\w-])--?[A-Za-z][\w-]*", text))
        assert options(command) - {"-h", "--help"} - named == set(), command
    assert options() <= set(re.findall(r"(?<![\w-])--?[A-Za-z][\w-]*", read("docs/cli.md")))


def test_the_exit_code_table_is_the_programs() -> None:
    rows = table(read("docs/cli.md"), "States and exit codes")
    assert {State(state): int(code) for state, code, *_ in rows if state != NO_STATE} == dict(EXIT_CODES)
    others = {int(code) for state, code, *_ in rows if state == NO_STATE}
    assert others == {1, 2, WorkspaceBusy.exit_code, 12, 13}


def test_every_setting_is_in_the_configuration_page_and_nothing_else() -> None:
    text = read("docs/configuration.md")
    named = {row[0].strip("`") for heading in ("Keys", "Agents") for row in table(text, heading)}
    assert named == set(settings_keys())


def test_every_module_is_on_the_map() -> None:
    text = read("docs/architecture.md")
    modules = {path.name for path in (ROOT / "goalrun").rglob("*.py") if not path.name.startswith("__")}
    assert {name for name in modules if name not in text} == set()


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_relative_links_resolve(page: Path) -> None:
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    for target in re.findall(r"\]\(([^)]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        linked = (page.parent / path).resolve() if path else page
        assert linked.exists(), target
        assert not anchor or anchor in anchors(linked), target


def test_there_are_examples_to_run() -> None:
    assert len(examples()) >= FEWEST_EXAMPLES


@pytest.mark.parametrize(("place", "block"), examples(), ids=[place for place, _ in examples()])
def test_examples_run(place: str, block: str, tmp_path: Path) -> None:
    goalrun = tmp_path / "bin" / "goalrun"
    goalrun.parent.mkdir()
    goalrun.write_text(f'#!/bin/sh\nexec {PYTHON} -P -m goalrun "$@"\n', encoding="utf-8")
    goalrun.chmod(0o755)
    folder = tmp_path / "example"
    folder.mkdir()
    environment = Program(home=tmp_path / "state", cwd=folder).env()
    # Checks see the folders on PATH: the interpreter's own is one of them.
    path = os.pathsep.join((str(goalrun.parent), str(Path(sys.executable).parent), environment["PATH"]))
    environment |= {"PATH": path, "GIT_CONFIG_GLOBAL": "/dev/null"}
    done = told(["bash", "-eu", "-o", "pipefail", "-c", block], folder, environment, EXAMPLE_SECONDS)
    assert done.code == 0, f"{place}\n{done.out}"


def test_the_licence_and_the_changelog_name_this_program() -> None:
    assert "goalrun contributors" in read("LICENSE")
    assert "0.1.0" in read("CHANGELOG.md")
    assert git(ROOT, "--version")
