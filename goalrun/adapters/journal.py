"""The journal: SQLite, append-only, one writer, each record durable before ``append`` returns.

Format (docs/state.md): ``record`` holds the facts; each row's digest covers the row before it, so a changed or missing
row shows. ``head`` and ``turn`` are views for readers, rewritten with each record in the same transaction.
"""

import hashlib
import json
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, suppress
from pathlib import Path

from goalrun.adapters.files import sync_folder
from goalrun.adapters.points import reached
from goalrun.adapters.views import (
    APPLICATION_ID,
    FORMAT,
    ROOM,
    SALVAGED,
    UNREADABLE,
    broken,
    open_to_read,
    read_result,
    require_format,
    sealed,
)
from goalrun.core import result
from goalrun.core.events import (
    CallFinished,
    CallStarted,
    Event,
    FlowTold,
    ProcessStarted,
    Record,
    StepSettled,
    TurnFinished,
    VerificationFinished,
    WorkerFinished,
)
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
LATER_PAGES = 64
"""How many pages of records may be in the -wal alone, where they are of what can be done again: each other record takes
all on into the main file at once, so that one that loses its -wal has lost no turn
(docs/adr/0018-records-of-calls.md)."""
LATER = frozenset(
    {CallStarted, CallFinished, StepSettled, ProcessStarted, FlowTold, WorkerFinished, VerificationFinished}
)
_NO_LOCKS = frozenset({"SQLITE_BUSY", "SQLITE_IOERR_LOCK", "SQLITE_IOERR_RDLOCK", "SQLITE_PROTOCOL"})
"""What SQLite makes of locks that fail: ENOLCK means busy to it."""


