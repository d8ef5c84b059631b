"""Writes docs/reference.md: every command with its arguments and options, as the program declares them.

``python tests/docs/reference.py`` writes it; a test compares.
"""

from pathlib import Path

from typer import Context
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

from goalrun.cli import fleet_commands, flow_commands, setup_commands  # noqa: F401 - each adds its commands to the app
from goalrun.cli.commands import app

PAGE = Path(__file__).resolve().parents[2] / "docs" / "reference.md"
HEAD = """# Commands and options

Written by `python tests/docs/reference.py` from the program itself. What the options mean in full, states, exit codes
and JSON are in [command line](cli.md). Every command also takes `-h` and `--help`.
"""


def reference() -> str:
    """The page."""
    return HEAD + _section("goalrun", get_command(app))


def _section(name: str, command: object) -> str:
    if not isinstance(command, TyperCommand | TyperGroup):
        raise TypeError(f"{name} is no command of typer's")
    context = Context(command, info_name=name)
    inner = command.commands if isinstance(command, TyperGroup) else {}
    below = [_section(f"{name} {word}", each) for word, each in inner.items() if not each.hidden]
    records = {parameter: parameter.get_help_record(context) for parameter in command.params}
    # Options that are hidden have no record.
    rows = [f"| `{_line(head)}` | {_cell(text)} |\n" for head, text in filter(None, records.values())]
    usage = " ".join([name, *command.collect_usage_pieces(context)])
    return "".join((
        f"\n## {name}\n\n{_cell(command.help or '')}\n",
        f"\n```text\n{usage}\n```\n",
        f"\n| name | means |\n|---|---|\n{''.join(rows)}" if rows else "",
        *below,
    ))  # fmt: skip


def _line(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _cell(text: str) -> str:
    return _line(text).replace("<", "&lt;")


if __name__ == "__main__":
    PAGE.write_text(reference(), encoding="utf-8")
