"""What of a goal's folder another machine needs to go on with it: git objects and a few files, in the database."""

import json
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import IO

from goalrun.adapters import git
from goalrun.adapters.files import private_folder, write_whole
from goalrun.adapters.repository import as_file
from goalrun.core.events import BaseVerified, CallFinished, Event, StepSettled
from goalrun.errors import EnvironmentFailure
from goalrun.fleet.database import Connection

PART_BYTES = 8 << 20
PACK, FILE, BUNDLE = "pack", "file", "bundle"


def refs_of(store: Path) -> dict[str, str]:
    """The snapshots of a store, by ref."""
    if not store.exists():
        return {}
    listing = git.checked(["for-each-ref", "--format=%(refname) %(objectname)", "refs/goalrun"], store)
    return dict(line.split(" ") for line in listing.decode("utf-8").splitlines())


def pack_of(store: Path, refs: Mapping[str, str], known: Mapping[str, str]) -> IO[bytes] | None:
    """A pack of what these refs hold and the known ones do not; None if that is nothing."""
    new = set(refs.values()) - set(known.values())
    if not new:
        return None
    wanted = "".join(f"{commit}\n" for commit in sorted(new)) + "".join(f"^{commit}\n" for commit in known.values())
    pack = tempfile.TemporaryFile()  # noqa: SIM115 - the caller closes it
    with as_file(wanted.encode()) as revisions:
        git.stream(["pack-objects", "--quiet", "--revs", "--thin", "--stdout"], store, {}, pack, revisions)
    return pack


def put(db: Connection, goal: str, kind: str, name: str, data: IO[bytes]) -> None:
    """Store a file in parts."""
    data.seek(0)
    while True:
        part = data.read(PART_BYTES)
        db.execute("INSERT INTO part (goal, kind, name, data) VALUES (%s, %s, %s, %s)", [goal, kind, name, part])
        if len(part) < PART_BYTES:
            return


def parts(db: Connection, goal: str, kinds: Iterable[str]) -> Iterable[tuple[str, str, bytes]]:
    """What is stored of a goal, oldest first: kind, name and bytes; one part at a time in memory."""
    rows = db.execute(
        "SELECT number FROM part WHERE goal = %s AND kind = ANY(%s) ORDER BY number", [goal, [*kinds]]
    ).fetchall()
    for row in rows:
        found = db.execute("SELECT kind, name, data FROM part WHERE number = %s", [row["number"]]).fetchone()
        if found is not None:
            yield found["kind"], found["name"], found["data"]


def known_refs(db: Connection, goal: str) -> dict[str, str]:
    """The refs whose objects are stored."""
    row = db.execute(
        "SELECT name FROM part WHERE goal = %s AND kind = %s ORDER BY number DESC LIMIT 1", [goal, PACK]
    ).fetchone()
    return dict(json.loads(row["name"])) if row else {}


def files_of(event: Event) -> list[str]:
    """Files below a goal's folder that a record speaks of, and a resume reads."""
    match event:
        case BaseVerified(report=report):
            return ["baseline.json"] if report.floor else []
        case CallFinished(call=call):
            return [call.kept] if call.kept else []
        case StepSettled(step=step):
            return [step.kept] if step.kept else []
        case _:
            return []


def fetch(db: Connection, goal: str, folder: Path, store: Path) -> None:
    """Make the files, and the objects and refs of a store that is there already, as the records need them.

    Raises:
        EnvironmentFailure: what is stored is not what was written.
    """
    last, pack = "", tempfile.TemporaryFile()  # noqa: SIM115 - replaced for each pack
    for kind, name, data in parts(db, goal, (PACK, FILE)):
        if kind == FILE:
            _write(folder, name, data)
            continue
        pack.write(data)
        last = name
        if len(data) < PART_BYTES:
            pack.seek(0)
            git.checked(["index-pack", "--stdin", "--fix-thin"], store, {"GIT_DIR": str(store)}, pack)
            pack.close()
            pack = tempfile.TemporaryFile()  # noqa: SIM115 - see above
    pack.close()
    for ref, commit in (json.loads(last) if last else {}).items():
        git.checked(["update-ref", ref, commit], store, {"GIT_DIR": str(store)})


def _write(folder: Path, name: str, data: bytes) -> None:
    path = folder / name
    if not path.resolve().is_relative_to(folder.resolve()):
        raise EnvironmentFailure(f"the database holds a file outside of its goal: {name}")
    private_folder(path.parent)
    write_whole(path, data)
