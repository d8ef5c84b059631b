"""The fleet's database: how it is reached, and its tables. The home of psycopg.

Everything lies in the schema ``goalrun_fleet``, the engine's own tables too; so a database can be shared.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, LiteralString, NamedTuple, TypeVar

import psycopg
from psycopg.rows import DictRow, dict_row

from goalrun.errors import EnvironmentFailure, SettingsError

URL_VARIABLE = "GOALRUN_FLEET_URL"
SCHEMA = "goalrun_fleet"
LOCK = 0x676F616C
"""Advisory lock of those who change the tables, or take goals over: one at a time."""
SETTINGS = {
    "connect_timeout": "5",
    "keepalives_idle": "5",
    "keepalives_interval": "3",
    "keepalives_count": "3",
    "tcp_user_timeout": "10000",
}
"""So that a cut network shows within seconds, not hours (PostgreSQL manual, 34.1.2)."""
SERVER_SETTINGS = {
    "search_path": SCHEMA,
    "tcp_keepalives_idle": "5",
    "tcp_keepalives_interval": "3",
    "tcp_keepalives_count": "3",
    "lock_timeout": "10s",
}
Connection = psycopg.Connection[DictRow]
Lost = psycopg.OperationalError
LOST = (Lost, psycopg.InterfaceError, psycopg.errors.IdleInTransactionSessionTimeout)
"""The database cannot be reached, or has dropped the connection: wait, and try again."""
SILENT = 1.5
"""Heartbeats without a word that are too many."""
IDLE_SECONDS = 60.0
"""A transaction of which nothing is heard for so long is ended by the server: its process may be stopped."""
T = TypeVar("T")

MIGRATIONS: tuple[LiteralString, ...] = (
    """
    CREATE TABLE goal (
        id text PRIMARY KEY, key text NOT NULL UNIQUE, submission text NOT NULL, submitter text NOT NULL,
        repo text NOT NULL, ref text NOT NULL, base text NOT NULL DEFAULT '', file text NOT NULL,
        objective text NOT NULL, labels text[] NOT NULL, agent text NOT NULL, account text NOT NULL,
        priority integer NOT NULL, queue text NOT NULL, job bigint,
        state text NOT NULL DEFAULT 'queued', detail text NOT NULL DEFAULT '', attempt integer NOT NULL DEFAULT 0,
        worker text, asked text NOT NULL DEFAULT '', hint text NOT NULL DEFAULT '', limits text NOT NULL DEFAULT '',
        seq integer NOT NULL DEFAULT 0, resume_from integer NOT NULL DEFAULT 0, turns integer NOT NULL DEFAULT 0,
        result jsonb,
        usd double precision NOT NULL DEFAULT 0, tokens bigint NOT NULL DEFAULT 0, blind_usd integer NOT NULL DEFAULT 0,
        blind_tokens integer NOT NULL DEFAULT 0, takeovers integer NOT NULL DEFAULT 0,
        failures integer NOT NULL DEFAULT 0, delivered text NOT NULL DEFAULT '',
        created_at timestamptz NOT NULL DEFAULT now(), started_at timestamptz, parked_until timestamptz,
        ended_at timestamptz);
    CREATE INDEX goal_free ON goal (queue, priority DESC, created_at)
        WHERE worker IS NULL AND ended_at IS NULL;
    CREATE INDEX goal_busy ON goal (worker) WHERE worker IS NOT NULL;
    CREATE INDEX goal_job ON goal (job);
    CREATE INDEX goal_submission ON goal (submission);
    CREATE INDEX job_lock ON procrastinate_jobs (lock, priority DESC, id) WHERE status IN ('todo', 'doing');
    CREATE TABLE record (
        goal text NOT NULL REFERENCES goal, seq integer NOT NULL, attempt integer NOT NULL, at text NOT NULL,
        elapsed double precision NOT NULL, body text NOT NULL, written timestamptz NOT NULL DEFAULT clock_timestamp(),
        PRIMARY KEY (goal, seq));
    CREATE TABLE part (
        number bigserial PRIMARY KEY, goal text NOT NULL REFERENCES goal, kind text NOT NULL, name text NOT NULL,
        data bytea NOT NULL);
    CREATE INDEX part_goal ON part (goal, number);
    CREATE TABLE spend (
        day date NOT NULL, goal text NOT NULL REFERENCES goal, usd double precision NOT NULL, tokens bigint NOT NULL,
        blind_usd integer NOT NULL, blind_tokens integer NOT NULL, PRIMARY KEY (day, goal));
    CREATE TABLE worker (
        name text PRIMARY KEY, engine bigint NOT NULL, host text NOT NULL, pid integer NOT NULL, slots integer NOT NULL,
        labels text[] NOT NULL, agents text[] NOT NULL, version text NOT NULL, asked text NOT NULL DEFAULT '',
        started_at timestamptz NOT NULL DEFAULT now());
    CREATE TABLE account (name text PRIMARY KEY, parked_until timestamptz, detail text NOT NULL DEFAULT '');
    CREATE TABLE bound (
        scope text NOT NULL, name text NOT NULL, at_once integer, max_usd double precision, max_tokens bigint,
        PRIMARY KEY (scope, name));
    """,
    """
    ALTER TABLE spend ADD COLUMN hour timestamptz NOT NULL DEFAULT date_trunc('hour', now(), 'UTC');
    UPDATE spend SET hour = day::timestamp AT TIME ZONE 'UTC';
    ALTER TABLE spend DROP CONSTRAINT spend_pkey, ADD PRIMARY KEY (day, goal, hour);
    """,
)
"""One after another; what was released is never changed. Its length is the format."""


class Fleet(NamedTuple):
    """A fleet's database.

    Attributes:
        url: how it is reached; may hold a password.
        heartbeat: seconds.
    """

    url: str
    heartbeat: float

    @property
    def silent(self) -> float:
        """Seconds without a word after which a worker has lost its goals."""
        return SILENT * self.heartbeat


def url_of(given: str) -> str:
    """The database that is meant.

    Raises:
        SettingsError: none is.
    """
    url = given or os.environ.get(URL_VARIABLE, "")
    if not url:
        raise SettingsError("no database is given", hint=f"--database URL, or set {URL_VARIABLE}")
    return url


def connect(url: str, idle: float = IDLE_SECONDS) -> Connection:
    """A connection that commits each statement, unless ``transaction()`` says otherwise.

    Args:
        url: of the database.
        idle: seconds; see ``IDLE_SECONDS``.

    Raises:
        Lost: the database cannot be reached.
        SettingsError: the URL is none.
    """
    timeout = {"idle_in_transaction_session_timeout": f"{idle * 1000:.0f}"}
    options = " ".join(f"-c {name}={value}" for name, value in {**SERVER_SETTINGS, **timeout}.items())
    try:
        # The URL's own settings win.
        known = psycopg.conninfo.conninfo_to_dict(url)
        return psycopg.connect(
            **{**SETTINGS, "options": options, "application_name": "goalrun", **known},  # type: ignore[arg-type]
            autocommit=True,
            row_factory=dict_row,
        )
    except psycopg.ProgrammingError as failure:
        raise SettingsError(
            f"the database's URL cannot be read: {first_line(failure)}", hint="postgresql://USER@HOST/DATABASE"
        ) from failure


@contextmanager
def opened(url: str) -> Iterator[Connection]:
    """The same for a command: what is wrong with the database is told in one line.

    Raises:
        EnvironmentFailure: it cannot be reached or used.
    """
    try:
        with connect(url) as db:
            yield db
    except LOST as failure:
        hint = "is it running, and do address, user and password fit? they can also be in PGPASSFILE"
        raise EnvironmentFailure(f"the database cannot be used: {first_line(failure)}", hint=hint) from failure
    except psycopg.errors.InsufficientPrivilege as failure:
        raise EnvironmentFailure(
            f"the database refuses: {first_line(failure)}", hint="grant the user its schema goalrun_fleet"
        ) from failure


def first_line(failure: BaseException) -> str:
    """What a failure says, in one line."""
    return (str(failure).strip() or type(failure).__name__).splitlines()[0]


def patiently(action: Callable[[], T], wait: Callable[[str], None]) -> T:
    """Do something that has to be done, however long the database is away.

    Args:
        action: opens its own connection, and can be done again.
        wait: called with what is wrong, between tries; what it raises ends them.
    """
    while True:
        try:
            return action()
        except LOST as failure:
            wait(first_line(failure))


def initialise(url: str, heartbeat: float | None, engine: Callable[[Connection, str], str]) -> tuple[int, int]:
    """Make the tables, or bring them up to date; does nothing to those that are.

    Args:
        url: of the database.
        heartbeat: seconds; None keeps what is set.
        engine: brings its own tables up to date from what it returned the last time.

    Returns:
        The format before, 0 for none, and now.

    Raises:
        SettingsError: they are of a newer goalrun.
    """
    with opened(url) as db, db.transaction():
        db.execute("SELECT pg_advisory_xact_lock(%s)", [LOCK])
        db.execute("CREATE SCHEMA IF NOT EXISTS goalrun_fleet")
        db.execute(
            "CREATE TABLE IF NOT EXISTS fleet (one integer PRIMARY KEY CHECK (one = 1), format integer NOT NULL,"
            " engine text NOT NULL, heartbeat double precision NOT NULL)"
        )
        row = db.execute("SELECT * FROM fleet").fetchone()
        before = row["format"] if row else 0
        _refuse_newer(before)
        after = engine(db, row["engine"] if row else "")
        for migration in MIGRATIONS[before:]:
            db.execute(migration)
        beat = heartbeat or (row["heartbeat"] if row else 20.0)
        db.execute(
            "INSERT INTO fleet VALUES (1, %(format)s, %(engine)s, %(beat)s) ON CONFLICT (one) DO UPDATE"
            " SET format = %(format)s, engine = %(engine)s, heartbeat = %(beat)s",
            {"format": len(MIGRATIONS), "engine": after, "beat": beat},
        )
    return before, len(MIGRATIONS)


def _refuse_newer(found: int) -> None:
    if found > len(MIGRATIONS):
        raise SettingsError(
            f"the fleet was made by a newer goalrun (format {found}, this one knows {len(MIGRATIONS)})",
            hint="upgrade goalrun",
        )


def find_fleet(given: str) -> Fleet:
    """The fleet that a command is about.

    Raises:
        SettingsError: there is none in that database, or its tables are of another goalrun.
    """
    url = url_of(given)
    with opened(url) as db:
        try:
            row: dict[str, Any] | None = db.execute("SELECT * FROM fleet").fetchone()
        except psycopg.errors.UndefinedTable:
            row = None
        if row is None:
            raise SettingsError("there is no fleet in this database", hint="goalrun fleet init")
        _refuse_newer(row["format"])
        if row["format"] < len(MIGRATIONS):
            raise SettingsError(
                f"the fleet's tables are of an older goalrun (format {row['format']}, this one needs"
                f" {len(MIGRATIONS)})",
                hint="goalrun fleet init",
            )
        return Fleet(url, row["heartbeat"])
