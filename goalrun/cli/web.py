"""`goalrun web`: pages of all goals, live, on this machine alone."""

import hashlib
import os
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import datetime
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import Any, Protocol

from goalrun.adapters.clock import utc_now
from goalrun.adapters.home import GOAL_ID, Home
from goalrun.adapters.views import JOURNAL, OWNER, REACHED, WAITING, runner
from goalrun.adapters.web import SCRIPT, Events, Reply, Request, WebServer
from goalrun.cli import acting, wrapping
from goalrun.cli.app import bug
from goalrun.cli.render import note, out, seconds
from goalrun.cli.report import gathered
from goalrun.cli.running import How, resume
from goalrun.errors import GoalrunError, JournalCorrupt, SpecError, UnknownGoal, of_the_system
from goalrun.pages.model import Actions
from goalrun.pages.render import asset, goal_html, list_html, policy, problem_html
from goalrun.wiring.session import open_session

MAX_GOALS = 100
ROOM_BYTES = 2 << 20
LOOK_SECONDS, HERE_SECONDS = 0.5, 15.0
DAY_SECONDS = 86_400.0
DONE = {
    "pause": "It is paused.",
    "stop": "It is stopped.",
    "hint": "The next turn will read it.",
    "answer": "Answered.",
    "resume": "It goes on.",
}


class Served(Protocol):
    """A site. ``form_token`` is given to it, and what its forms carry."""

    form_token: str

    def give(self, request: Request) -> Reply | Events:
        """The page, the change or the stream that is asked for."""


def web(port: int, *, browser: bool, read_only: bool) -> int:
    """Serve until Ctrl-C."""
    return serve(port, Site(open_session(write=False).home, read_only=read_only), browser=browser)


def serve(port: int, site: Served, *, browser: bool, passes: Mapping[str, str] | None = None) -> int:
    """Serve a site until Ctrl-C; for ``passes`` see ``WebServer``."""
    with WebServer(port, policy(live=True), partial(_answer, site), failed, passes) as server:
        site.form_token = server.form_token
        out(server.address())
        sys.stdout.flush()
        if browser and _has_screen():
            import webbrowser

            # Command lines can be read by everybody on this machine: that address works once.
            webbrowser.open(server.address(once=True))
        note("Ctrl-C ends it; the goals go on")
        with suppress(KeyboardInterrupt):
            server.serve_forever()
    return 0


def _has_screen() -> bool:
    return sys.platform == "darwin" or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def _answer(site: Served, request: Request) -> Reply | Events:
    """What a site gives; what it refuses, as a page."""
    try:
        return site.give(request)
    except UnknownGoal as failure:
        return Reply(problem_html("not found", str(failure), failure.hint), HTTPStatus.NOT_FOUND)
    except JournalCorrupt as failure:
        return Reply(problem_html("damaged", str(failure), failure.hint))
    except (GoalrunError, OSError) as error:
        problem = of_the_system(error) if isinstance(error, OSError) else error
        heading = "cannot be shown" if request.form is None else "not done"
        return Reply(problem_html(heading, str(problem), problem.hint), HTTPStatus.CONFLICT)


def failed(failure: Exception) -> Reply:
    """The page of a bug, which is logged."""
    message, hint = bug(failure)
    note(f"goalrun: {message}")
    return Reply(problem_html("a bug", message, hint), HTTPStatus.INTERNAL_SERVER_ERROR)


