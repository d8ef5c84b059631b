"""Goals in the database: submitted, claimed, taken over, ended. One transaction each.

``attempt`` is the fencing token: it changes with every claim and every loss, and who holds another one writes nothing.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Literal, NamedTuple

from goalrun.core.events import Record
from goalrun.errors import EnvironmentFailure, SpecError, UnknownGoal
from goalrun.fleet.database import LOCK, Connection
from goalrun.fleet.queue import Queued, defer
from goalrun.fleet.submission import Submission, Wanted

Row = dict[str, Any]
MAX_FAILURES = 5
"""How often a run may end without saying why, before its goal is given up."""
FREE = "worker IS NULL AND ended_at IS NULL"
OVER_BUDGET = """
SELECT bound.scope, bound.name, bound.max_usd, bound.max_tokens, sums.*
FROM bound, LATERAL (
    SELECT coalesce(sum(spend.usd), 0) AS usd, coalesce(sum(spend.tokens), 0) AS tokens,
           coalesce(sum(spend.blind_usd), 0) AS blind_usd, coalesce(sum(spend.blind_tokens), 0) AS blind_tokens
    FROM spend JOIN goal ON goal.id = spend.goal
    WHERE CASE bound.scope WHEN 'day' THEN spend.day = (now() AT TIME ZONE 'UTC')::date
                           WHEN 'submission' THEN goal.submission = bound.name
                           ELSE goal.account = bound.name END) AS sums
WHERE (bound.max_usd IS NOT NULL OR bound.max_tokens IS NOT NULL)
  AND (bound.scope, bound.name) IN (('day', ''), ('submission', %(submission)s), ('account', %(account)s))
  AND (sums.usd >= bound.max_usd OR sums.tokens >= bound.max_tokens
       OR (bound.max_usd IS NOT NULL AND sums.blind_usd > 0)
       OR (bound.max_tokens IS NOT NULL AND sums.blind_tokens > 0))
