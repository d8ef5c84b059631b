"""Reading goals without replaying them: the views that each journal keeps, and whether a runner lives.

`status` and `list` come this way, so nothing here may import what is slow to import.
"""

import json
import socket
import sqlite3
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from goalrun.adapters.identity import runs
from goalrun.errors import GoalrunError, JournalCorrupt, UnknownGoal, UserError

FORMAT = 1
APPLICATION_ID = 0x676F616C
"""``goal`` in ASCII: tells our files from other databases."""
JOURNAL = "journal.db"
OWNER = "owner.json"
UNREADABLE = (sqlite3.Error, ValueError, TypeError, RecursionError)
"""What reading a damaged journal raises: a flipped bit can make a text a number, or nothing."""
RUN_LOCK = "run.lock"
WAITING = "waiting"
"""Holds who is in front, for as long as a goal queues for its workspace."""


def open_to_read(path: Path) -> sqlite3.Connection:
    """A connection that cannot write.

    Raises:
        JournalCorrupt: there is no journal, or the file is none.
        UserError: a newer goalrun wrote it.
    """
    try:
        db = sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, isolation_level=None)
        require_format(db, path)
    except UNREADABLE as failure:
        raise broken(path, failure) from failure
    return db


def require_format(db: sqlite3.Connection, path: Path) -> None:
    """Refuse a file that is not ours, or newer than this program."""
    application, version = (db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version"))
    if application != APPLICATION_ID:
        raise JournalCorrupt(f"{path} is not a goalrun journal")
    if version > FORMAT:
        raise UserError(
            f"{path} was written by a newer goalrun (format {version}, this one knows {FORMAT})",
            hint="upgrade goalrun",
        )


def broken(path: Path, failure: Exception) -> GoalrunError:
    """The error for a journal that cannot be read; a goal that somebody removed is merely unknown."""
    if not path.parent.exists():
        return UnknownGoal(f"goal {path.parent.name} was removed", hint="goalrun list shows all")
    text = str(failure).splitlines()[0] if str(failure) else type(failure).__name__
    return JournalCorrupt(f"journal {path} cannot be read: {text}", hint="the goal's folder was left as it is")


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
                raise JournalCorrupt(f"journal {path} is empty")
            shown: dict[str, Any] = json.loads(row[0])
            waits = shown["state"] == "rate_limited" and _last_kind(db) == "quota_wait"
            bodies = db.execute("SELECT body FROM turn ORDER BY turn") if turns else ()
            records = [json.loads(body) for (body,) in bodies]
    except UNREADABLE as failure:
        raise broken(path, failure) from failure
    active = shown["state"] == "running" or waits
    # Asked on both sides of reading: a run that ends, or begins, meanwhile has not died.
    shown["pid"] = runner(folder) or (before if active else None)
    with suppress(OSError):
        if shown["pid"] is not None:
            shown["detail"] = "waiting: " + (folder / WAITING).read_text(encoding="utf-8")
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
