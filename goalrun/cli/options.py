"""Options and arguments that several commands have, declared once."""

from typing import Annotated

import typer

from goalrun.cli import completion

Goal = Annotated[
    str,
    typer.Argument(
        help="An id or a unique prefix; left out: the newest goal of this workspace.",
        autocompletion=completion.goals,
    ),
]
NeededGoal = Annotated[str, typer.Argument(help="An id or a unique prefix.", autocompletion=completion.goals)]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")]
Quiet = Annotated[bool, typer.Option("-q", "--quiet", help="Only the end.")]
Verbose = Annotated[
    bool, typer.Option("-v", "--verbose", help="Lines, with heads of prompts and what checks print; no live view.")
]
WorkerCmd = Annotated[
    str | None,
    typer.Option("--worker-cmd", metavar="CMD", help="Any command; the prompt is on its standard input."),
]
Checks = Annotated[
    list[str] | None,
    typer.Option("-c", "--check", metavar="CMD", help="A command that has to succeed; repeatable."),
]
Protect = Annotated[
    list[str] | None,
    typer.Option("--protect", metavar="GLOB", help="Protect these paths too."),
]
MayChange = Annotated[
    list[str] | None,
    typer.Option("--may-change", metavar="GLOB", help="Take paths out of the protected set."),
]
PassEnv = Annotated[
    list[str] | None,
    typer.Option("--pass-env", metavar="NAME", help="A variable that checks get from the environment."),
]
Deps = Annotated[
    list[str] | None,
    typer.Option("--deps", metavar="PATH", help="A folder of dependencies in the workspace, frozen for the checks."),
]
Prepare = Annotated[
    str | None,
    typer.Option(
        "--prepare", metavar="CMD", help="Makes dependencies for the checks, once, on the base, with network."
    ),
]
SandboxLevel = Annotated[
    str | None,
    typer.Option(
        "--sandbox",
        metavar="auto|bwrap|seatbelt|landlock|process",
        help="How checks are isolated (auto: the strongest).",
        autocompletion=completion.among("auto", "bwrap", "seatbelt", "landlock", "process"),
    ),
]
RequireSandbox = Annotated[
    bool, typer.Option("--require-sandbox", help="Refuse to run checks in less than bwrap or seatbelt.")
]
Network = Annotated[bool, typer.Option("--network", help="Let checks use the network.")]
Jobs = Annotated[
    str | None,
    typer.Option("--jobs", metavar="N", help="Checks at once, each in a worktree of its own (1: one after the other)."),
]
RequireStrong = Annotated[bool, typer.Option("--require-strong", help="Weak passes do not count.")]
NoBaseline = Annotated[
    bool, typer.Option("--no-baseline", help="Do not run the checks on the base for a floor; passes are then weak.")
]
CheckTimeout = Annotated[str | None, typer.Option("--check-timeout", metavar="TIME", help="Per check (10m).")]
MaxTurns = Annotated[str | None, typer.Option("--max-turns", metavar="N", help="Turns (20); on resume +N adds.")]
MaxTokens = Annotated[str | None, typer.Option("--max-tokens", metavar="N", help="Tokens of worker and judge.")]
MaxUsd = Annotated[str | None, typer.Option("--max-usd", metavar="X", help="US dollars of worker and judge.")]
AllowUnknownSpend = Annotated[
    bool, typer.Option("--allow-unknown-spend", help="Go on where nobody reports what a limit is about.")
]
MaxTime = Annotated[str | None, typer.Option("--max-time", metavar="TIME", help="Running time, as in 90s, 2h.")]
TurnTimeout = Annotated[str | None, typer.Option("--turn-timeout", metavar="TIME", help="Per turn (30m).")]
StuckAfter = Annotated[
    str | None,
    typer.Option("--stuck-after", metavar="N", help="Turns without progress that are too many (3; 0 = off)."),
]
NoWait = Annotated[bool, typer.Option("--no-wait", help="Exit 8 instead of queueing for the workspace.")]
