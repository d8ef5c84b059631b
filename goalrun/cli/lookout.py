"""The screen of `goalrun watch`: one goal, or the list of all of them."""

import time
from typing import Any

from rich.text import Text

from goalrun.adapters.clock import TICK_SECONDS, utc_now
from goalrun.adapters.glimpse import Glimpse, glimpse
from goalrun.adapters.home import Home
from goalrun.cli.drawing import View, goal_lines, list_lines
from goalrun.cli.keys import HELP, HELP_LIST, Asking, done, foot, pressed
from goalrun.cli.screen import Screen
from goalrun.cli.watching import LIST_SECONDS, Follower
from goalrun.core.evidence import count, one_line

FIRST = ("running", "waiting", "rate_limited")
"""States that are listed before all others."""


class Lookout:
    """Shows goals on a screen until somebody leaves."""

    def __init__(self, home: Home, screen: Screen) -> None:
        self._home = home
        self._screen = screen
        self._asking = Asking()
        self._said = ""

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
            self._paint_one(follower, goal)
            for key in self._screen.keys(TICK_SECONDS):
                if self._wish(key, goal) == "leave":
                    return False

    def _paint_one(self, follower: Follower, goal: str) -> None:
        width, height = self._screen.size()
        picture = follower.picture
        if picture is None:
            drawn = [Text(goal)]
        else:
            place = self._home.folder(goal) / "turns" / picture.label
            found = glimpse(place, height) if picture.stage != "ended" else Glimpse()
            dead = "its process is gone" if not follower.runs and picture.stage != "ended" else ""
            now = utc_now() if follower.runs else _parsed(picture.at)
            drawn = goal_lines(View(picture, found, now, width, height - 1, dead or follower.note))
        self._paint(drawn, HELP)

    def _all(self) -> None:
        chosen, results, read = 0, [], -LIST_SECONDS
        while True:
            width, height = self._screen.size()
            if time.monotonic() - read >= LIST_SECONDS:
                results, read = self._results(height - 4), time.monotonic()
            chosen = max(0, min(chosen, len(results) - 1))
            going = count(sum(result["state"] == "running" for result in results), "goal")
            drawn = [Text(f"{going} running", style="bold"), Text(), *list_lines(results, chosen, width)]
            if not results:
                drawn.append(Text('no goals yet; goalrun start "make tests pass"'))
            self._paint(drawn, HELP_LIST)
            for key in self._screen.keys(TICK_SECONDS):
                goal = str(results[chosen]["id"]) if results else ""
                wish = self._wish(key, goal)
                if wish == "leave":
                    return
                if wish == "open" and goal and not results[chosen].get("unreadable"):
                    self._one(goal, stays=True)
                    read = -LIST_SECONDS
                chosen += {"up": -1, "down": 1}.get(wish, 0)
                chosen = max(0, min(chosen, len(results) - 1))

    def _results(self, most: int) -> list[dict[str, Any]]:
        found = list(self._home.results(self._home.ids()[: max(1, most)], turns=False))
        return sorted(found, key=lambda result: result["state"] not in FIRST)

    def _wish(self, key: str, goal: str) -> str:
        self._asking, wish = pressed(self._asking, key)
        self._said = one_line(done(self._home, goal, wish, self._asking.text)) if goal else ""
        return wish

    def _paint(self, drawn: list[Text], idle: str) -> None:
        width, height = self._screen.size()
        drawn = [*drawn[: height - 1], *[Text()] * (height - 1 - len(drawn))]
        last = Text(foot(self._asking, self._said, idle, width), style="reverse", end="")
        last.truncate(width)
        self._screen.paint([*drawn, last])


def _parsed(at: str) -> Any:  # noqa: ANN401
    from datetime import datetime

    return datetime.fromisoformat(at)
