"""The bodies of the commands that change a fleet, and of the one that works for it."""

import getpass
import math
import os
import shutil
import socket
import tempfile
import threading
from functools import partial
from pathlib import Path
from typing import Any, Literal

from goalrun.adapters.clock import utc_now
from goalrun.adapters.home import new_id
from goalrun.adapters.sandbox import choose
from goalrun.cli.fleet_reading import chosen, result_of
from goalrun.cli.flow_spec import flow_use, group_use
from goalrun.cli.goal_files import read_goal_file
from goalrun.cli.limits import after_resume, require_room
from goalrun.cli.render import note, out, print_json
from goalrun.cli.spec import make_spec, objective_of
from goalrun.core.replay import fold
from goalrun.core.spec import GoalSpec
from goalrun.core.value import seconds
from goalrun.errors import SettingsError, SpecError, UnknownGoal
from goalrun.fleet import goals, submission
from goalrun.fleet.clones import Mirrors
from goalrun.fleet.database import Connection, find_fleet, initialise, opened, url_of
from goalrun.fleet.errand import Way
from goalrun.fleet.queue import engine_tables
from goalrun.fleet.worker import Offer, Worker
from goalrun.settings import Settings, agents, load
from goalrun.wiring.session import Session, open_session, require_outside


def init(database: str, heartbeat: str | None, *, as_json: bool) -> int:
    """Make or mend the tables."""
    try:
        beat = None if heartbeat is None else float(str(seconds(heartbeat)))
    except ValueError as failure:
        raise SettingsError(f"--heartbeat: {failure}") from failure
    if beat is not None and not 0.5 <= beat <= 3600:  # noqa: PLR2004 - said below
        raise SettingsError("--heartbeat is between 0.5 s and 1 h")
    before, now = initialise(url_of(database), beat, engine_tables)
    if as_json:
        print_json({"schema": 1, "before": before, "format": now})
    else:
        out("the fleet is up to date" if before == now else f"the fleet's tables are ready (format {now})")
    return 0


def submit(
    file: Path | None, database: str, one: dict[str, Any], submitter: str, *, dry_run: bool, as_json: bool
) -> int:
    """Queue the goals of a file, or one."""
    who = submitter or getpass.getuser()
    given = {key: value for key, value in one.items() if value or value == 0}
    if file is not None and given.get("repo"):
        raise SettingsError("both a file and --repo are given", hint="give one of them")
    if file is None and not given.get("repo"):
        raise SettingsError(
            "nothing is submitted", hint="goalrun fleet submit FILE.toml, or --repo URL --objective TEXT"
        )
    made = (
        submission.made({"goals": [given]}, f"one-{utc_now():%Y%m%d}", who, "command line")
        if file is None
        else submission.read(file, who)
    )
    for goal in made.goals:
        _require_form(goal.file, goal.key)
    ids: list[str | None] = [None for _ in made.goals]
    if not dry_run:
        with opened(find_fleet(database).url) as db:
            ids = [*goals.submit(db, made, lambda: new_id(utc_now()))]
    shown = [
        {"id": name, "key": goal.key, "repo": goal.repo, "ref": goal.ref, "labels": [*goal.labels]}
        for name, goal in zip(ids, made.goals, strict=True)
    ]
    if as_json:
        print_json({"schema": 1, "submission": made.name, "dry_run": dry_run, "goals": shown})
        return 0
    for each in shown:
        out(f"{each['id'] or 'would be queued'}  {each['key']}  {each['repo']} {each['ref']}")
    note(f"{len(shown)} goals" + ("" if dry_run else f" in submission {made.name}; goalrun fleet status"))
    return 0