class Site:
    """What there is to see and to do."""

    def __init__(self, home: Home, *, read_only: bool) -> None:
        self._home = home
        self._read_only = read_only
        self.form_token = ""

    def give(self, request: Request) -> Reply | Events:
        """See ``Served``."""
        return self._goal(request) if request.path.startswith("/goals/") else self._top(request)

    def _top(self, request: Request) -> Reply | Events:
        match request.path:
            case "/":
                return self._list()
            case "/events":
                return changes(self._mark_of_all, request)
            case "/live.js":
                return Reply(asset("live.js"), kind=SCRIPT)
            case _:
                raise UnknownGoal("there is no such page")

    def _known(self, path: str) -> Path:
        """The folder of the goal that a path names."""
        goal = path.removeprefix("/goals/")
        if not GOAL_ID.fullmatch(goal) or not self._home.folder(goal).is_dir():
            raise UnknownGoal("there is no such page", hint="the list of all goals")
        return self._home.folder(goal)

    def _list(self) -> Reply:
        mark = self._mark_of_all()
        known = self._home.ids()
        results = list(self._home.results(known[:MAX_GOALS], turns=False))
        ages = {each["id"]: _age(each) for each in results}
        return Reply(list_html(results, max(0, len(known) - MAX_GOALS), ages, mark))

    def _goal(self, request: Request) -> Reply | Events:
        folder = self._known(request.path.removesuffix("/events"))
        if request.path.endswith("/events"):
            return changes(partial(_mark, folder), request)
        if request.form is not None:
            return self._act(folder.name, request.form)
        # Taken before the page is made: what happens meanwhile is newer.
        mark = _mark(folder)
        page = gathered(self._home, folder.name, ROOM_BYTES)
        verbs = _verbs(page.result["state"]) if self._may_act(folder.name) else {}
        actions = Actions(mark, self.form_token, verbs, DONE.get(request.query.get("done", ""), ""))
        return Reply(goal_html(page, seconds, actions))

    def _may_act(self, goal: str) -> bool:
        with suppress(OSError):
            return not self._read_only and (self._home.folder(goal) / JOURNAL).stat().st_uid == os.geteuid()
        return False

    def _act(self, goal: str, form: Mapping[str, str]) -> Reply:
        if not self._may_act(goal):
            raise SpecError(f"{goal} is read-only here", hint="its owner can do that, without --read-only")
        verb, text = form.get("verb", ""), form.get("text", "")
        match verb:
            case "pause" | "stop":
                acting.end(goal, verb, as_json=False)
            case "hint":
                acting.hint(goal, text)
            case "answer":
                wrapping.answer(goal, text, How("", no_wait=False, detach=True, as_json=False))
            case "resume":
                resume(goal, {}, How(text, no_wait=False, detach=True, as_json=False))
            case _:
                raise SpecError(f"nothing is done by {verb!r}")
        return Reply("", HTTPStatus.SEE_OTHER, goto=f"/goals/{goal}?done={verb}")

    def _mark_of_all(self) -> str:
        shown = self._home.ids()[:MAX_GOALS]
        return digest([_mark(self._home.folder(goal), deep=False) for goal in shown])


def _verbs(state: str) -> dict[str, bool]:
    over = state in REACHED
    return {
        "hint": not over,
        "answer": state == "waiting",
        "resume": not over and state not in {"running", "waiting"},
        "pause": state == "running",
        "stop": not over and state != "stopped",
    }


def changes(mark: Callable[[], str], request: Request, every: float = LOOK_SECONDS) -> Events:
    """True whenever what a page was made of is another one; False now and then."""
    before, said = request.query.get("of", ""), time.monotonic()
    while True:
        now = mark()
        if now != before or time.monotonic() - said > HERE_SECONDS:
            yield now != before
            before, said = now, time.monotonic()
        time.sleep(every)


def _mark(folder: Path, *, deep: bool = True) -> str:
    """What is another one when a goal's page may be: sizes and times of what is written, and who runs it."""
    names = (JOURNAL, f"{JOURNAL}-wal", OWNER, WAITING)
    files = [folder / name for name in names]
    if deep:
        newest = max((folder / "turns").glob("turn-*"), key=lambda path: (len(path.name), path.name), default=folder)
        files += newest.glob("**/stdout")
    return digest([folder.name, runner(folder), *map(_stamp, files)])


def digest(parts: list[Any]) -> str:
    """A short mark of some values."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:32]


def _stamp(path: Path) -> tuple[int, int]:
    with suppress(OSError):
        status = path.stat()
        return status.st_size, status.st_mtime_ns
    return 0, 0


def age(made: datetime) -> str:
    """How long ago something was made, for people."""
    old = max(0.0, (utc_now() - made).total_seconds())
    return seconds(old) if old < 2 * DAY_SECONDS else f"{old / DAY_SECONDS:.0f} d"


def _age(result: dict[str, Any]) -> str:
    with suppress(KeyError, ValueError):
        return age(datetime.fromisoformat(result["created_at"]))
    return ""
