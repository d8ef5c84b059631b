"""What keys mean while goals are shown: pure."""

from typing import Literal, NamedTuple

MAX_HINT_CHARS = 2_000
Wish = Literal["", "pause", "stop", "hint", "leave", "up", "down", "open"]
HELP = "p pause   s stop   h hint   q leave"
HELP_LIST = "↑↓ choose   enter open   p pause   s stop   h hint   q leave"


class Asking(NamedTuple):
    """What the foot of the screen asks for.

    Attributes:
        mode: nothing, whether to stop, or a hint.
        text: the hint so far.
    """

    mode: Literal["", "stop", "hint"] = ""
    text: str = ""


def pressed(asking: Asking, key: str) -> tuple[Asking, Wish]:
    """What is asked for after a key, and what the key wishes; a hint that is whole is in ``asking.text``."""
    if asking.mode == "stop":
        return Asking(), "stop" if key in {"y", "Y"} else ""
    if asking.mode == "hint":
        return _typed(asking, key)
    wishes: dict[str, Wish] = {
        "p": "pause", "q": "leave", "up": "up", "k": "up", "down": "down", "j": "down", "enter": "open",
    }  # fmt: skip
    if key in {"s", "h"}:
        return Asking("stop" if key == "s" else "hint"), ""
    return Asking(), wishes.get(key, "")


def _typed(asking: Asking, key: str) -> tuple[Asking, Wish]:
    if key == "escape":
        return Asking(), ""
    if key == "enter":
        return Asking(text=asking.text), "hint" if asking.text.strip() else ""
    if key == "erase":
        return asking._replace(text=asking.text[:-1]), ""
    more = key if len(key) == 1 and len(asking.text) < MAX_HINT_CHARS else ""
    return asking._replace(text=asking.text + more), ""


def foot(asking: Asking, said: str, idle: str, width: int) -> str:
    """The last line of the screen."""
    if asking.mode == "stop":
        return "stop the goal? its edits are kept   y stop   any other key no"
    if asking.mode == "hint":
        # The end of it, where the cursor would be.
        return f"hint for the next turn (enter sends, escape drops): {asking.text[-max(10, width - 56) :]}_"
    return said or idle
