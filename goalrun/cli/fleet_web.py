"""`goalrun fleet web`: the fleet as live pages, each goal's own page, and metrics."""

from collections.abc import Iterator, Mapping
from functools import partial
from http import HTTPStatus
from pathlib import Path

from goalrun.adapters.home import GOAL_ID
from goalrun.adapters.web import SCRIPT, Events, Reply, Request
from goalrun.cli.fleet_acting import resume_goal
from goalrun.cli.fleet_reading import overview_of, result_of, why_queued
from goalrun.cli.render import seconds
from goalrun.cli.web import age, changes, digest, serve
from goalrun.core.flow.outline import graph
from goalrun.core.model import State
from goalrun.errors import EnvironmentFailure, SettingsError, SpecError, UnknownGoal
from goalrun.fleet import goals, overview
from goalrun.fleet.database import Connection, Fleet, find_fleet, opened
from goalrun.pages.model import Actions, FleetPage, GoalPage, Part, Patch, Turn, TurnPage
from goalrun.pages.render import asset, fleet_html, goal_html, queued_html
from goalrun.pages.story import story

MAX_GOALS, MAX_CHECKS = 100, 10
LOOK_SECONDS = 2.0
ROOM_CHARS, MOST_CHARS, LEAST_CHARS = 2 << 20, 64 << 10, 512
LEAST_TOKEN = 16
METRICS = "/metrics"
DONE = {"pause": "It pauses.", "stop": "It stops.", "resume": "It waits for a worker to go on."}
STATES = frozenset({"queued", *(state.value for state in State)})
ABSENT = (
    "This page is made of the goal's records alone: files, prompts and whole outputs are not on it. What was delivered"
    " is a branch of its repository, or comes by goalrun fleet show GOAL --bundle FILE."
)


def web(database: str, port: int, token: Path | None, *, browser: bool, read_only: bool) -> int:
    """Serve until Ctrl-C."""
    passes = {METRICS: token_in(token)} if token is not None else {}
    return serve(port, FleetSite(find_fleet(database), read_only=read_only), browser=browser, passes=passes)


def token_in(path: Path) -> str:
    """The token that a file holds.

    Raises:
        SettingsError: there is none, or one that could be guessed.
    """
    try:
        text = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as failure:
        raise SettingsError(f"cannot read the token in {path}: {failure}") from failure
    if len(text) < LEAST_TOKEN or not text.isascii() or not text.isprintable():
        raise SettingsError(
            f"{path} holds no token of at least {LEAST_TOKEN} characters", hint=f"openssl rand -hex 24 > {path}"
        )
    return text


class FleetSite:
    """What there is to see of a fleet, and to do. Each answer has a connection of its own to the database."""

    def __init__(self, fleet: Fleet, *, read_only: bool) -> None:
        self._fleet = fleet
        self._read_only = read_only
        self.form_token = ""

    def give(self, request: Request) -> Reply | Events:
        """See ``Served``."""
        path = request.path.removesuffix("/events")
        if path.startswith("/goals/"):
            return self._goal(path.removeprefix("/goals/"), request)
        state = path.removeprefix("/states/")
        if path in {"", "/"} or state in STATES:
            live = path != request.path
            return changes(partial(self._mark, ""), request, LOOK_SECONDS) if live else self._list(state.strip("/"))
        match request.path:
            case "/live.js":
                return Reply(asset("live.js"), kind=SCRIPT)
            case "/metrics":
                return self._metrics()
            case _:
                raise UnknownGoal("there is no such page")

    def _mark(self, goal: str) -> str:
        try:
            with opened(self._fleet.url) as db:
                return digest([overview.mark(db, self._fleet.silent, goal)])
        except EnvironmentFailure:
            # The page stays as it is; when the database is back, this is another one.
            return "away"

    def _list(self, state: str) -> Reply:
        mark = self._mark("")
        with opened(self._fleet.url) as db:
            shown = overview_of(db, self._fleet)
            unit, slots = overview.over_time(db)
            rows = overview.latest(db, state, MAX_GOALS)
            page = FleetPage(
                overview=shown,
                waiting=overview.queue(db),
                unit=unit,
                slots=slots,
                checks=overview.slowest(overview.checks(db), MAX_CHECKS),
                only=state,
                results=[result_of(row) for row in rows],
                more=max(0, (shown["states"].get(state, 0) if state else sum(shown["states"].values())) - MAX_GOALS),
                ages={row["id"]: age(row["created_at"]) for row in rows},
            )
        return Reply(fleet_html(page, seconds, mark))

    def _goal(self, name: str, request: Request) -> Reply | Events:
        if not GOAL_ID.fullmatch(name):
            raise UnknownGoal("there is no such page", hint="the list of all goals")
        if request.path.endswith("/events"):
            return changes(partial(self._mark, name), request, LOOK_SECONDS)
        mark = self._mark(name)
        with opened(self._fleet.url) as db:
            row = goals.find(db, name)
            if request.form is not None:
                return self._act(db, row, request.form)
            result = result_of(row)
            result["detail"] = result["detail"] or why_queued(db, self._fleet, row)
            records = goals.records(db, name)
        verbs = {} if self._read_only else _verbs(row)
        actions = Actions(mark, self.form_token, verbs, DONE.get(request.query.get("done", ""), ""))
        if not records:
            return Reply(queued_html(result, seconds, actions))
        told = story(records)
        most = max(LEAST_CHARS, min(MOST_CHARS, ROOM_CHARS // max(1, len(told.turns))))
        flow = told.state.spec.flow
        page = GoalPage(
            result=result,
            story=told,
            folder="",
            turns=tuple(TurnPage(turn, tuple(_parts(turn)), Patch()) for turn in told.turns),
            total=Patch(),
            most=most,
            graph=graph(flow.flow) if flow is not None else "",
            absent=ABSENT,
        )
        return Reply(goal_html(page, seconds, actions))

    def _act(self, db: Connection, row: goals.Row, form: Mapping[str, str]) -> Reply:
        if self._read_only:
            raise SpecError("nothing is done here", hint="goalrun fleet web without --read-only")
        verb = form.get("verb", "")
        match verb:
            case "pause" | "stop":
                goals.ask(db, row, verb)
            case "resume":
                resume_goal(db, row, form.get("text", ""), {})
            case _:
                raise SpecError(f"nothing is done by {verb!r}")
        return Reply("", HTTPStatus.SEE_OTHER, goto=f"/goals/{row['id']}?done={verb}")

    def _metrics(self) -> Reply:
        from goalrun.fleet import metrics

        with opened(self._fleet.url) as db:
            read = metrics.Snapshot(
                overview_of(db, self._fleet),
                overview.queue(db),
                overview.accounts(db),
                overview.totals(db),
                overview.checks(db),
            )
        return Reply(metrics.text(read), kind=metrics.KIND)


def _verbs(row: goals.Row) -> dict[str, bool]:
    under_way = row["ended_at"] is None
    return {
        "resume": not under_way and row["state"] != "achieved",
        "pause": under_way and not row["asked"],
        "stop": under_way and row["asked"] != "stop",
    }


def _parts(turn: Turn) -> Iterator[Part]:
    """What the records hold of the output of checks."""
    for check in turn.verification.checks if turn.verification is not None else ():
        if check.excerpt.strip():
            yield Part(f"Output of {check.command}, the useful part", check.excerpt)