class SqliteJournal:
    """The one writer of a goal's journal; one thread at a time may write.

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
            self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            if not new:
                # Before anything is set: what is not ours stays as it is.
                require_format(self._db, path)
                _require_whole(self._db, path)
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
        return self.append_all((event,), state)[0]

    def append_all(self, events: Sequence[Event], state: GoalState | None) -> list[tuple[Record, GoalState]]:
        """Make events durable together, so that all of them are there, or none; see ``append``."""
        at = self._clock.now().isoformat(timespec="milliseconds")
        elapsed = max(0.0, self._clock.monotonic() - self._started)
        done = []
        for seq, event in enumerate(events, start=self._seq + 1):
            record = Record(seq=seq, at=at, elapsed=elapsed, event=event)
            state = apply(state, record)
            done.append((record, state))
        self._write(done)
        return done

    def _write(self, done: Sequence[tuple[Record, GoalState]]) -> None:
        rows, digest = [], self._digest
        for record, _ in done:
            body = record.event.model_dump_json()
            digest = _digest(digest, record.seq, record.at, record.elapsed, body)
            rows.append((record.seq, record.at, record.elapsed, body, digest))
            reached(f"journal {record.event.kind} before")
        try:
            # SQLite takes on records into the main file once its -wal has so many pages.
            pages = LATER_PAGES if all(type(record.event) in LATER for record, _ in done) else 1
            self._db.execute(f"PRAGMA wal_autocheckpoint={pages}")
            self._db.execute("BEGIN IMMEDIATE")
            # A newer goalrun may have changed the format meanwhile: what it wrote is not added to.
            require_format(self._db, self._path)
            self._db.executemany("INSERT INTO record VALUES (?, ?, ?, ?, ?)", rows)
            self._write_views(done, digest)
            for record, _ in done:
                reached(f"journal {record.event.kind} written")
            self._db.execute("COMMIT")
        except sqlite3.Error as failure:
            raise EnvironmentFailure(f"cannot write the journal {self._path}: {failure}", hint=ROOM) from failure
        finally:
            with suppress(sqlite3.Error):
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
        for (record, _), row in zip(done, rows, strict=True):
            reached(f"journal {record.event.kind} durable", str(self._path), record.seq, row[-1])
        self._seq, self._digest = self._seq + len(rows), digest

    def _write_views(self, done: Sequence[tuple[Record, GoalState]], digest: str) -> None:
        head = sealed("head", json.dumps(result.head(done[-1][1])))
        self._db.execute("INSERT OR REPLACE INTO head VALUES (1, ?, ?)", (head, digest))
        for last in (record.event.record for record, _ in done if isinstance(record.event, TurnFinished)):
            row = (last.outcome.turn, sealed(f"turn {last.outcome.turn}", json.dumps(result.turn(last))))
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
    digest, place = "", 0
    try:
        with closing(open_to_read(path)) as db:
            # One transaction, so that the last record is the one that the head speaks of.
            db.execute("BEGIN")
            head = db.execute("SELECT digest FROM head").fetchone()
            had = db.execute("SELECT digest FROM record WHERE seq = ?", (after,)).fetchone()
            digest = had[0] if had is not None else ""
            rows = db.execute("SELECT seq, at, elapsed, body, digest FROM record WHERE seq > ? ORDER BY seq", (after,))
            for place, row in enumerate(rows, start=after + 1):
                seq, at, elapsed, body, claimed = row
                digest = _digest(digest, seq, at, elapsed, body)
                if seq != place or digest != claimed:
                    raise JournalCorrupt(
                        f"journal {path} is damaged at record {place}",
                        hint=_offer(path, place - 1),
                    )
                yield Record(seq=seq, at=at, elapsed=elapsed, event=json.loads(body))
            if digest and (head is None or head[0] != digest):
                raise JournalCorrupt(f"journal {path} has lost its last records", hint=_offer(path, place))
    except UNREADABLE as failure:
        raise broken(path, failure) from failure


def salvage(path: Path, clock: Clock) -> str:
    """Put a journal of the good records in the place of a damaged one, which stays beside it.

    The new file is whole before the old one is moved, and what was cut is finished by the next call: nothing reads
    the one or the other meanwhile.

    Returns:
        What was done, for people; "" if the journal is sound.

    Raises:
        JournalCorrupt: not even the first record is good; nothing was changed.
        UserError: a newer goalrun wrote it.
    """
    whole = path.with_name(SALVAGED)
    if whole.exists():
        return _put_in_place(whole, path)
    good: list[Record] = []
    try:
        good.extend(records(path))
        replay(path)
        read_result(path.parent)
        with closing(open_to_read(path)) as db:
            _require_whole(db, path)
    except JournalCorrupt as damage:
        if not good:
            raise JournalCorrupt(str(damage), hint=_offer(path, 0)) from damage
    else:
        return ""
    draft = path.with_name(f"{SALVAGED}.tmp")
    draft.unlink(missing_ok=True)
    write_again(draft, good, clock)
    draft.replace(whole)
    sync_folder(path.parent)
    reached("journal salvaged")
    return f"{len(good)} good records; {_put_in_place(whole, path)}"


def write_again(path: Path, good: Iterable[Record], clock: Clock) -> None:
    """Make a journal of records that were written before."""
    journal, state = SqliteJournal(path, clock), None
    for record in good:
        state = apply(state, record)
        journal._write(((record, state),))  # noqa: SLF001 - of this module
    journal.close()


def _require_whole(db: sqlite3.Connection, path: Path) -> None:
    """Refuse a file that is damaged anywhere: writing to it would damage the rest."""
    found = db.execute("PRAGMA quick_check(1)").fetchone()[0]
    if found != "ok":
        raise broken(path, ValueError(found))


def _put_in_place(whole: Path, path: Path) -> str:
    number = len([*path.parent.glob(f"{path.name}.damaged-*[0-9]")]) + (1 if path.exists() else 0)
    kept = path.with_name(f"{path.name}.damaged-{number}")
    path.with_name(f"{path.name}-shm").unlink(missing_ok=True)
    # The main file last: for as long as it is there, the number is the same.
    for suffix in ("-wal", ""):
        if (old := path.with_name(path.name + suffix)).exists():
            old.rename(kept.with_name(kept.name + suffix))
            reached("damaged journal moved")
    whole.rename(path)
    sync_folder(path.parent)
    return f"the damaged journal is kept as {kept}"


def _offer(path: Path, good: int) -> str:
    """What can be done with this many good records."""
    if good:
        return f"goalrun resume {path.parent.name} --salvage goes on from record {good}; what is damaged is kept"
    store = path.with_name("store.git")
    return f"no record is good, so nothing can be resumed; snapshots may be in: git --git-dir={store} log --all --stat"


def _digest(before: str, seq: int, at: str, elapsed: float, body: str) -> str:
    # What was read may be of any type.
    text = "\n".join((before, str(seq), str(at), repr(elapsed), str(body)))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
