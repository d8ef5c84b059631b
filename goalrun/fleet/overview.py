"""How the fleet does, read from its tables: over time, its queue, its accounts, its checks. Nothing here writes."""

import json
from collections import defaultdict
from collections.abc import Iterable
from itertools import islice
from typing import LiteralString, NamedTuple

from goalrun.fleet.database import Connection
from goalrun.fleet.goals import FREE, Row
from goalrun.pages.model import CheckTimes, Slot

HOURS, DAYS = 48, 60
"""So many bars a plot has at most: hours of a fleet that is younger than that, else days."""
GOALS_LOOKED_AT, MOST_RUNS = 200, 500
"""Checks are read from the records of the goals that were worked on last."""
VERIFIED = '"kind":"verification_finished"'
"""Within the first characters of the record of a turn's checks: no text in one can look like that."""


class CheckRun(NamedTuple):
    """One check, run for a goal."""

    goal: str
    command: str
    outcome: str
    seconds: float


def over_time(db: Connection) -> tuple[str, list[Slot]]:
    """What was spent and ended, oldest first: ``hour`` or ``day``, and a slot for each, with nothing in it too."""
    row = db.execute(
        "SELECT extract(epoch FROM now() - least(min(hour), (SELECT min(ended_at) FROM goal)))::float AS age FROM spend"
    ).fetchone()
    hours = int(row["age"] // 3600) + 1 if row is not None and row["age"] is not None else 0
    if hours < HOURS:
        return "hour", _slots(db, "hour", hours + 1)
    return "day", _slots(db, "day", min(DAYS, hours // 24 + 2))


def _slots(db: Connection, unit: LiteralString, count: int) -> list[Slot]:
    rows = db.execute(
        """
        WITH slot AS (
            SELECT date_trunc(%(unit)s, now() AT TIME ZONE 'UTC') - n * ('1 ' || %(unit)s)::interval AS at
            FROM generate_series(0, %(count)s - 1) AS n),
        spent AS (
            SELECT date_trunc(%(unit)s, hour AT TIME ZONE 'UTC') AS at, sum(usd) AS usd, sum(tokens) AS tokens,
                   sum(greatest(blind_usd, blind_tokens)) AS unknown FROM spend GROUP BY 1),
        ended AS (
            SELECT date_trunc(%(unit)s, ended_at AT TIME ZONE 'UTC') AS at,
                   count(*) FILTER (WHERE state = 'achieved') AS achieved,
                   count(*) FILTER (WHERE state <> 'achieved') AS other
            FROM goal WHERE ended_at IS NOT NULL GROUP BY 1)
        SELECT at, coalesce(usd, 0) AS usd, coalesce(tokens, 0)::bigint AS tokens,
               coalesce(unknown, 0)::bigint AS unknown, coalesce(achieved, 0) AS achieved, coalesce(other, 0) AS other
        FROM slot LEFT JOIN spent USING (at) LEFT JOIN ended USING (at) ORDER BY at
        """,
        {"unit": unit, "count": count},
    )
    return [Slot(**row) for row in rows]


def queue(db: Connection) -> tuple[int, float]:
    """How many goals wait for a worker or a provider, and for how many seconds the oldest has."""
    row = db.execute(
        "SELECT count(*) AS n, coalesce(extract(epoch FROM now() - min(created_at)), 0)::float AS oldest"  # noqa: S608
        f" FROM goal WHERE {FREE}"
    ).fetchone()
    return (row["n"], row["oldest"]) if row else (0, 0.0)


def latest(db: Connection, state: str, most: int) -> list[Row]:
    """The goals that people want to see, of one state or all: those under way, then the newest that happened."""
    return db.execute(
        "SELECT * FROM goal WHERE %(state)s IN ('', state)"
        " ORDER BY worker IS NULL, coalesce(ended_at, created_at) DESC, id DESC LIMIT %(most)s",
        {"state": state, "most": most},
    ).fetchall()


def accounts(db: Connection) -> list[Row]:
    """What each ``account`` spent: ``usd``, ``tokens``, ``blind_usd``, ``blind_tokens``; oldest first."""
    return db.execute(
        "SELECT account, sum(usd) AS usd, sum(tokens)::bigint AS tokens, sum(blind_usd)::bigint AS blind_usd,"
        " sum(blind_tokens)::bigint AS blind_tokens FROM goal GROUP BY account ORDER BY min(created_at), account"
    ).fetchall()


def totals(db: Connection) -> Row:
    """``turns`` and ``takeovers`` of all goals."""
    row = db.execute(
        "SELECT coalesce(sum(turns), 0)::bigint AS turns, coalesce(sum(takeovers), 0)::bigint AS takeovers FROM goal"
    ).fetchone()
    return row or {}


def checks(db: Connection) -> list[CheckRun]:
    """The checks that ran last, the slowest first."""
    rows = db.execute(
        "SELECT record.goal, body FROM ("
        "    SELECT id FROM goal WHERE started_at IS NOT NULL"
        "    ORDER BY coalesce(ended_at, 'infinity') DESC, started_at DESC LIMIT %s) AS late"
        " JOIN record ON record.goal = late.id WHERE strpos(left(body, 64), %s) > 0 ORDER BY written DESC LIMIT %s",
        [GOALS_LOOKED_AT, VERIFIED, MOST_RUNS],
    )
    # Not by the server: its JSON holds no NUL, which a check may have printed.
    found = [
        CheckRun(row["goal"], check["command"], check["outcome"], check["seconds"])
        for row in rows
        for check in json.loads(row["body"])["report"]["checks"]
    ]
    return sorted(found, key=lambda run: run.seconds, reverse=True)


def slowest(runs: Iterable[CheckRun], most: int) -> list[CheckTimes]:
    """The commands that took longest, with all their runs; ``runs`` has the slowest first."""
    found: dict[str, list[CheckRun]] = defaultdict(list)
    for run in runs:
        found[run.command].append(run)
    return [
        CheckTimes(
            command,
            len(each),
            sum(run.outcome != "pass" for run in each),
            each[0].seconds,
            sum(run.seconds for run in each) / len(each),
            each[0].goal,
        )
        for command, each in islice(found.items(), most)
    ]


def mark(db: Connection, silent: float, goal: str = "") -> str:
    """What is another text when what there is to see, of a goal or of all, is another one; at most 15 s later."""
    if goal:
        row = db.execute("SELECT row(seq, attempt, state, detail, asked)::text AS mark FROM goal WHERE id = %s", [goal])
    else:
        row = db.execute(
            "SELECT concat((SELECT row(count(*), sum(seq), sum(attempt), count(ended_at)) FROM goal), (SELECT"
            " string_agg(row(name, engine, asked, last_heartbeat > now() - %s * interval '1 second')::text, ' '"
            " ORDER BY name) FROM worker JOIN procrastinate_workers ON id = engine),"
            " extract(epoch FROM now())::bigint / 15) AS mark",
            [silent],
        )
    found = row.fetchone()
    return str(found["mark"]) if found else ""
