"""The commands about flows, declared."""

import inspect
from pathlib import Path
from typing import Annotated

import typer

from goalrun.cli import commands, completion, options

flow = typer.Typer(help="Workflows: steps that are agents, commands, people, and each other.")
commands.app.add_typer(flow, name="flow")

Name = Annotated[
    str,
    typer.Argument(
        metavar="FLOW",
        help="A name, or a file (.toml, .json).",
        autocompletion=completion.flows,
    ),
]
Words = Annotated[
    list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Its arguments; text alone is the first one.")
]


@flow.command("run")
def run(
    name: Name,
    words: Words = None,
    worker: Annotated[
        str | None,
        typer.Option(
            "-w",
            "--worker",
            metavar="NAME",
            help="The agent of steps that name none.",
            autocompletion=completion.workers,
        ),
    ] = None,
    worker_cmd: options.WorkerCmd = None,
    max_tokens: options.MaxTokens = None,
    max_usd: options.MaxUsd = None,
    max_time: options.MaxTime = None,
    turn_timeout: options.TurnTimeout = None,
    no_wait: options.NoWait = False,
    detach: options.Detach = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
    as_json: options.AsJson = False,
) -> int:
    """Run a flow: exit 0 done, 14 failed, 6 blocked, 9 waiting for a person."""
    from goalrun.cli import running, starting, wrapping

    who = None if worker is None else [worker]
    flags = starting.flags(
        worker=who,
        worker_cmd=worker_cmd,
        max_tokens=max_tokens,
        max_usd=max_usd,
        max_time=max_time,
        turn_timeout=turn_timeout,
    )
    loud = running.loudness(quiet=quiet, verbose=verbose)
    asked = starting.Asked("", None, flags, force=False, no_wait=no_wait, detach=detach, as_json=as_json, loud=loud)
    return wrapping.run_flow(name, tuple(words or ()), asked)


@flow.command("list")
def list_flows(as_json: options.AsJson = False) -> int:
    """All flows of this project, of the user, and of goalrun itself."""
    from goalrun.cli import flows

    return flows.listed(as_json=as_json)


@flow.command()
def show(
    name: Name,
    graph: Annotated[bool, typer.Option("--graph", help="Draw what waits for what.")] = False,
    mermaid: Annotated[bool, typer.Option("--mermaid", help="The drawing as text for Mermaid.")] = False,
    as_json: options.AsJson = False,
) -> int:
    """What a flow takes, and what it does in which order."""
    from goalrun.cli import flows

    return flows.show(name, "mermaid" if mermaid else "graph" if graph else "plan", as_json=as_json)


@flow.command()
def check(name: Name, as_json: options.AsJson = False) -> int:
    """Prove a flow before anything is spent; exit 2 with all that is wrong."""
    from goalrun.cli import flows

    return flows.check(name, as_json=as_json)


@flow.command()
def schema() -> int:
    """Print the JSON Schema of flow files, for editors."""
    from goalrun.cli.render import print_json
    from goalrun.flows.schema import flow_schema

    print_json(flow_schema())
    return 0


@flow.command("import")
def import_flow(
    file: Annotated[Path, typer.Argument(metavar="FILE.json", help="A definition of pi-taskflow.")],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="FILE.toml", help="Where it goes; else it is printed.")
    ] = None,
    name: Annotated[str, typer.Option("--name", metavar="NAME", help="What the flow is called.")] = "",
) -> int:
    """Turn a definition of pi-taskflow into a flow; what cannot be kept is told."""
    from goalrun.cli import importing

    return importing.import_flow(file, output, name)


def wrap(name: str, objective: str, words: list[str] | None = None, **options: object) -> int:
    """Put a goal around a flow: it runs again, with what failed as feedback, until the checks pass."""
    from goalrun.cli import starting, wrapping

    return wrapping.wrap(name, tuple(words or ()), starting.asked(objective=objective, **options))


def _with_options_of_start() -> None:
    """``wrap`` takes what ``start`` takes, declared once."""
    own = inspect.Parameter
    first = [
        own("name", own.KEYWORD_ONLY, annotation=Name),
        own("objective", own.KEYWORD_ONLY, annotation=Annotated[str, typer.Argument(help="What is to be reached.")]),
        own("words", own.KEYWORD_ONLY, annotation=Words, default=None),
    ]
    rest = [
        each.replace(kind=own.KEYWORD_ONLY)
        for name, each in inspect.signature(commands.start).parameters.items()
        if name not in {"objective", "strategy"}
    ]
    signature = inspect.Signature([*first, *rest], return_annotation=int)
    wrap.__signature__ = signature  # type: ignore[attr-defined]
    wrap.__annotations__ = {name: each.annotation for name, each in signature.parameters.items()}


_with_options_of_start()
commands.app.command()(wrap)


@commands.app.command()
def answer(
    goal: Annotated[
        str,
        typer.Argument(
            help="An id or a unique prefix; may be left out.",
            autocompletion=completion.goals,
        ),
    ],
    text: Annotated[
        str,
        typer.Argument(
            metavar="yes|no|TEXT",
            help="no: REASON says why.",
            autocompletion=completion.among("yes", "no"),
        ),
    ] = "",
    detach: Annotated[bool, typer.Option("-d", "--detach", help="Go on in the background.")] = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
    as_json: options.AsJson = False,
) -> int:
    """Answer what a goal or a flow waits for, and go on with it."""
    from goalrun.cli import running, wrapping

    loud = running.loudness(quiet=quiet, verbose=verbose)
    how = running.How(hint="", no_wait=False, detach=detach, as_json=as_json, loud=loud)
    return wrapping.answer(goal, text, how) if text else wrapping.answer("", goal, how)
