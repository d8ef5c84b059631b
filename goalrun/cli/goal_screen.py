"""Goals on a screen with keys: the shell around the drawing, which reads files and asks goals for things."""

from collections.abc import Sequence
from datetime import datetime

from rich.text import Text

from goalrun.adapters.control import FileControl
from goalrun.adapters.glimpse import Glimpse, glimpse
from goalrun.adapters.home import Home
from goalrun.adapters.views import REACHED, runner
from goalrun.cli.drawing import View, goal_lines
from goalrun.cli.keys import HELP, Asking, Wish, foot, pressed
from goalrun.cli.screen import Screen
from goalrun.core.evidence import one_line
from goalrun.core.picture import Picture
from goalrun.errors import GoalrunError


class GoalScreen:
    """Draws goals, and does what keys wish."""

    def __init__(self, home: Home, screen: Screen) -> None:
        self.screen = screen
        self._home = home
        self._asking = Asking()
        self._said = ""

    def draw(self, goal: str, picture: Picture | None, note: str, now: datetime) -> None:
        """Show one goal as it is now; None is one of which nothing is known yet."""
        width, height = self.screen.size()
        if picture is None:
            self.paint([Text(goal, style="bold"), Text(one_line(note) or "starting …")], HELP)
            return
        turn = self._home.folder(goal) / "turns" / picture.label
        found = glimpse(turn, height) if picture.stage != "ended" else Glimpse()
        self.paint(goal_lines(View(picture, found, now, width, height - 1, note)), HELP)

    def paint(self, drawn: Sequence[Text], idle: str) -> None:
        """Show some lines, and at the foot what is asked for, what was done, or what keys there are."""
        width, height = self.screen.size()
        last = Text(foot(self._asking, self._said, idle, width), style="reverse", end="")
        last.truncate(width, pad=True)
        self.screen.paint([*drawn[: height - 1], *[Text()] * (height - 1 - len(drawn)), last])

    def press(self, key: str, goal: str) -> Wish:
        """Do what a key wishes of a goal; the wish, for what is not about one."""
        self._asking, wish = pressed(self._asking, key)
        self._said = one_line(self._done(goal, wish)) if goal else ""
        return wish

    def _done(self, goal: str, wish: Wish) -> str:
        """Ask a goal for what a key wishes; what to say of it."""
        folder = self._home.folder(goal)
        try:
            if wish == "hint":
                if self._home.result(goal, turns=False)["state"] in REACHED:
                    return f"{goal} is achieved; nobody would read the hint"
                FileControl(folder).hint(self._asking.text)
                return "the next turn will read it"
            if wish not in {"pause", "stop"}:
                return ""
            if runner(folder) is None:
                return f"no process runs it: goalrun {wish} {goal}"
            FileControl(folder).ask("stop" if wish == "stop" else "pause")
        except GoalrunError as failure:
            return str(failure)
        return "stopping …" if wish == "stop" else "pausing …"