LIMIT 1
"""


class Mine(NamedTuple):
    """A goal that a worker has claimed, with its fencing token."""

    id: str
    attempt: int
    job: int
    row: Row


def submit(db: Connection, submission: Submission, new_id: Callable[[], str]) -> list[str]:
    """Queue all goals of a submission, or none; their ids.

    Raises:
        SpecError: one of them was submitted before.
    """
    with db.transaction():
        keys = [goal.key for goal in submission.goals]
        known = db.execute("SELECT id, key FROM goal WHERE key = ANY(%s) ORDER BY key", [keys]).fetchall()
        if known:
            more = f" and {len(known) - 1} more" if len(known) > 1 else ""
            raise SpecError(
                f"submitted before: {known[0]['key']} is {known[0]['id']}{more}; nothing was queued",
                hint="take it out, or give it another key",
            )
        set_bound(db, "submission", submission.name, usd=submission.max_usd, tokens=submission.max_tokens)
        ids = [_insert(db, new_id, submission, each) for each in submission.goals]
        _defer(db, [_queued(goal, each) for goal, each in zip(ids, submission.goals, strict=True)])
    return ids


def _insert(db: Connection, new_id: Callable[[], str], submission: Submission, wanted: Wanted) -> str:
    values = {
        **wanted.model_dump(exclude={"labels"}),
        "labels": sorted(wanted.labels),
        "submission": submission.name,
        "submitter": submission.submitter,
    }
    while True:
        # Ids are a time and some chance: of thousands at once two can be the same.
        row = db.execute(
            "INSERT INTO goal (id, key, submission, submitter, repo, ref, file, objective, labels, agent, account,"
            " priority, queue) VALUES (%(id)s, %(key)s, %(submission)s, %(submitter)s, %(repo)s, %(ref)s, %(file)s,"
            " %(objective)s, %(labels)s, %(agent)s, %(account)s, %(priority)s, %(queue)s)"
            " ON CONFLICT (id) DO NOTHING RETURNING id",
            {**values, "id": new_id()},
        ).fetchone()
        if row is not None:
            return str(row["id"])


def _queued(goal: str, wanted: Wanted) -> Queued:
    return Queued(goal, wanted.queue, _lock(wanted.model_dump()), wanted.priority)


def _lock(goal: Mapping[str, Any]) -> str:
    """What one goal at a time has.

    For the engine an earlier goal with the same lock comes first, though nobody may be able to do it: so each queue has
    locks of its own, and ``claim`` sees to the rest.
    """
    return "\n".join((goal["queue"], goal["repo"], goal["ref"]))


def _defer(db: Connection, goals: Sequence[Queued]) -> None:
    for queued, job in zip(goals, defer(db, goals), strict=True):
        db.execute("UPDATE goal SET job = %s WHERE id = %s", [job, queued.goal])


def set_bound(
    db: Connection,
    scope: Literal["submission", "day", "account", "label"],
    name: str,
    *,
    usd: float | None = None,
    tokens: int | None = None,
    at_once: int | None = None,
) -> None:
    """Bound what is spent, or how many goals run at once; what is None is not changed."""
    db.execute(
        "INSERT INTO bound (scope, name, at_once, max_usd, max_tokens)"
        " VALUES (%(scope)s, %(name)s, %(at_once)s, %(usd)s, %(tokens)s)"
        " ON CONFLICT (scope, name) DO UPDATE SET at_once = coalesce(excluded.at_once, bound.at_once),"
        " max_usd = coalesce(excluded.max_usd, bound.max_usd),"
        " max_tokens = coalesce(excluded.max_tokens, bound.max_tokens)",
        {"scope": scope, "name": name, "at_once": at_once, "usd": usd, "tokens": tokens},
    )


def open_queues(db: Connection, labels: Iterable[str], agents: Iterable[str]) -> list[str]:
    """The queues that a worker may take a goal from now, the one whose turn it is first.

    The highest priority first, then the submitter with the fewest goals under way, then the oldest; goals whose branch
    is busy are passed over. Left out are those that need a label or an agent that the worker has not, and those of an
    account or label that is parked or full.
    """
    rows = db.execute(
        """
        WITH RECURSIVE busy AS MATERIALIZED (
            SELECT submitter, account, labels, repo, ref FROM goal WHERE worker IS NOT NULL),
        -- A loose index scan: there are few queues, and thousands of goals in each.
        known (queue) AS (
            (SELECT queue FROM goal WHERE worker IS NULL AND ended_at IS NULL ORDER BY queue LIMIT 1)
            UNION ALL
            SELECT (SELECT goal.queue FROM goal WHERE worker IS NULL AND ended_at IS NULL AND goal.queue > known.queue
                    ORDER BY goal.queue LIMIT 1)
            FROM known WHERE queue IS NOT NULL),
        free AS (
            SELECT first.* FROM known, LATERAL (
                SELECT queue, submitter, account, labels, agent, priority, created_at FROM goal
                WHERE worker IS NULL AND ended_at IS NULL AND goal.queue = known.queue
                  AND (repo, ref) NOT IN (SELECT repo, ref FROM busy)
                ORDER BY priority DESC, created_at LIMIT 1) AS first)
        SELECT queue FROM free
        WHERE labels <@ %(labels)s::text[] AND (agent = '' OR agent = ANY(%(agents)s::text[]))
          AND NOT EXISTS (SELECT FROM account WHERE name = free.account AND parked_until > now())
          AND NOT EXISTS (SELECT FROM bound WHERE at_once IS NOT NULL AND (
                (scope = 'account' AND name = free.account
                 AND at_once <= (SELECT count(*) FROM busy WHERE busy.account = name))
                OR (scope = 'label' AND name = ANY(free.labels)
                    AND at_once <= (SELECT count(*) FROM busy WHERE name = ANY(busy.labels)))))
        ORDER BY priority DESC, (SELECT count(*) FROM busy WHERE busy.submitter = free.submitter), created_at
        """,
        {"labels": [*labels], "agents": [*agents]},
    )
    return [row["queue"] for row in rows]


def claim(db: Connection, goal: str, job: int, worker: str) -> Mine | None:
    """Make a goal that was fetched ours; None where it is over, or its branch, account or label is busy."""
    with db.transaction():
        # Two workers that count at once would both find room.
        db.execute("SELECT pg_advisory_xact_lock(%s)", [LOCK + 1])
        found = db.execute(
            f"SELECT queue FROM goal WHERE id = %s AND job = %s AND {FREE}"  # noqa: S608 - no input
            " AND NOT EXISTS (SELECT FROM goal AS busy"
            " WHERE busy.worker IS NOT NULL AND busy.repo = goal.repo AND busy.ref = goal.ref)",
            [goal, job],
        ).fetchone()
        row = found and db.execute("SELECT labels, agent FROM goal WHERE id = %s", [goal]).fetchone()
        if not found or not row or found["queue"] not in open_queues(db, row["labels"], [row["agent"]]):
            return None
        claimed = db.execute(
            "UPDATE goal SET attempt = attempt + 1, worker = %s, state = 'running', detail = '', parked_until = NULL,"
            " started_at = coalesce(started_at, now()) WHERE id = %s RETURNING *",
            [worker, goal],
        ).fetchone()
        return Mine(goal, claimed["attempt"], job, claimed) if claimed else None


def give_back(db: Connection, mine: Mine, detail: str, *, failed: bool = False) -> bool:
    """Let a goal be claimed by others; after too many runs that failed it ends in ``error``. False if it was lost."""
    state = "CASE WHEN %(failed)s AND failures >= %(most)s THEN 'error' ELSE 'queued' END"
    row = db.execute(
        f"UPDATE goal SET attempt = attempt + 1, worker = NULL, detail = %(detail)s, state = {state},"  # noqa: S608
        " ended_at = CASE WHEN %(failed)s AND failures >= %(most)s THEN now() END,"
        " failures = failures + %(failed)s::integer WHERE id = %(id)s AND attempt = %(attempt)s RETURNING id",
        {"detail": detail, "failed": failed, "most": MAX_FAILURES - 1, "id": mine.id, "attempt": mine.attempt},
    ).fetchone()
    return row is not None


def park(db: Connection, mine: Mine, until: datetime, detail: str) -> bool:
    """Have a goal, and all of its account, wait for a provider's limit to end. False if it was lost."""
    with db.transaction():
        row = db.execute(
            "UPDATE goal SET attempt = attempt + 1, worker = NULL, state = 'rate_limited', detail = %s,"
            " resume_from = seq, parked_until = %s WHERE id = %s AND attempt = %s RETURNING account",
            [detail, until, mine.id, mine.attempt],
        ).fetchone()
        if row is not None and row["account"]:
            db.execute(
                "INSERT INTO account VALUES (%s, %s, %s) ON CONFLICT (name) DO UPDATE SET detail = excluded.detail,"
                " parked_until = greatest(account.parked_until, excluded.parked_until)",
                [row["account"], until, detail],
            )
    return row is not None


