"""The bodies of the commands that look at a fleet."""

import sys
import time
from pathlib import Path
from typing import Any

from goalrun.cli.progress import lines
from goalrun.cli.render import list_lines, note, out, painted, print_json, show_lines, status_lines
from goalrun.core import result
from goalrun.core.evidence import one_line
from goalrun.core.model import EXIT_CODES, GoalState, State
from goalrun.core.replay import apply, fold
from goalrun.core.spec import Limits
from goalrun.errors import EnvironmentFailure, SpecError
from goalrun.fleet import goals, objects
from goalrun.fleet.database import LOST, Connection, Fleet, find_fleet, opened

LOOK_SECONDS = 1.0
RUNNING_CODE = 0


def chosen(db: Connection, name: str, submission: str) -> list[goals.Row]:
    """The goals that are meant: one, those of a submission, or all; newest first.

    Raises:
        UnknownGoal: there is no such goal.
    """
    if name:
        return [goals.find(db, name)]
    return db.execute(
        "SELECT * FROM goal WHERE %(name)s = '' OR submission = %(name)s ORDER BY id DESC", {"name": submission}
    ).fetchall()


def result_of(row: goals.Row) -> dict[str, Any]:
    """A goal's result, as that of a local one, with what only a fleet knows under ``fleet``."""
    nothing = {
        "schema": result.SCHEMA, "id": row["id"], "objective": row["objective"], "workspace": "",
        "created_at": row["created_at"].isoformat(timespec="seconds"), "limits": Limits().model_dump(mode="json"),
        "usage": {"input_tokens": 0, "output_tokens": 0, "total_tokens": 0, "usd": 0.0, "seconds": 0.0},
        "grade": None, "sandbox": None, "worker_isolation": None, "verdict": None, "base": None,
        "base_verification": None, "snapshot": None, "best_turn": None, "turns": 0,
    }  # fmt: skip
    head = {**nothing, **(row["result"] or {}), "state": row["state"], "detail": row["detail"], "pid": None}
    if row["state"] == State.RUNNING.value:
        head["detail"] = head["detail"] or (row["result"] or {}).get("detail", "")
    own = (
        "key", "submission", "submitter", "repo", "ref", "labels", "agent", "account", "priority", "worker", "attempt",
        "takeovers", "delivered", "usd", "tokens", "blind_usd", "blind_tokens",
    )  # fmt: skip
    return {**head, "fleet": {name: row[name] for name in own}}


def listed(database: str, submission: str, state: str, *, as_json: bool) -> int:
    """The goals, newest first."""
    fleet = find_fleet(database)
    with opened(fleet.url) as db:
        rows = [row for row in chosen(db, "", submission) if not state or row["state"] == state]
    results = [result_of(row) for row in rows]
    if as_json:
        print_json({"schema": 1, "goals": results})
        return 0
    for line in list_lines(results):
        out(line)
    if not results:
        note("no such goals; goalrun fleet submit FILE.toml")
    return 0


def status(database: str, name: str, *, as_json: bool) -> int:
    """How the fleet, or one goal, stands."""
    fleet = find_fleet(database)
    with opened(fleet.url) as db:
        if name:
            row = goals.find(db, name)
            shown = result_of(row)
            shown["detail"] = shown["detail"] or why_queued(db, fleet, row)
            if as_json:
                print_json(shown)
            for line in [] if as_json else [*status_lines(shown), *_fleet_lines(shown["fleet"])]:
                out(line)
            return 0
        shown = overview_of(db, fleet)
    if as_json:
        print_json(shown)
    for line in [] if as_json else _overview_lines(shown):
        out(line)
    return 0


def overview_of(db: Connection, fleet: Fleet) -> dict[str, Any]:
    """How the fleet stands: goals by state, what was spent, who works, which accounts wait."""
    states = db.execute("SELECT state, count(*) AS n FROM goal GROUP BY state ORDER BY state").fetchall()
    bill = db.execute(
        "SELECT coalesce(sum(usd), 0) AS usd, coalesce(sum(tokens), 0)::bigint AS tokens,"
        " coalesce(sum(blind_usd), 0)::bigint AS runs_without_usd,"
        " coalesce(sum(blind_tokens), 0)::bigint AS runs_without_tokens FROM goal"
    ).fetchone()
    parked = db.execute("SELECT name, parked_until, detail FROM account WHERE parked_until > now()").fetchall()
    return {
        "schema": 1,
        "states": {row["state"]: row["n"] for row in states},
        "bill": bill,
        "workers": [
            {**row, "started_at": row["started_at"].isoformat(timespec="seconds")} for row in _workers(db, fleet)
        ],
        "parked": [{**row, "parked_until": row["parked_until"].isoformat(timespec="seconds")} for row in parked],
        "heartbeat": fleet.heartbeat,
    }


def _workers(db: Connection, fleet: Fleet) -> list[dict[str, Any]]:
    return db.execute(
        "SELECT name, host, pid, slots, labels, agents, version, asked, started_at,"
        " extract(epoch FROM now() - last_heartbeat)::float AS silent,"
        " now() - last_heartbeat < %s * interval '1 second' AS alive,"
        " (SELECT count(*) FROM goal WHERE goal.worker = worker.name) AS goals"
        " FROM worker JOIN procrastinate_workers ON id = engine ORDER BY name",
        [fleet.silent],
    ).fetchall()


