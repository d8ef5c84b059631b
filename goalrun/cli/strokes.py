"""The small parts that drawings are made of: icons, times, bars."""

from rich.text import Text

from goalrun.cli.render import BUSY as BUSY_STATES
from goalrun.cli.render import GOOD as GOOD_STATES

GOOD, BAD, BUSY, OFF = "green", "red", "cyan", "dim"
BAR_CELLS = 10
NEARLY = 0.8
"""Share of a limit from which its bar warns."""
_ICONS = {
    "done": ("✓", GOOD),
    "failed": ("✗", BAD),
    "running": ("●", BUSY),
    "todo": ("·", OFF),
    "on": ("→", OFF),
    "skipped": ("-", OFF),
    "blocked": ("!", "bold red"),
    "waiting": ("?", "bold yellow"),
    "reused": ("=", GOOD),
}
PLAIN = str.maketrans("✓✗●·→▶│━─├┤┼╮╭┬╯╰┴…↑↓", "+x*.>>|=-+++++++++~^v")
"""The same where the terminal cannot show them."""


def icon(what: str) -> tuple[str, str]:
    """The icon of a step's status, or of what there is to say of a turn or check, and its style."""
    return _ICONS[what]


def state_style(state: str) -> str:
    """The style of a goal's state."""
    return "bold green" if state in GOOD_STATES else f"bold {BUSY}" if state in BUSY_STATES else "bold red"


def joined(*parts: str | tuple[str, str]) -> Text:
    """Texts with their styles as one line."""
    return Text.assemble(*parts, no_wrap=True, end="")


def clock(seconds: float) -> str:
    """A duration in as few cells as it takes: ``7s``, ``1:05``, ``2:03:09``."""
    whole = int(seconds)
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}:{minutes:02}:{rest:02}"
    return f"{minutes}:{rest:02}" if minutes else f"{whole}s"


def bar(name: str, spent: float | None, limit: float | None, form: str) -> Text:
    """What was spent of a limit; without a limit the number alone, and where it is unknown a question mark.

    Args:
        name: what is spent.
        spent: None is unknown.
        limit: None is none.
        form: a format of numbers, or ``clock``.
    """

    def said(value: float) -> str:
        return clock(value) if form == "clock" else f"{value:{form}}"

    told = "?" if spent is None else said(spent)
    if limit is None:
        return joined((f"{name} ", OFF), told)
    share = 0.0 if spent is None else min(1.0, spent / limit)
    full = round(share * BAR_CELLS)
    style = BAD if share >= 1 else "yellow" if share >= NEARLY else GOOD
    return joined((f"{name} ", OFF), ("━" * full, style), ("─" * (BAR_CELLS - full), OFF), f" {told}/{said(limit)}")
