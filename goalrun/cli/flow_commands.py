"""``goalrun flow``: its commands and options, declared."""

from typing import Annotated

import typer

flow = typer.Typer(help="Flows: workers of several steps.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(metavar="NAME|FILE", help="A flow's name, or the path of its file.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")]


@flow.command("list")
def list_flows(as_json: AsJson = False) -> int:
    """All flows of this project, of the user, and of goalrun itself."""
    from goalrun.cli import flows

    return flows.listed(as_json=as_json)


@flow.command()
def show(
    name: Name,
    graph: Annotated[bool, typer.Option("--graph", help="Draw what waits for what.")] = False,
    mermaid: Annotated[bool, typer.Option("--mermaid", help="The drawing as text for Mermaid.")] = False,
    as_json: AsJson = False,
) -> int:
    """What a flow takes, and what it does in which order."""
    from goalrun.cli import flows

    return flows.show(name, "mermaid" if mermaid else "graph" if graph else "plan", as_json=as_json)


@flow.command()
def check(name: Name, as_json: AsJson = False) -> int:
    """Prove a flow before anything is spent; exit 2 with all that is wrong."""
    from goalrun.cli import flows

    return flows.check(name, as_json=as_json)
