"""The screen of `goalrun watch`: one goal, or the list of all of them."""

import time
from datetime import datetime
from typing import Any

from rich.text import Text

from goalrun.adapters.clock import TICK_SECONDS, utc_now
from goalrun.adapters.home import Home
from goalrun.adapters.views import OWNER
from goalrun.cli.drawing import list_lines
from goalrun.cli.goal_screen import GoalScreen
from goalrun.cli.keys import HELP_LIST
from goalrun.cli.render import NO_GOALS
from goalrun.cli.screen import Screen
from goalrun.cli.watching import Follower
from goalrun.core.evidence import count

LIST_SECONDS = 1.0
"""How often the list of all goals is read anew."""
MOST_LOOKED_AT = 2_000
"""Goals, the newest, among which running ones are looked for."""
FIRST = ("running", "waiting", "rate_limited")
"""States that are listed before all others."""


class Lookout:
    """Shows goals on a screen until somebody leaves."""

    def __init__(self, home: Home, screen: Screen) -> None:
        self._home = home
        self._screen = screen
        self._shown = GoalScreen(home, screen)

    def look(self, goal: str) -> bool:
        """Show one goal until it ends, or with "" all of them; False if somebody left before the end."""
        if goal:
            return self._one(goal, stays=False)
        self._all()
        return False

    def _one(self, goal: str, *, stays: bool) -> bool:
        follower = Follower(self._home.folder(goal))
        while True:
            follower.read()
            if not follower.runs and not stays:
                return True
            self._draw(goal, follower)
            if any(self._shown.press(key, goal) == "leave" for key in self._screen.keys(TICK_SECONDS)):
                return False

    def _draw(self, goal: str, follower: Follower) -> None:
        picture = follower.picture
        now, note = utc_now(), follower.note
        if picture is not None and not follower.runs and picture.stage != "ended":
            # Nothing goes on any more: its clocks stand still.
            now, note = datetime.fromisoformat(picture.at), f"its process is gone: goalrun resume {goal}"
        self._shown.draw(goal, picture, note, now)

    def _all(self) -> None:
        chosen, results, read = 0, list[dict[str, Any]](), -LIST_SECONDS
        while True:
            width, height = self._screen.size()
            if time.monotonic() - read >= LIST_SECONDS:
                results, read = self._results(height - 4), time.monotonic()
            chosen = max(0, min(chosen, len(results) - 1))
            self._shown.paint(_drawn(results, chosen, width), HELP_LIST)
            goal = str(results[chosen]["id"]) if results else ""
            for key in self._screen.keys(TICK_SECONDS):
                wish = self._shown.press(key, goal)
                if wish == "leave":
                    return
                if wish == "open" and goal and not results[chosen].get("unreadable"):
                    self._one(goal, stays=True)
                    break
                chosen += {"up": -1, "down": 1}.get(wish, 0)

    def _results(self, most: int) -> list[dict[str, Any]]:
        """The goals that fit: those that a process runs first, however old, then the newest."""
        known = self._home.ids()[:MOST_LOOKED_AT]
        taken = [goal for goal in known if (self._home.folder(goal) / OWNER).exists()]
        shown = list(dict.fromkeys([*taken, *known[:most]]))[: max(1, most)]
        found = list(self._home.results(shown, turns=False))
        return sorted(found, key=lambda result: result["state"] not in FIRST)


def _drawn(results: list[dict[str, Any]], chosen: int, width: int) -> list[Text]:
    going = f"{count(sum(result['state'] == 'running' for result in results), 'goal')} running"
    about = f"   {results[chosen]['id']}" if results else ""
    none = [] if results else [Text(NO_GOALS)]
    return [Text.assemble((going, "bold"), (about, "dim")), Text(), *list_lines(results, chosen, width), *none]
