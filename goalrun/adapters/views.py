"""Reading goals without replaying them: the views that each journal keeps, and whether a runner lives.

`status` and `list` come this way, so nothing here may import what is slow to import.
"""

import hashlib
import json
import socket
import sqlite3
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from goalrun.adapters.identity import runs
from goalrun.errors import EnvironmentFailure, GoalrunError, JournalCorrupt, UnknownGoal, UserError

FORMAT = 1
APPLICATION_ID = 0x676F616C
"""``goal`` in ASCII: tells our files from other databases."""
JOURNAL = "journal.db"
SALVAGED = "journal.db.salvaged"
"""A journal of good records that is about to take the place of the damaged one."""
ROOM = "make room, or mend the disk or its permissions; goalrun resume goes on from the last record"
OWNER = "owner.json"
UNREADABLE = (sqlite3.Error, ValueError, TypeError, RecursionError)
"""What reading a damaged journal raises: a flipped bit can make a text a number, or nothing."""
RUN_LOCK = "run.lock"
REACHED = frozenset({"achieved", "done"})
"""States that nothing more follows."""
WAITING = "waiting"
"""Holds who is in front, for as long as a goal queues for its workspace."""


def open_to_read(path: Path) -> sqlite3.Connection:
    """A connection that cannot write.

    Raises:
        JournalCorrupt: there is no journal, or the file is none.
        UserError: a newer goalrun wrote it.
    """
    if path.with_name(SALVAGED).exists():
        raise JournalCorrupt(f"the salvage of {path} was cut off", hint=_hint(path))
    wal = path.with_name(f"{path.name}-wal")
    try:
        try:
            return _connected(path, "mode=ro")
        except sqlite3.OperationalError:
            # Where no -shm can be made and no -wal is there, the file is all (sqlite.org/wal.html, section 5).
            if not path.is_file() or (wal.exists() and wal.stat().st_size):
                raise
            return _connected(path, "mode=ro&immutable=1")
    except UNREADABLE as failure:
        raise broken(path, failure) from failure


def _connected(path: Path, mode: str) -> sqlite3.Connection:
    db = sqlite3.connect(f"{path.as_uri()}?{mode}", uri=True, isolation_level=None)
    try:
        require_format(db, path)
    except BaseException:
        db.close()
        raise
    return db


def _hint(path: Path) -> str:
    return f"goalrun resume {path.parent.name} --salvage goes on from the last good record; what is damaged is kept"


def sealed(place: str, text: str) -> str:
    """A line and a digest of it and its place, so that a view that was changed or moved shows."""
    digest = hashlib.sha256("\n".join((place, text)).encode()).hexdigest()
    return f"{text}\n{digest}"


def _opened(place: str, body: object) -> dict[str, Any]:
    """What was sealed.

    Raises:
        ValueError: it is not what was written.
    """
    text = str(body).partition("\n")[0]
    if sealed(place, text) != body:
        raise ValueError("a view of the records is not what was written")
    found: dict[str, Any] = json.loads(text)
    return found


def require_format(db: sqlite3.Connection, path: Path) -> None:
    """Refuse a file that is not ours, or newer than this program."""
    application, version = (db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version"))
    if application != APPLICATION_ID:
        raise JournalCorrupt(f"{path} is not a goalrun journal", hint=_hint(path))
    if version > FORMAT:
        raise UserError(
            f"{path} was written by a newer goalrun (format {version}, this one knows {FORMAT})",
            hint="upgrade goalrun",
        )


def broken(path: Path, failure: Exception) -> GoalrunError:
    """The error for a journal that cannot be read; a goal that somebody removed is merely unknown."""
    if not path.parent.exists():
        return UnknownGoal(f"goal {path.parent.name} was removed", hint="goalrun list shows all")
    if isinstance(failure, sqlite3.Error) and path.is_file() and _of_the_disk(getattr(failure, "sqlite_errorcode", 0)):
        return EnvironmentFailure(f"the journal {path} cannot be used: {failure}", hint=ROOM)
    text = str(failure).splitlines()[0] if str(failure) else type(failure).__name__
    return JournalCorrupt(f"journal {path} cannot be read: {text}", hint=_hint(path))


def _of_the_disk(code: int) -> bool:
    """Whether an error of SQLite's (sqlite.org/rescode.html) is about the disk, and not about what the file holds."""
    of_the_file = {sqlite3.SQLITE_IOERR_READ, sqlite3.SQLITE_IOERR_SHORT_READ, sqlite3.SQLITE_IOERR_CORRUPTFS}
    of_the_disk = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_IOERR}
    return code & 0xFF in of_the_disk and code not in of_the_file


def read_result(folder: Path, *, turns: bool = True) -> dict[str, Any]:
    """A goal's result as JSON: its views, and the process that runs it.

    Args:
        folder: the goal's.
        turns: with ``turn_records``, which are as many as the goal has turns.

    Raises:
        JournalCorrupt: its journal cannot be read.
        UserError: a newer goalrun wrote it.
    """
    path = folder / JOURNAL
    before = runner(folder)
    try:
        with closing(open_to_read(path)) as db:
            # One transaction, so that head and turns are of the same moment.
            db.execute("BEGIN")
            row = db.execute("SELECT body FROM head").fetchone()
            if row is None:
                raise JournalCorrupt(f"journal {path} is empty", hint=_hint(path))
            shown = _opened("head", row[0])
            waits = shown["state"] == "rate_limited" and _last_kind(db) == "quota_wait"
            bodies = db.execute("SELECT turn, body FROM turn ORDER BY turn") if turns else ()
            records = [_opened(f"turn {turn}", body) for turn, body in bodies]
            if turns and len(records) != shown["turns"]:
                raise ValueError("the views of the turns are not those that were written")
    except UNREADABLE as failure:
        raise broken(path, failure) from failure
    active = shown["state"] == "running" or waits
    # Asked on both sides of reading: a run that ends, or begins, meanwhile has not died.
    shown["pid"] = runner(folder) or (before if active else None)
    with suppress(OSError):
        if shown["pid"] is not None:
            shown["detail"] = "queued: " + (folder / WAITING).read_text(encoding="utf-8")
            # Whatever it was before: a process has taken it up.
            shown["state"] = "running"
    if active and shown["pid"] is None:
        shown["state"] = "interrupted"
        shown["detail"] = "its process is gone; goalrun resume goes on from the last recorded step"
    return {**shown, "turn_records": records} if turns else shown


def _last_kind(db: sqlite3.Connection) -> str:
    (body,) = db.execute("SELECT body FROM record ORDER BY seq DESC LIMIT 1").fetchone()
    return str(json.loads(body)["kind"])


def last_record(folder: Path) -> int:
    """The number of a journal's last record.

    Raises:
        JournalCorrupt: it cannot be read.
    """
    path = folder / JOURNAL
    try:
        with closing(open_to_read(path)) as db:
            return int(db.execute("SELECT max(seq) FROM record").fetchone()[0] or 0)
    except UNREADABLE as failure:
        raise broken(path, failure) from failure


def runner(folder: Path) -> int | None:
    """The pid of the living process that runs a goal; one of another host counts as living."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        owner = json.loads((folder / OWNER).read_bytes())
        if runs(int(owner["pid"]), str(owner["start"]), str(owner["boot"]), str(owner["host"])):
            return int(owner["pid"])
    return None


def runs_here(folder: Path) -> bool:
    """Whether a living process of this host runs a goal: one that will see what is asked of it."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        return runner(folder) is not None and json.loads((folder / OWNER).read_bytes())["host"] == socket.gethostname()
    return False
