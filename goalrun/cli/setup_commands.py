"""The commands about the machine, the project and goalrun itself, declared."""

from typing import Annotated

import typer

from goalrun.cli import completion, options
from goalrun.cli.commands import app

agents = typer.Typer(help="Which agents are installed, how they are driven, and what they can report.")
app.add_typer(agents, name="agents")


@app.command()
def init(yes: Annotated[bool, typer.Option("--yes", help="Ask nothing.")] = False) -> int:
    """Propose checks for this project; write goalrun.toml."""
    from goalrun.cli import init as conversation

    return conversation.init(yes=yes)


@app.command()
def doctor(as_json: options.AsJson = False) -> int:
    """What works here, and what to do about the rest."""
    from goalrun.cli import doctor as examination

    return examination.doctor(as_json=as_json)


@agents.callback(invoke_without_command=True)
def list_agents(context: typer.Context, as_json: options.AsJson = False) -> int:
    """Which agents are installed, how they are driven, and what they can report."""
    from goalrun.cli import agents as body

    return 0 if context.invoked_subcommand else body.listed(as_json=as_json)


@agents.command("test")
def try_agent(
    name: Annotated[
        str,
        typer.Argument(
            help="An agent.",
            autocompletion=completion.workers,
        ),
    ],
    as_json: options.AsJson = False,
) -> int:
    """Make one small real call in a folder that is thrown away: it costs what that costs."""
    from goalrun.cli import agents as body

    return body.trial(name, as_json=as_json)


@app.command()
def clean(
    older_than: Annotated[str, typer.Option("--older-than", metavar="TIME", help="Keep what is younger (0s).")] = "0s",
    keep: Annotated[int, typer.Option("--keep", metavar="N", min=0, help="Keep each workspace's N newest (0).")] = 0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    as_json: options.AsJson = False,
) -> int:
    """Remove achieved goals, never one to resume."""
    from goalrun.cli import setup

    return setup.clean(older_than, keep, dry_run=dry_run, as_json=as_json)


@app.command()
def config(as_json: options.AsJson = False) -> int:
    """The settings in force, and where each comes from."""
    from goalrun.cli import setup

    return setup.config(as_json=as_json)


@app.command()
def demo(as_json: options.AsJson = False) -> int:
    """See it work in seconds: no model, no key."""
    from goalrun.cli import demo as demonstration

    return demonstration.demo(as_json=as_json)