def why_queued(db: Connection, fleet: Fleet, row: goals.Row) -> str:
    """Why nobody can take a goal, where that is so."""
    if row["state"] != "queued":
        return ""
    alive = [worker for worker in _workers(db, fleet) if worker["alive"]]
    if not alive:
        return "no worker lives: goalrun fleet worker"
    able = [worker for worker in alive if set(row["labels"]) <= set(worker["labels"])]
    if not able:
        return f"no worker that lives has the labels {', '.join(row['labels'])}"
    if row["agent"] and not any(row["agent"] in worker["agents"] for worker in able):
        return f"no worker that lives has the agent {row['agent']}"
    return ""


def _fleet_lines(own: dict[str, Any]) -> list[str]:
    found = [f"  repository  {one_line(own['repo'], 200)} {one_line(own['ref'])}"]
    found.append(f"  attempt     {own['attempt']}, taken over {own['takeovers']} times")
    if own["worker"]:
        found.append(f"  worker      {one_line(own['worker'])}")
    if own["delivered"]:
        found.append(f"  delivered   {one_line(own['delivered'], 400)}")
    return found


def _overview_lines(shown: dict[str, Any]) -> list[str]:
    found = [f"{count:>6}  {painted(state, sys.stdout)}" for state, count in shown["states"].items()]
    bill = shown["bill"]
    found.append(f"  spent     {bill['usd']:.4f} USD, {bill['tokens']} tokens")
    if bill["runs_without_usd"] or bill["runs_without_tokens"]:
        found.append(
            f"            and what nobody reported: USD of {bill['runs_without_usd']} runs,"
            f" tokens of {bill['runs_without_tokens']}"
        )
    for worker in shown["workers"]:
        alive = "alive" if worker["alive"] else f"silent for {worker['silent']:.0f} s"
        asked = f", {worker['asked']}" if worker["asked"] else ""
        found.append(f"  worker    {worker['name']}: {alive}{asked}, {worker['goals']} of {worker['slots']} slots")
    return found + [
        f"  account   {account['name']} waits until {account['parked_until']}: {one_line(account['detail'])}"
        for account in shown["parked"]
    ]


def show(database: str, name: str, bundle: Path | None, *, as_json: bool) -> int:
    """A goal turn by turn; or what it delivered, as a file."""
    with opened(find_fleet(database).url) as db:
        row = goals.find(db, name)
        if bundle is not None:
            _write_bundle(db, row, bundle)
        records = goals.records(db, row["id"])
    turns = [result.turn(record) for record in fold(records).turns] if records else []
    shown = {**result_of(row), "turn_records": turns}
    if as_json:
        print_json(shown)
    for line in [] if as_json else [*show_lines(shown), *_fleet_lines(shown["fleet"])]:
        out(line)
    return 0


def _write_bundle(db: Connection, row: goals.Row, path: Path) -> None:
    found = False
    try:
        with path.open("xb") as file:
            for _, _, data in objects.parts(db, row["id"], (objects.BUNDLE,)):
                file.write(data)
                found = True
    except OSError as failure:
        raise EnvironmentFailure(f"cannot write {path}: {failure.strerror}") from failure
    if not found:
        path.unlink()
        raise SpecError(f"goal {row['id']} delivered no bundle: {row['delivered'] or 'nothing yet'}")
    note(f"git fetch {path} goalrun/{row['id']}:goalrun/{row['id']}")


def logs(database: str, name: str, *, follow: bool, as_json: bool) -> int:
    """Record by record."""
    fleet = find_fleet(database)
    state: GoalState | None = None
    seq = 0
    with opened(fleet.url) as db:
        goal = goals.find(db, name)["id"]
        while True:
            # Asked before reading: what is written until then is read below.
            over = goals.find(db, goal)["ended_at"] is not None
            for record in goals.records(db, goal, seq):
                state, seq = apply(state, record), record.seq
                told = [record.model_dump_json()] if as_json else lines(record, state, sys.stdout)
                for line in told:
                    out(line if as_json else f"{record.at[11:19]}  {line}")
            if over or not follow:
                return 0
            sys.stdout.flush()
            time.sleep(LOOK_SECONDS)


def watch(database: str, name: str, submission: str, *, as_json: bool) -> int:
    """Until all are over; told are changes of state."""
    fleet = find_fleet(database)
    told: dict[str, str] = {}
    while True:
        try:
            with opened(fleet.url) as db:
                rows = chosen(db, name, submission)
        except (EnvironmentFailure, *LOST) as failure:
            note(f"goalrun: {failure}; waiting")
            time.sleep(LOOK_SECONDS)
            continue
        for row in rows:
            if told.get(row["id"]) != row["state"]:
                note(f"{row['id']}  {row['state']}  {one_line(row['detail'])}")
                told[row["id"]] = row["state"]
        if all(row["ended_at"] is not None for row in rows):
            break
        time.sleep(LOOK_SECONDS)
    if as_json:
        shown = [result_of(row) for row in rows]
        print_json(shown[0] if name else {"schema": 1, "goals": shown})
    codes = [EXIT_CODES[State(row["state"])] for row in reversed(rows)]
    return next((code for code in codes if code), 0)
