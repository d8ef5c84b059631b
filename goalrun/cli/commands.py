"""The commands about goals, declared. The bodies are in the modules beside this one, imported when they run."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from goalrun.cli import completion, options

if TYPE_CHECKING:
    from goalrun.cli.live import Loudness
    from goalrun.cli.running import Asked

app = typer.Typer(
    help="Hand a coding agent a goal and walk away: turn after turn, every turn checked where the agent cannot reach.",
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.callback(invoke_without_command=True)
def root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", "-V", help="Print the version.")] = False,
) -> None:
    """Hand a coding agent a goal and walk away."""
    if version:
        from goalrun import __version__

        typer.echo(f"goalrun {__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


@app.command()
def start(
    objective: Annotated[str, typer.Argument(help="What is to be reached, in words.")] = "",
    file: Annotated[
        Path | None,
        typer.Option("-f", "--file", help="A goal file (.toml), or a text file that holds the objective."),
    ] = None,
    worker: Annotated[
        list[str] | None,
        typer.Option(
            "-w",
            "--worker",
            metavar="NAME[,NAME]",
            help="An agent, and those that stand in for it; see --strategy.",
            autocompletion=completion.workers,
        ),
    ] = None,
    strategy: Annotated[
        str | None,
        typer.Option(
            "--strategy",
            metavar="compete|synthesize",
            help="How several -w do it: the checks pick one, or one merges.",
            autocompletion=completion.among("compete", "synthesize"),
        ),
    ] = None,
    worker_cmd: options.WorkerCmd = None,
    check: options.Checks = None,
    hidden_check: Annotated[
        list[str] | None,
        typer.Option("--hidden-check", metavar="CMD", help="A check that the worker is not shown; repeatable."),
    ] = None,
    hidden_files: Annotated[
        str | None,
        typer.Option("--hidden-files", metavar="DIR", help="Files for hidden checks: they are in $GOALRUN_HIDDEN."),
    ] = None,
    judge: Annotated[
        list[str] | None,
        typer.Option(
            "-j",
            "--judge",
            metavar="NAME",
            help="An agent, PROVIDER:MODEL, or none; all that are given have to agree.",
            autocompletion=completion.judges,
        ),
    ] = None,
    judge_cmd: Annotated[str | None, typer.Option("--judge-cmd", metavar="CMD", help="A command that judges.")] = None,
    judge_only: Annotated[bool, typer.Option("--judge-only", help="No checks: the judge decides alone.")] = False,
    protect: options.Protect = None,
    may_change: options.MayChange = None,
    pass_env: options.PassEnv = None,
    verify_in: Annotated[
        str | None,
        typer.Option(
            "--verify-in",
            metavar="worktree|live",
            help="live: check the workspace itself; such passes are weak.",
            autocompletion=completion.among("worktree", "live"),
        ),
    ] = None,
    protected_edits: Annotated[
        str | None,
        typer.Option(
            "--protected-edits",
            metavar="reject|restore",
            help="restore: undo them after the turn.",
            autocompletion=completion.among("reject", "restore"),
        ),
    ] = None,
    deps: options.Deps = None,
    prepare: options.Prepare = None,
    sandbox: options.SandboxLevel = None,
    require_sandbox: options.RequireSandbox = False,
    network: options.Network = False,
    jobs: options.Jobs = None,
    no_baseline: options.NoBaseline = False,
    require_strong: options.RequireStrong = False,
    worker_isolation: Annotated[
        str | None,
        typer.Option(
            "--worker-isolation",
            metavar="auto|off",
            help="auto: hide goalrun's state and processes from it.",
            autocompletion=completion.among("auto", "off"),
        ),
    ] = None,
    max_turns: options.MaxTurns = None,
    max_tokens: options.MaxTokens = None,
    max_usd: options.MaxUsd = None,
    max_time: options.MaxTime = None,
    turn_timeout: options.TurnTimeout = None,
    check_timeout: options.CheckTimeout = None,
    stuck_after: options.StuckAfter = None,
    allow_unknown_spend: options.AllowUnknownSpend = False,
    no_wait_quota: Annotated[
        bool, typer.Option("--no-wait-quota", help="End in rate_limited at a provider's limit, not wait for its end.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Run the worker even if everything passes already.")] = False,
    worktree: Annotated[
        bool, typer.Option("--worktree", help="Work in a clone of the repository; deliver a branch goalrun/ID.")
    ] = False,
    no_wait: options.NoWait = False,
    detach: Annotated[bool, typer.Option("-d", "--detach", help="Run in the background and print the id.")] = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
    as_json: options.AsJson = False,
) -> int:
    """Run a goal until it is achieved or a limit stops it."""
    options = dict(locals())
    from goalrun.cli import running

    return running.start(asked(**options))


def asked(**given: Any) -> "Asked":  # noqa: ANN401 - options of several types
    """What ``start`` was asked for, out of its options."""
    from goalrun.cli import running

    same = (
        "strategy", "worker_cmd", "judge_cmd", "worker_isolation", "hidden_files", "protect", "may_change", "pass_env",
        "verify_in", "protected_edits", "sandbox", "deps", "prepare", "max_turns", "max_tokens", "max_usd", "max_time",
        "turn_timeout", "check_timeout", "stuck_after", "jobs",
    )  # fmt: skip
    switched_on = ("judge_only", "require_sandbox", "network", "require_strong", "allow_unknown_spend")
    workers = given["worker"] or []
    flags = running.flags(
        worker=workers[0] if len(workers) == 1 else None,
        workers=workers if len(workers) > 1 else None,
        checks=given["check"],
        judges=given["judge"],
        hidden_checks=given["hidden_check"],
        baseline=False if given["no_baseline"] else None,
        wait_quota=False if given["no_wait_quota"] else None,
        **{name: given.get(name) for name in same},
        **{name: given[name] or None for name in switched_on},
    )
    return running.Asked(
        given["objective"],
        given["file"],
        flags,
        force=given["force"],
        no_wait=given["no_wait"],
        detach=given["detach"],
        as_json=given["as_json"],
        worktree=given["worktree"],
        loud=loudness(quiet=given["quiet"], verbose=given["verbose"]),
    )


def loudness(*, quiet: bool, verbose: bool) -> "Loudness":
    """How much a run shows of itself.

    Raises:
        SpecError: both less and more are asked for.
    """
    if quiet and verbose:
        from goalrun.errors import SpecError

        raise SpecError("--quiet and --verbose exclude each other", hint="leave out one of them")
    return "quiet" if quiet else "verbose" if verbose else "normal"


@app.command()
def resume(
    goal: options.Goal = "",
    every: Annotated[
        bool, typer.Option("--all", help="In the background, every goal whose process is gone (after a reboot).")
    ] = False,
    hint: Annotated[str, typer.Option("--hint", metavar="TEXT", help="Something for the next turn.")] = "",
    max_turns: options.MaxTurns = None,
    max_tokens: options.MaxTokens = None,
    max_usd: options.MaxUsd = None,
    max_time: options.MaxTime = None,
    turn_timeout: options.TurnTimeout = None,
    check_timeout: options.CheckTimeout = None,
    stuck_after: options.StuckAfter = None,
    allow_unknown_spend: options.AllowUnknownSpend = False,
    salvage: Annotated[
        bool, typer.Option("--salvage", help="Go on from the last good record of a damaged journal, which is kept.")
    ] = False,
    flow: Annotated[bool, typer.Option("--flow", help="Read the flow's file again, as it is now.")] = False,
    no_wait: options.NoWait = False,
    detach: Annotated[bool, typer.Option("-d", "--detach", help="Run in the background and print the id.")] = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
    as_json: options.AsJson = False,
) -> int:
    """Go on with a goal that is not achieved yet."""
    from goalrun.cli import running
    from goalrun.errors import SpecError

    if flow:
        from goalrun.cli import wrapping

        wrapping.read_again(goal)
    changes = {
        "max_turns": max_turns, "max_tokens": max_tokens, "max_usd": max_usd, "max_time": max_time,
        "turn_timeout": turn_timeout, "check_timeout": check_timeout, "stuck_after": stuck_after,
        "allow_unknown_spend": "1" if allow_unknown_spend else None,
    }  # fmt: skip
    given = {key: value for key, value in changes.items() if value is not None}
    if every and (goal or hint or given or no_wait or salvage):
        raise SpecError("--all takes no goal, hint, limit, --salvage or --no-wait", hint="goalrun resume --all")
    if every:
        return running.resume_all(as_json=as_json)
    loud = loudness(quiet=quiet, verbose=verbose)
    how = running.How(hint=hint, no_wait=no_wait, detach=detach, as_json=as_json, salvage=salvage, loud=loud)
    return running.resume(goal, given, how)


@app.command()
def step(goal: options.Goal = "", as_json: options.AsJson = False) -> int:
    """Run one turn, then pause."""
    from goalrun.cli import acting

    return acting.step(goal, as_json=as_json)


@app.command()
def pause(goal: options.Goal = "", as_json: options.AsJson = False) -> int:
    """Pause a running goal at once."""
    from goalrun.cli import acting

    return acting.end(goal, "pause", as_json=as_json)


@app.command()
def stop(goal: options.Goal = "", as_json: options.AsJson = False) -> int:
    """Stop a goal at once."""
    from goalrun.cli import acting

    return acting.end(goal, "stop", as_json=as_json)


@app.command()
def hint(
    goal: Annotated[
        str,
        typer.Argument(
            help="An id or a unique prefix; may be left out.",
            autocompletion=completion.goals,
        ),
    ],
    text: Annotated[str, typer.Argument(help="What the next turn should know.")] = "",
) -> int:
    """Tell the next turn something."""
    from goalrun.cli import acting

    return acting.hint(goal, text) if text else acting.hint("", goal)


@app.command("run-detached", hidden=True)
def run_detached(
    goal: options.NeededGoal,
    limits: Annotated[str, typer.Option("--limits")] = "",
    no_wait: options.NoWait = False,
) -> int:
    """Run a goal in the background; started by --detach."""
    from goalrun.cli import running

    return running.run_detached(goal, limits, no_wait=no_wait)


@app.command("list")
def list_goals(
    limit: Annotated[int, typer.Option("-n", "--limit", metavar="N", min=1, help="At most so many.")] = 20,
    every: Annotated[bool, typer.Option("--all", help="All of them.")] = False,
    as_json: options.AsJson = False,
) -> int:
    """Goals, newest first."""
    from goalrun.cli import reading

    return reading.list_goals(None if every else limit, as_json=as_json)


@app.command()
def status(goal: options.Goal = "", as_json: options.AsJson = False) -> int:
    """Where a goal stands."""
    from goalrun.cli import reading

    return reading.status(goal, as_json=as_json)


@app.command()
def show(goal: options.Goal = "", as_json: options.AsJson = False) -> int:
    """Everything about a goal, turn by turn."""
    from goalrun.cli import reading

    return reading.show(goal, as_json=as_json)


@app.command()
def logs(
    goal: options.Goal = "",
    follow: Annotated[bool, typer.Option("--follow", help="Go on until the goal ends.")] = False,
    as_json: options.AsJson = False,
) -> int:
    """What happened, record by record, with what the worker said."""
    from goalrun.cli import reading

    return reading.logs(goal, follow=follow, as_json=as_json)


@app.command()
def watch(
    goal: options.Goal = "",
    every: Annotated[bool, typer.Option("--all", help="All goals at once.")] = False,
) -> int:
    """See a goal at work, wherever it runs; with keys to pause, stop or hint."""
    from goalrun.cli import watching

    return watching.watch(goal, every=every)


@app.command()
def diff(
    goal: options.Goal = "",
    turn: Annotated[
        str | None,
        typer.Option(
            "--turn",
            metavar="N|best",
            help="Only this turn's changes.",
            autocompletion=completion.among("best"),
        ),
    ] = None,
    as_json: options.AsJson = False,
) -> int:
    """What a goal, or one of its turns, changed."""
    from goalrun.cli import reading

    return reading.diff(goal, turn, as_json=as_json)


@app.command()
def report(
    goal: options.Goal = "",
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="FILE", help="Where to (GOAL.html, in this folder).")
    ] = None,
    as_json: options.AsJson = False,
) -> int:
    """Write all about a goal as one HTML file; print its path."""
    from goalrun.cli import report as body

    return body.report(goal, output, as_json=as_json)


@app.command()
def web(
    port: Annotated[int, typer.Option("--port", metavar="N", min=0, max=65535, help="Any free one.")] = 0,
    no_browser: Annotated[bool, typer.Option("--no-browser", help="Open no browser.")] = False,
    read_only: Annotated[bool, typer.Option("--read-only", help="Only look.")] = False,
) -> int:
    """Show all goals as live pages, on this machine alone; print their address."""
    from goalrun.cli import web as body

    return body.web(port, browser=not no_browser, read_only=read_only)


@app.command()
def restore(
    goal: options.Goal = "",
    turn: Annotated[
        str,
        typer.Option(
            "--turn",
            metavar="N|best",
            help="Which turn's files; 0 is the base.",
            autocompletion=completion.among("best", "0"),
        ),
    ] = "",
    as_json: options.AsJson = False,
) -> int:
    """Put a turn's files into the workspace."""
    from goalrun.cli import acting

    return acting.restore(goal, turn, as_json=as_json)


@app.command()
def verify(
    check: options.Checks = None,
    base: Annotated[str, typer.Option("--base", metavar="REV", help="What protected paths come from (HEAD).")] = "HEAD",
    protect: options.Protect = None,
    may_change: options.MayChange = None,
    pass_env: options.PassEnv = None,
    deps: options.Deps = None,
    prepare: options.Prepare = None,
    sandbox: options.SandboxLevel = None,
    require_sandbox: options.RequireSandbox = False,
    network: options.Network = False,
    jobs: options.Jobs = None,
    no_baseline: options.NoBaseline = False,
    require_strong: options.RequireStrong = False,
    check_timeout: options.CheckTimeout = None,
    as_json: options.AsJson = False,
) -> int:
    """Verify the workspace as it is, without a goal."""
    from goalrun.cli import verifying

    return verifying.verify(
        base,
        {"checks": check, "protect": protect, "may_change": may_change, "pass_env": pass_env,
         "check_timeout": check_timeout, "sandbox": sandbox, "deps": deps, "prepare": prepare, "jobs": jobs,
         "require_sandbox": require_sandbox or None, "network": network or None,
         "baseline": False if no_baseline else None, "require_strong": require_strong or None},
        as_json=as_json,
    )  # fmt: skip
