"""The commands about a fleet, declared."""

from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from goalrun.cli import commands, options
from goalrun.errors import SettingsError

fleet = typer.Typer(help="Goals over several machines, from a queue in PostgreSQL.")
commands.app.add_typer(fleet, name="fleet")


@fleet.callback()
def require_extra() -> None:
    """Goals over several machines, from a queue in PostgreSQL."""
    missing = [name for name in ("procrastinate", "prometheus_client", "psycopg") if find_spec(name) is None]
    if missing:
        raise SettingsError(f"goalrun fleet needs {' and '.join(missing)}", hint="pip install 'goalrun[fleet]'")


Database = Annotated[
    str,
    typer.Option("--database", metavar="URL", help="postgresql://…; else $GOALRUN_FLEET_URL, which others do not see."),
]
Goal = Annotated[str, typer.Argument(help="An id, a unique prefix, or a key.")]
AnyGoal = Annotated[str, typer.Argument(help="An id, a unique prefix, or a key; left out: the whole fleet.")]
Submitted = Annotated[str, typer.Option("--submission", metavar="NAME", help="Only goals of this submission.")]


@fleet.command()
def init(
    database: Database = "",
    heartbeat: Annotated[
        str | None, typer.Option("--heartbeat", metavar="TIME", help="How often workers speak up (20s).")
    ] = None,
    as_json: options.AsJson = False,
) -> int:
    """Make the fleet's tables, or bring them up to date."""
    from goalrun.cli import fleet_acting

    return fleet_acting.init(database, heartbeat, as_json=as_json)


@fleet.command()
def submit(
    file: Annotated[
        Path | None, typer.Argument(metavar="[FILE.toml]", help="A submission of any number of goals.")
    ] = None,
    database: Database = "",
    repo: Annotated[str, typer.Option("--repo", metavar="URL", help="One goal, for this repository.")] = "",
    ref: Annotated[str, typer.Option("--ref", metavar="REF", help="A branch, tag or commit of it (main).")] = "main",
    objective: Annotated[str, typer.Option("--objective", metavar="TEXT", help="What is to be reached.")] = "",
    worker: Annotated[str | None, typer.Option("-w", "--worker", metavar="NAME", help="The agent.")] = None,
    check: options.Checks = None,
    key: Annotated[str | None, typer.Option("--key", metavar="KEY", help="Refused where it is known already.")] = None,
    priority: Annotated[int, typer.Option("--priority", metavar="N", help="Higher ones are begun first (0).")] = 0,
    label: Annotated[
        list[str] | None, typer.Option("--label", metavar="NAME", help="That a worker has to have; repeatable.")
    ] = None,
    account: Annotated[
        str | None, typer.Option("--account", metavar="NAME", help="Whose quota it uses (the agent's name).")
    ] = None,
    submitter: Annotated[
        str, typer.Option("--submitter", metavar="NAME", help="In whose name (yours on this machine).")
    ] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be queued.")] = False,
    as_json: options.AsJson = False,
) -> int:
    """Queue goals: those of a file, or one."""
    one = {
        "repo": repo, "ref": ref, "objective": objective, "worker": worker, "checks": check, "key": key,
        "priority": priority, "labels": label, "account": account,
    }  # fmt: skip
    from goalrun.cli import fleet_acting

    return fleet_acting.submit(file, database, one, submitter, dry_run=dry_run, as_json=as_json)


@fleet.command()
def worker(
    database: Database = "",
    name: Annotated[str, typer.Option("--name", metavar="NAME", help="Of this worker (host and pid).")] = "",
    slots: Annotated[int, typer.Option("--slots", metavar="N", min=1, max=256, help="Goals at once (1).")] = 1,
    labels: Annotated[str, typer.Option("--labels", metavar="A,B", help="What goals may ask for.")] = "",
    no_push: Annotated[bool, typer.Option("--no-push", help="Deliver bundles, not branches.")] = False,
    credentials: Annotated[
        Path | None, typer.Option("--credentials", metavar="FILE", help="A git configuration for clone and push alone.")
    ] = None,
) -> int:
    """Work on goals until told to end."""
    from goalrun.cli import fleet_acting

    return fleet_acting.work(database, name, slots, labels, push=not no_push, credentials=credentials)


@fleet.command("list")
def list_goals(
    database: Database = "",
    submission: Submitted = "",
    state: Annotated[str, typer.Option("--state", metavar="STATE", help="Only goals in this state.")] = "",
    as_json: options.AsJson = False,
) -> int:
    """The goals of the fleet, newest first."""
    from goalrun.cli import fleet_reading

    return fleet_reading.listed(database, submission, state, as_json=as_json)


@fleet.command()
def status(goal: AnyGoal = "", database: Database = "", as_json: options.AsJson = False) -> int:
    """How the fleet stands, what was spent, who works; or how one goal stands."""
    from goalrun.cli import fleet_reading

    return fleet_reading.status(database, goal, as_json=as_json)