def _require_form(text: str, key: str) -> None:
    """Refuse a goal file that no worker could read: the keys of a table ``[goal]`` are proven where it is run."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "goal.toml")
        path.write_text(text, encoding="utf-8")
        try:
            read_goal_file(path, Path(folder), {})
        except SettingsError as failure:
            raise SettingsError(f"goal {key}: {str(failure).replace(f'{path}: ', '')}", hint=failure.hint) from failure


def work(database: str, name: str, slots: int, labels: str, *, push: bool, credentials: Path | None) -> int:
    """Work until told to end."""
    fleet = find_fleet(database)
    session = open_session()
    if credentials is not None and not credentials.is_file():
        raise SettingsError(f"there is no file {credentials}")
    settings = load(Path("/nonexistent")).settings
    mirrors = Mirrors(session.home.path, credentials.absolute() if credentials else None, lambda: None)
    # Several threads write lines.
    lock = threading.Lock()

    def tell(line: str) -> None:
        with lock:
            note(f"{utc_now():%H:%M:%S}  {line}")

    way = Way(session, fleet, mirrors, push, partial(_make, session), tell, lambda: None)
    offer = Offer(
        name or f"{socket.gethostname()}-{os.getpid()}",
        slots,
        frozenset(filter(None, (label.strip() for label in labels.split(",")))),
        frozenset(_installed(settings, session)),
    )
    Worker(offer, way).work()
    return 0


def _installed(settings: Settings, session: Session) -> list[str]:
    path = session.environment.get("PATH")
    return [name for name, agent in agents(settings).items() if shutil.which(agent.command[0], path=path)]


def _make(session: Session, goal: str, place: tuple[Path, str], text: str) -> GoalSpec:
    """The goal that ``goalrun start -f`` would make of a goal file in this place."""
    require_outside(place[0], session.home)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "goal.toml")
        file.write_text(text, encoding="utf-8")
        loaded, flow = read_goal_file(file, place[0], {})
    settings = loaded.settings
    if not settings.checks and not settings.judge_only:
        raise SpecError("no check is given, and the repository has none: nothing could say when it is achieved")
    if settings.hidden_files is not None:
        raise SpecError("hidden_files of the repository's configuration are not on a worker")
    objective = objective_of("", None, settings.objective)
    use = group_use(settings, session) if flow is None else flow_use(flow, objective, settings, session)
    spec = make_spec(goal, objective, place, settings, session, force=False, flow=use)
    choose(spec, session.home.path)
    # The fleet waits in its place, with all goals of the account.
    return spec.but(wait_quota=False)


def end(database: str, name: str, of: str, verb: Literal["stop", "pause"], *, as_json: bool) -> int:
    """Ask goals to stop or to pause."""
    if not name and not of:
        raise SettingsError(f"which goal is to {verb}?", hint=f"goalrun fleet {verb} GOAL, or --submission NAME")
    told = []
    with opened(find_fleet(database).url) as db:
        for row in chosen(db, name, of):
            now = goals.ask(db, row, verb)
            told.append({"id": row["id"], "state": now or row["state"], "asked": verb if not now else ""})
    if as_json:
        print_json({"schema": 1, "goals": told})
    for each in [] if as_json else told:
        out(f"{each['id']}  " + (f"its worker was asked to {verb}" if each["asked"] else each["state"]))
    return 0


def resume(database: str, name: str, hint: str, limits: dict[str, str], *, as_json: bool) -> int:
    """Queue a goal that has ended, to go on."""
    with opened(find_fleet(database).url) as db:
        row = goals.find(db, name)
        resume_goal(db, row, hint, limits)
        _told(goals.find(db, row["id"]), as_json=as_json)
    return 0


def resume_goal(db: Connection, row: goals.Row, hint: str, limits: dict[str, str]) -> None:
    """Queue a goal that has ended, to go on with a hint and other limits.

    Raises:
        SpecError: it has not ended, or could not go on.
    """
    records = goals.records(db, row["id"])
    changed = ""
    if records:
        state = fold(records)
        new = after_resume(state, limits)
        require_room(state, new or state.spec.limits, "goalrun fleet resume")
        changed = new.model_dump_json() if new is not None else ""
    elif limits:
        raise SpecError(f"goal {row['id']} has not begun: it has no limits yet that could be changed")
    goals.resume(db, row, hint, changed)


def retry(database: str, name: str, *, as_json: bool) -> int:
    """Queue the same goal anew."""
    with opened(find_fleet(database).url) as db:
        row = goals.find(db, name)
        if row["ended_at"] is None:
            raise SpecError(f"goal {row['id']} is {row['state']}: it has not ended", hint="goalrun fleet stop it first")
        new = new_id(utc_now())
        goals.copy(db, row, new)
        _told(goals.find(db, new), as_json=as_json)
    return 0


def _told(row: goals.Row, *, as_json: bool) -> None:
    if as_json:
        print_json(result_of(row))
    else:
        out(f"{row['state']}  {row['id']}")


def drain(database: str, name: str, *, as_json: bool) -> int:
    """Have a worker end when its goals are over."""
    with opened(find_fleet(database).url) as db:
        if db.execute("UPDATE worker SET asked = 'drain' WHERE name = %s RETURNING name", [name]).fetchone() is None:
            raise UnknownGoal(f"the fleet has no worker {name!r}", hint="goalrun fleet status")
    if as_json:
        print_json({"schema": 1, "worker": name, "asked": "drain"})
    else:
        out(f"{name} begins nothing more, and ends when its goals are over")
    return 0


def limit(
    database: str, scope: str, name: str, given: tuple[float | None, int | None, int | None], *, as_json: bool
) -> int:
    """Bound spending, or how much is done at once."""
    usd, tokens, at_once = given
    if scope not in {"day", "submission", "account", "label"} or (scope == "day") == bool(name):
        raise SettingsError(
            f"{scope} {name!r} cannot be bounded", hint="day, or submission, account or label and its NAME"
        )
    if at_once is not None and scope not in {"account", "label"}:
        raise SettingsError(f"--at-once is for an account or a label, not for a {scope}")
    if scope == "label" and (usd is not None or tokens is not None):
        raise SettingsError("what a label's goals spend is not counted", hint="bound their account or submission")
    known = [each for each in given if each is not None]
    if not known or not all(0 <= each < math.inf for each in known):
        raise SettingsError(
            "no bound is given, or one that is no number from 0 on", hint="--max-usd X, --max-tokens N or --at-once N"
        )
    with opened(find_fleet(database).url) as db:
        goals.set_bound(db, scope, name, usd=usd, tokens=tokens, at_once=at_once)  # type: ignore[arg-type]
    if as_json:
        print_json(
            {"schema": 1, "scope": scope, "name": name, "max_usd": usd, "max_tokens": tokens, "at_once": at_once}
        )
    else:
        out(f"{scope} {name}".strip() + " is bounded")
    return 0