def end(db: Connection, mine: Mine, state: str, detail: str, delivered: str = "") -> bool:
    """The goal is over, until somebody resumes it. False if it was lost."""
    row = db.execute(
        "UPDATE goal SET attempt = attempt + 1, worker = NULL, state = %s, detail = %s, delivered = %s, asked = '',"
        " ended_at = now() WHERE id = %s AND attempt = %s RETURNING id",
        [state, detail, delivered, mine.id, mine.attempt],
    ).fetchone()
    return row is not None


def take_over(db: Connection, silent: float) -> list[Row]:
    """Take the goals of workers that are gone: from now on the writes of those are refused.

    While the server was down nobody could speak: after its start all get the time to do so.

    Args:
        db: the database.
        silent: seconds without a word after which a worker is gone.

    Returns:
        The goals, and whose they were.
    """
    # One that is being written to right now waits for the next look: a stopped process may hold it.
    return db.execute(
        """
        WITH lost AS (
            SELECT goal.id, goal.worker FROM goal
            WHERE worker IS NOT NULL AND now() - pg_postmaster_start_time() > %(silent)s * interval '1 second'
              AND NOT EXISTS (
                SELECT FROM worker JOIN procrastinate_workers ON procrastinate_workers.id = engine
                WHERE name = goal.worker AND last_heartbeat >= now() - %(silent)s * interval '1 second')
            FOR UPDATE SKIP LOCKED)
        UPDATE goal SET attempt = attempt + 1, worker = NULL, takeovers = takeovers + 1, state = 'queued',
            detail = 'taken over from ' || lost.worker || ', which was silent'
        FROM lost WHERE goal.id = lost.id RETURNING goal.id, lost.worker
        """,
        {"silent": silent},
    ).fetchall()


def over_budget(db: Connection, goal: Row) -> str:
    """Which bound on spending is reached, in one line; "" for none. Spend that nobody knows counts as reached."""
    row = db.execute(OVER_BUDGET, {"submission": goal["submission"], "account": goal["account"]}).fetchone()
    if row is None:
        return ""
    whose = "today" if row["scope"] == "day" else f"by {row['scope']} {row['name']}"
    if row["max_usd"] is not None and row["usd"] >= row["max_usd"]:
        return f"{row['usd']:.4f} of {row['max_usd']:.4f} USD are spent {whose}"
    if row["max_tokens"] is not None and row["tokens"] >= row["max_tokens"]:
        return f"{row['tokens']} of {row['max_tokens']} tokens are spent {whose}"
    blind = row["blind_usd"] if row["max_usd"] is not None else row["blind_tokens"]
    return f"what {blind} runs spent {whose} is not known, and there is a limit"


