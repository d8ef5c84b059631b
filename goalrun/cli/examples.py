"""Examples for the help of every command, by the words of the command."""

import typer

EXAMPLES = {
    "": ("goalrun demo", 'goalrun start "make tests pass"', "goalrun watch"),
    "start": (
        'goalrun start "make tests pass"',
        'goalrun start "add a --json option" -w claude -c "pytest -q" -c "ruff check" --max-usd 5 --detach',
    ),
    "wrap": ('goalrun wrap review-and-fix "make tests pass" -c "pytest -q"',),
    "resume": ("goalrun resume --max-turns +5", 'goalrun resume --hint "the fixture is in conftest.py"'),
    "step": ("goalrun step",),
    "pause": ("goalrun pause",),
    "stop": ("goalrun stop",),
    "hint": ('goalrun hint "the fixture is in conftest.py"',),
    "answer": ("goalrun answer yes", 'goalrun answer "no: the price is wrong"'),
    "watch": ("goalrun watch", "goalrun watch --all"),
    "list": ("goalrun list", "goalrun list --all --json"),
    "status": ("goalrun status", "goalrun status --json"),
    "show": ("goalrun show",),
    "logs": ("goalrun logs --follow",),
    "diff": ("goalrun diff", "goalrun diff --turn best"),
    "restore": ("goalrun restore --turn best",),
    "verify": ('goalrun verify -c "pytest -q"', "goalrun verify --base origin/main --json"),
    "flow run": ("goalrun flow run research \"what does the parser do?\"",),
    "flow list": ("goalrun flow list",),
    "flow show": ("goalrun flow show review-and-fix --graph",),
    "flow check": ("goalrun flow check .goalrun/flows/release.toml",),
    "flow import": ("goalrun flow import review.json -o .goalrun/flows/review.toml",),
    "flow schema": ("goalrun flow schema > flow.schema.json",),
    "report": ("goalrun report", "goalrun report -o goal.html"),
    "web": ("goalrun web",),
    "fleet": ("goalrun fleet init", "goalrun fleet submit tonight.toml", "goalrun fleet worker"),
    "fleet init": ("goalrun fleet init",),
    "fleet submit": (
        "goalrun fleet submit tonight.toml --dry-run",
        'goalrun fleet submit --repo https://git.example/a.git --objective "make tests pass" -c "pytest -q"',
    ),
    "fleet worker": ("goalrun fleet worker --slots 4 --labels linux,gpu",),
    "fleet list": ("goalrun fleet list --state running",),
    "fleet status": ("goalrun fleet status", "goalrun fleet status --json"),
    "fleet show": ("goalrun fleet show python-3.14",),
    "fleet logs": ("goalrun fleet logs python-3.14 --follow",),
    "fleet watch": ("goalrun fleet watch --submission tonight",),
    "fleet web": ("goalrun fleet web", "goalrun fleet web --port 8765 --metrics-token /etc/goalrun/metrics-token"),
    "fleet stop": ("goalrun fleet stop --submission tonight",),
    "fleet pause": ("goalrun fleet pause --submission tonight",),
    "fleet resume": ("goalrun fleet resume --submission tonight",),
    "fleet retry": ("goalrun fleet retry python-3.14",),
    "fleet drain": ("goalrun fleet drain build-7",),
    "fleet limit": ("goalrun fleet limit day --max-usd 100", "goalrun fleet limit label gpu --at-once 2"),
    "init": ("goalrun init", "goalrun init --yes"),
    "doctor": ("goalrun doctor",),
    "agents": ("goalrun agents",),
    "agents test": ("goalrun agents test claude",),
    "clean": ("goalrun clean --dry-run", "goalrun clean --older-than 7d --keep 3"),
    "config": ("goalrun config",),
    "demo": ("goalrun demo",),
}  # fmt: skip
"""The shortest one first."""


def attach(app: typer.Typer, above: str = "") -> None:
    """Give every command that has examples an end of its help that shows them."""
    if not above:
        app.info.epilog = told("")
    for command in app.registered_commands:
        name = command.name or getattr(command.callback, "__name__", "")
        command.epilog = told(f"{above}{name}")
    for group in app.registered_groups:
        if group.typer_instance is not None and group.name:
            group.epilog = told(f"{above}{group.name}")
            attach(group.typer_instance, f"{above}{group.name} ")


def told(name: str) -> str | None:
    """The end of a command's help; click keeps lines behind a backspace as they are."""
    lines = EXAMPLES.get(name)
    return "\b\n" + "\n".join(["Examples:", *(f"  $ {line}" for line in lines)]) if lines else None
