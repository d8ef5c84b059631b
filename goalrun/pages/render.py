"""Pages as HTML (home of Jinja). Whatever a template prints is made plain and escaped; no page holds script."""

from base64 import b64encode
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from hashlib import sha256
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from goalrun.core.evidence import bounded, plain
from goalrun.pages.model import Actions, FleetPage, GoalPage
from goalrun.pages.plots import FOOT, HEIGHT, LEFT, WIDTH, over_time, plots
from goalrun.pages.story import rests_on

MARK = "<!-- made by goalrun report -->"
"""What tells a report from other files; it stands in the first line."""
FEW_TURNS, MAX_LISTED = 20, 50
"""So many turns are printed unfolded; so many steps or paths are listed in each."""
_KINDS = {
    "achieved": "good", "done": "good", "running": "busy", "waiting": "busy", "paused": "busy",
    "interrupted": "busy", "rate_limited": "busy", "unreadable": "alarm", "queued": "busy",
}  # fmt: skip
_SIZE = {"width": WIDTH, "height": HEIGHT, "left": LEFT, "foot": HEIGHT - FOOT}


def goal_html(page: GoalPage, duration: Callable[[float], str], actions: Actions | None = None) -> str:
    """A goal's page: with ``actions`` a live one, else a file that needs nothing beside it.

    Args:
        page: what it shows.
        duration: seconds as people read them.
        actions: see ``Actions``.
    """
    return _render(
        "goal.html",
        page=page,
        state=page.story.state,
        plots=plots(page.story.turns),
        rests=list(rests_on(page.story)),
        size=_SIZE,
        few=len(page.turns) <= FEW_TURNS,
        listed=MAX_LISTED,
        duration=duration,
        actions=actions,
        live=actions is not None,
        of=actions.mark if actions is not None else "",
    )


def list_html(results: Iterable[Mapping[str, Any]], more: int, ages: Mapping[str, str], of: str) -> str:
    """The page of all goals: results as JSON, how many more there are, by id how old they are; ``Actions.mark``."""
    return _render("goals.html", results=list(results), more=more, ages=ages, of=of, live=True)


def fleet_html(page: FleetPage, duration: Callable[[float], str], of: str) -> str:
    """The page of a fleet; see ``goal_html`` and ``Actions.mark``."""
    drawn = over_time(page.unit, page.slots) if page.slots else ()
    return _render("fleet.html", page=page, plots=drawn, size=_SIZE, duration=duration, of=of, live=True)


def queued_html(result: Mapping[str, Any], duration: Callable[[float], str], actions: Actions) -> str:
    """The page of a fleet's goal that no worker has begun: its result as JSON; see ``goal_html``."""
    return _render("queued.html", result=result, duration=duration, actions=actions, of=actions.mark, live=True)


def problem_html(title: str, text: str, hint: str) -> str:
    """A page that says what cannot be shown, and what to do."""
    return _render("problem.html", heading=title, text=text, hint=hint, live=False)


def policy(*, live: bool) -> str:
    """What a page may load: its own style; a live page also its one script and the server that it came from.

    In a file it stands in the page itself (https://www.w3.org/TR/CSP3/).
    """
    digest = b64encode(sha256(_style().encode()).digest()).decode("ascii")
    common = f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:; base-uri 'none'; "
    return common + (
        "script-src 'self'; connect-src 'self'; form-action 'self'; frame-ancestors 'none'"
        if live
        else "form-action 'none'"
    )


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("goalrun.pages"),
        autoescape=True,
        finalize=_harmless,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["bounded"] = bounded
    environment.filters["kind"] = lambda state: _KINDS.get(state, "bad")
    return environment


def _harmless(value: object) -> object:
    """Text without what a terminal or a reader obeys: control characters, marks that turn its direction."""
    return value if not isinstance(value, str) or isinstance(value, Markup) else plain(value)


@cache
def _style() -> str:
    return asset("style.css")


def asset(name: str) -> str:
    """A file beside the templates, as it is."""
    environment = _environment()
    assert environment.loader is not None  # noqa: S101 - given above; for the type checker
    return environment.loader.get_source(environment, name)[0]


def _render(template: str, *, live: bool, **values: object) -> str:
    # Both are files of the package; they are no text from outside.
    style, mark = Markup(_style()), Markup(MARK)  # noqa: S704
    return (
        _environment()
        .get_template(template)
        .render(**values, live=live, style=style, mark=mark, policy=policy(live=live))
    )
