"""The journal: SQLite, append-only, one writer, each record durable before ``append`` returns.

Format (docs/state.md): ``record`` holds the facts; each row's digest covers the row before it, so a changed or missing
row shows. ``head`` and ``turn`` are views for readers, rewritten with each record in the same transaction.
"""

import hashlib
import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from goalrun.adapters.points import reached
from goalrun.adapters.views import APPLICATION_ID, FORMAT, UNREADABLE, broken, open_to_read, require_format
from goalrun.core import result
from goalrun.core.events import Event, Record
from goalrun.core.model import GoalState
from goalrun.core.ports import Clock
from goalrun.core.replay import apply, fold
from goalrun.errors import EnvironmentFailure, JournalCorrupt

_SCHEMA = """
CREATE TABLE record (seq INTEGER PRIMARY KEY, at TEXT NOT NULL, elapsed REAL NOT NULL, body TEXT NOT NULL,
                     digest TEXT NOT NULL);
CREATE TABLE head (one INTEGER PRIMARY KEY CHECK (one = 1), body TEXT NOT NULL, digest TEXT NOT NULL);
CREATE TABLE turn (turn INTEGER PRIMARY KEY, body TEXT NOT NULL);
CREATE TRIGGER append_only_update BEFORE UPDATE ON record BEGIN SELECT RAISE(ABORT, 'append only'); END;
CREATE TRIGGER append_only_delete BEFORE DELETE ON record BEGIN SELECT RAISE(ABORT, 'append only'); END;
"""
_NO_LOCKS = frozenset({"SQLITE_BUSY", "SQLITE_IOERR_LOCK", "SQLITE_IOERR_RDLOCK", "SQLITE_PROTOCOL"})
"""What SQLite makes of locks that fail: ENOLCK means busy to it."""


class SqliteJournal:
    """The one writer of a goal's journal.

    Args:
        path: the file; made if it is not there.
        clock: gives each record its time, and its running time since this object was made.
    """

    def __init__(self, path: Path, clock: Clock) -> None:
        self._path = path
        self._clock = clock
        self._started = clock.monotonic()
        new = not path.exists()
        try:
            self._db = sqlite3.connect(path, isolation_level=None)
            if not new:
                # Before anything is set: what is not ours stays as it is.
                require_format(self._db, path)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=FULL")
            if new:
                path.chmod(0o600)
                self._db.executescript(
                    f"BEGIN; PRAGMA application_id={APPLICATION_ID}; PRAGMA user_version={FORMAT}; {_SCHEMA} COMMIT;"
                )
            row = self._db.execute("SELECT seq, digest FROM record ORDER BY seq DESC LIMIT 1").fetchone()
        except sqlite3.Error as failure:
            # Nobody else can have locked a file that was not there.
            if new and getattr(failure, "sqlite_errorname", "") in _NO_LOCKS:
                raise EnvironmentFailure(
                    f"the file system of {path.parent} has no file locks (fcntl), which the journal needs",
                    hint="point GOALRUN_HOME at a folder on a disk of this machine",
                ) from failure
            raise broken(path, failure) from failure
        self._seq: int = row[0] if row is not None else 0
        self._digest: str = row[1] if row is not None else ""

    def append(self, event: Event, state: GoalState | None) -> tuple[Record, GoalState]:
        """Make an event durable; the record, and the state that it leads to from ``state``.

        Raises:
            EnvironmentFailure: it could not be written; nothing of it was.
        """
        record = Record(
            seq=self._seq + 1,
            at=self._clock.now().isoformat(timespec="milliseconds"),
            elapsed=max(0.0, self._clock.monotonic() - self._started),
            event=event,
        )
        after = apply(state, record)
        body = record.event.model_dump_json()
        digest = _digest(self._digest, record, body)
        reached(f"journal {event.kind} before")
        try:
            self._db.execute("BEGIN IMMEDIATE")
            # A newer goalrun may have changed the format meanwhile: what it wrote is not added to.
            require_format(self._db, self._path)
            self._db.execute(
                "INSERT INTO record VALUES (?, ?, ?, ?, ?)",
                (record.seq, record.at, record.elapsed, body, digest),
            )
            self._write_views(after, digest)
            reached(f"journal {event.kind} written")
            self._db.execute("COMMIT")
        except sqlite3.Error as failure:
            raise EnvironmentFailure(f"cannot write the journal {self._path}: {failure}") from failure
        finally:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
        reached(f"journal {event.kind} durable", str(self._path), record.seq, digest)
        self._seq, self._digest = record.seq, digest
        return record, after

    def _write_views(self, state: GoalState, digest: str) -> None:
        self._db.execute("INSERT OR REPLACE INTO head VALUES (1, ?, ?)", (json.dumps(result.head(state)), digest))
        if state.turns:
            last = state.turns[-1]
            row = (last.outcome.turn, json.dumps(result.turn(last)))
            self._db.execute("INSERT OR IGNORE INTO turn VALUES (?, ?)", row)

    def close(self) -> None:
        """Let the file go."""
        self._db.close()


def replay(path: Path) -> GoalState:
    """The state that a journal folds to.

    Raises:
        JournalCorrupt: a record is not what was written; its place is named.
        UserError: a newer goalrun wrote it.
    """
    try:
        return fold(records(path))
    except ValueError as failure:
        raise broken(path, failure) from failure


def records(path: Path, after: int = 0) -> Iterator[Record]:
    """The records of a journal, oldest first; each is checked against the one before.

    Args:
        path: the file.
        after: leave out records up to this number: whoever names it has had them, checked.
    """
    digest = ""
    try:
        with closing(open_to_read(path)) as db:
            # One transaction, so that the last record is the one that the head speaks of.
            db.execute("BEGIN")
            head = db.execute("SELECT digest FROM head").fetchone()
            had = db.execute("SELECT digest FROM record WHERE seq = ?", (after,)).fetchone()
            digest = had[0] if had is not None else ""
            rows = db.execute("SELECT * FROM record WHERE seq > ? ORDER BY seq", (after,))
            for place, row in enumerate(rows, start=after + 1):
                seq, at, elapsed, body, claimed = row
                # Built by hand, so that the digest covers the bytes that were read.
                record = Record(seq=seq, at=at, elapsed=elapsed, event=json.loads(body))
                digest = _digest(digest, record, body)
                if seq != place or digest != claimed:
                    raise JournalCorrupt(
                        f"journal {path} is damaged at record {place}",
                        hint=f"the {place - 1} records before it are good",
                    )
                yield record
            if head is not None and head[0] != digest:
                raise JournalCorrupt(f"journal {path} has lost its last records", hint="those that are left are good")
    except UNREADABLE as failure:
        raise broken(path, failure) from failure


def _digest(before: str, record: Record, body: str) -> str:
    text = "\n".join((before, str(record.seq), record.at, repr(record.elapsed), body))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