@fleet.command()
def show(
    goal: Goal,
    database: Database = "",
    bundle: Annotated[
        Path | None, typer.Option("--bundle", metavar="FILE", help="Write what was delivered as a bundle here.")
    ] = None,
    as_json: options.AsJson = False,
) -> int:
    """A goal turn by turn."""
    from goalrun.cli import fleet_reading

    return fleet_reading.show(database, goal, bundle, as_json=as_json)


@fleet.command()
def logs(
    goal: Goal,
    database: Database = "",
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Until the goal ends.")] = False,
    as_json: options.AsJson = False,
) -> int:
    """A goal record by record."""
    from goalrun.cli import fleet_reading

    return fleet_reading.logs(database, goal, follow=follow, as_json=as_json)


@fleet.command()
def watch(
    goal: AnyGoal = "", database: Database = "", submission: Submitted = "", as_json: options.AsJson = False
) -> int:
    """Wait until a goal, or all of them, are over; exits as the goal does, or as the first that was not achieved."""
    from goalrun.cli import fleet_reading

    return fleet_reading.watch(database, goal, submission, as_json=as_json)


@fleet.command()
def web(
    database: Database = "",
    port: Annotated[int, typer.Option("--port", metavar="N", min=0, max=65535, help="Any free one.")] = 0,
    no_browser: Annotated[bool, typer.Option("--no-browser", help="Open no browser.")] = False,
    read_only: Annotated[bool, typer.Option("--read-only", help="Only look.")] = False,
    metrics_token: Annotated[
        Path | None,
        typer.Option("--metrics-token", metavar="FILE", help="Who sends what it holds may read /metrics, and no more."),
    ] = None,
) -> int:
    """Show the fleet as live pages and metrics, on this machine alone; print their address."""
    from goalrun.cli import fleet_web

    return fleet_web.web(database, port, metrics_token, browser=not no_browser, read_only=read_only)


@fleet.command()
def stop(
    goal: AnyGoal = "", database: Database = "", submission: Submitted = "", as_json: options.AsJson = False
) -> int:
    """Stop a goal, or those of a submission."""
    from goalrun.cli import fleet_acting

    return fleet_acting.end(database, goal, submission, "stop", as_json=as_json)


@fleet.command()
def pause(
    goal: AnyGoal = "", database: Database = "", submission: Submitted = "", as_json: options.AsJson = False
) -> int:
    """Pause a goal, or those of a submission."""
    from goalrun.cli import fleet_acting

    return fleet_acting.end(database, goal, submission, "pause", as_json=as_json)


@fleet.command()
def resume(
    goal: Goal,
    database: Database = "",
    hint: Annotated[str, typer.Option("--hint", metavar="TEXT", help="For the next turn.")] = "",
    max_turns: options.MaxTurns = None,
    max_tokens: options.MaxTokens = None,
    max_usd: options.MaxUsd = None,
    max_time: options.MaxTime = None,
    as_json: options.AsJson = False,
) -> int:
    """Queue a goal that has ended, to go on from its last record."""
    limits = {"max_turns": max_turns, "max_tokens": max_tokens, "max_usd": max_usd, "max_time": max_time}
    given = {key: value for key, value in limits.items() if value is not None}
    from goalrun.cli import fleet_acting

    return fleet_acting.resume(database, goal, hint, given, as_json=as_json)


@fleet.command()
def retry(goal: Goal, database: Database = "", as_json: options.AsJson = False) -> int:
    """Queue the same goal again, from the start and under a new id."""
    from goalrun.cli import fleet_acting

    return fleet_acting.retry(database, goal, as_json=as_json)


@fleet.command()
def drain(
    name: Annotated[str, typer.Argument(metavar="WORKER", help="Its name.")],
    database: Database = "",
    as_json: options.AsJson = False,
) -> int:
    """Have a worker begin nothing more, and end when its goals are over."""
    from goalrun.cli import fleet_acting

    return fleet_acting.drain(database, name, as_json=as_json)


@fleet.command()
def limit(
    scope: Annotated[str, typer.Argument(metavar="day|submission|account|label", help="What is bounded.")],
    name: Annotated[str, typer.Argument(metavar="[NAME]", help="Which one; none for day.")] = "",
    database: Database = "",
    max_usd: Annotated[float | None, typer.Option("--max-usd", metavar="X", help="US dollars in all.")] = None,
    max_tokens: Annotated[int | None, typer.Option("--max-tokens", metavar="N", help="Tokens in all.")] = None,
    at_once: Annotated[
        int | None, typer.Option("--at-once", metavar="N", help="Goals at once, of an account or label.")
    ] = None,
    as_json: options.AsJson = False,
) -> int:
    """Bound what the fleet spends, or how much of one kind it does at once."""
    from goalrun.cli import fleet_acting

    return fleet_acting.limit(database, scope, name, (max_usd, max_tokens, at_once), as_json=as_json)