def parked(db: Connection, account: str) -> datetime | None:
    """Until when an account waits for its provider; None if it does not."""
    row = db.execute("SELECT parked_until FROM account WHERE name = %s AND parked_until > now()", [account]).fetchone()
    return row["parked_until"] if row else None


def find(db: Connection, name: str) -> Row:
    """The goal that a user means: an id, a unique beginning of one, or its key.

    Raises:
        UnknownGoal: there is none, or more than one.
    """
    rows = db.execute(
        "SELECT * FROM goal WHERE id = %(name)s OR key = %(name)s OR starts_with(id, %(name)s)"
        " OR starts_with(id, 'g-' || %(name)s) ORDER BY id <> %(name)s AND key <> %(name)s LIMIT 2",
        {"name": name},
    ).fetchall()
    if not rows:
        raise UnknownGoal(f"the fleet has no goal {name!r}", hint="goalrun fleet list")
    if len(rows) > 1 and name not in {rows[0]["id"], rows[0]["key"]}:
        raise UnknownGoal(f"{name!r} is ambiguous: {rows[0]['id']}, {rows[1]['id']}", hint="give more of the id")
    return rows[0]


def ask(db: Connection, goal: Row, verb: Literal["stop", "pause"]) -> str:
    """Ask a goal to stop or to pause; one that no worker has does so at once. Its state, "" where its worker has to."""
    over = {"stop": "stopped", "pause": "paused"}[verb]
    with db.transaction():
        row = db.execute("SELECT worker, state, ended_at FROM goal WHERE id = %s FOR UPDATE", [goal["id"]]).fetchone()
        if row is None or row["ended_at"] is not None:
            return str(row["state"]) if row else ""
        if row["worker"] is not None:
            db.execute("UPDATE goal SET asked = %s WHERE id = %s", [verb, goal["id"]])
            return ""
        # Its job is dropped by whoever fetches it: the goal is over.
        db.execute(
            "UPDATE goal SET attempt = attempt + 1, state = %s, detail = %s, ended_at = now(), parked_until = NULL"
            " WHERE id = %s",
            [over, f"goalrun fleet {verb}, before a worker had it", goal["id"]],
        )
        return over


def resume(db: Connection, goal: Row, hint: str, limits: str) -> None:
    """Queue a goal that has ended, to go on from its last record.

    Raises:
        SpecError: it has not ended, or is achieved.
    """
    if goal["ended_at"] is None or goal["state"] == "achieved":
        raise SpecError(f"goal {goal['id']} is {goal['state']}; there is nothing to resume")
    with db.transaction():
        db.execute(
            "UPDATE goal SET state = 'queued', detail = '', asked = '', hint = %s, limits = %s, ended_at = NULL,"
            " resume_from = seq, failures = 0 WHERE id = %s AND ended_at IS NOT NULL",
            [hint, limits, goal["id"]],
        )
        _defer(db, [Queued(goal["id"], goal["queue"], _lock(goal), goal["priority"])])


def copy(db: Connection, goal: Row, new: str) -> None:
    """Queue the same goal again, from the start and under a new id; what the old one spent stays where it is."""
    count = db.execute("SELECT count(*) AS n FROM goal WHERE starts_with(key, %s)", [goal["key"]]).fetchone()
    key = f"{goal['key']} (again {count['n'] if count else 1})"
    with db.transaction():
        db.execute(
            "INSERT INTO goal (id, key, submission, submitter, repo, ref, file, objective, labels, agent, account,"
            " priority, queue) SELECT %s, %s, submission, submitter, repo, ref, file, objective, labels, agent,"
            " account, priority, queue FROM goal WHERE id = %s",
            [new, key, goal["id"]],
        )
        _defer(db, [Queued(new, goal["queue"], _lock(goal), goal["priority"])])


def records(db: Connection, goal: str, after: int = 0) -> list[Record]:
    """A goal's records, oldest first.

    Raises:
        EnvironmentFailure: a newer goalrun wrote them.
    """
    rows = db.execute(
        "SELECT seq, at, elapsed, body FROM record WHERE goal = %s AND seq > %s ORDER BY seq", [goal, after]
    )
    try:
        return [
            Record(seq=row["seq"], at=row["at"], elapsed=row["elapsed"], event=json.loads(row["body"])) for row in rows
        ]
    except ValueError as failure:
        raise EnvironmentFailure(
            f"the records of goal {goal} cannot be read: {failure}", hint="upgrade goalrun"
        ) from failure
