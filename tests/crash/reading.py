"""What is left of a goal, read without goalrun where that can be."""

import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from crash.history import History
from crash.place import MINE, Place
from filelock import FileLock, Timeout
from support import git

from goalrun.adapters.journal import records
from goalrun.adapters.views import JOURNAL
from goalrun.errors import EnvironmentFailure

DIARY = "diary.txt"


def read_history(place: Place, folder: Path, *, sessions: bool = True) -> History:
    """What is left of a goal that no process runs."""
    journal = folder / JOURNAL
    complaints = [*_locks(place, folder), *_store(folder)]
    if (place.workspace / MINE).read_bytes() != b"mine\n":
        complaints.append("the user's own file was changed")
    if git(place.workspace, "status", "--porcelain", "--", ".git"):
        complaints.append("the user's repository was changed")
    facts = [fact for fact in place.facts() if fact.get("goal", folder.name) == folder.name]
    try:
        known = list(records(journal))
    except EnvironmentFailure as failure:
        return History(facts, str(journal), [], {}, {}, _runs(""), [*complaints, str(failure)])
    with closing(sqlite3.connect(f"{journal.as_uri()}?mode=ro", uri=True)) as db:
        digests = dict(db.execute("SELECT seq, digest FROM record"))
    diary = place.workspace / DIARY
    return History(
        facts=facts,
        journal=str(journal),
        records=known,
        digests=digests,
        commits=dict(_commits(folder / "store.git")),
        workspace=_runs(diary.read_text("utf-8") if diary.exists() else ""),
        complaints=complaints,
        sessions=sessions,
    )


def _runs(diary: str) -> frozenset[str]:
    return frozenset(line.split()[0] for line in diary.splitlines())


def _commits(store: Path) -> Iterator[tuple[str, frozenset[str]]]:
    if not (store / "goalrun-ready").exists():
        return
    for commit in git(store, "--git-dir=.", "rev-list", "--all").split():
        yield commit, _runs(git(store, "--git-dir=.", "cat-file", "blob", f"{commit}:{DIARY}", check=False))


def _store(folder: Path) -> Iterator[str]:
    store = folder / "store.git"
    if (store / "goalrun-ready").exists():
        words = ["git", "--git-dir=.", "fsck", "--full", "--strict", "--no-dangling", "--no-progress"]
        done = subprocess.run(words, cwd=store, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            yield f"git fsck: {done.stdout} {done.stderr}"


def _locks(place: Place, folder: Path) -> Iterator[str]:
    for path in (folder / "run.lock", *(place.home / "locks").glob("*.lock"), place.home / "locks" / "guard"):
        try:
            if path.exists():
                FileLock(path, timeout=0, preserve_lock_file=True).acquire().lock.release()
        except Timeout:
            yield f"nothing runs, and {path.name} is held"
