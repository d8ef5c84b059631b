"""Git's loose objects (gitformat-loose(5)), read and written without git."""

import hashlib
import zlib
from contextlib import suppress
from pathlib import Path

from goalrun.adapters import git
from goalrun.adapters.files import write_whole

SMALL_BYTES = 1 << 20
COMMITTED_AT = 946684800
"""The first second of the year 2000."""


def place_of(name: str) -> str:
    """Where an object is, below a folder of objects."""
    return f"{name[:2]}/{name[2:]}"


def write_object(repository: Path, kind: str, content: bytes, *, durable: bool = True) -> str:
    """Write an object into a repository that may have it; its name.

    Raises:
        EnvironmentFailure: it cannot be written.
    """
    data = f"{kind} {len(content)}\0".encode("ascii") + content
    name = hashlib.sha1(data, usedforsecurity=False).hexdigest()
    place = repository / "objects" / place_of(name)
    if not place.exists():
        place.parent.mkdir(exist_ok=True)
        # Where it stays, git knows its own names for what was never whole.
        write_whole(place, zlib.compress(data, 1), durable=durable, draft="tmp_obj_")
    return name


def write_commit(repository: Path, tree: str, message: str, *parents: str, durable: bool = True) -> str:
    """Write a commit of a tree, as `git commit-tree` does; its name. Its date, the same for all, does not matter."""
    who = f"{git.NAME} <{git.EMAIL}> {COMMITTED_AT} +0000"
    lines = [f"tree {tree}", *(f"parent {parent}" for parent in parents), f"author {who}", f"committer {who}"]
    return write_object(repository, "commit", "\n".join([*lines, "", message, ""]).encode("utf-8"), durable=durable)


def small_blob(repository: Path, name: str) -> bytes | None:
    """A blob that is a loose object, whole and at most 1 MiB; None for any other: ask git."""
    place = repository / "objects" / place_of(name)
    with suppress(OSError, zlib.error):
        if place.stat().st_size <= SMALL_BYTES:
            unpacked = zlib.decompressobj().decompress(place.read_bytes(), SMALL_BYTES)
            header, _, data = unpacked.partition(b"\0")
            if hashlib.sha1(unpacked, usedforsecurity=False).hexdigest() == name and header == b"blob %d" % len(data):
                return data
    return None
