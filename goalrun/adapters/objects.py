"""Git's objects, read and written without git: loose (gitformat-loose(5)) and in packs (gitformat-pack(5))."""

import hashlib
import zlib
from collections.abc import Mapping
from contextlib import suppress
from itertools import accumulate
from pathlib import Path
from struct import pack

from goalrun.adapters import git
from goalrun.adapters.files import write_whole

SMALL_BYTES = 1 << 20
COMMITTED_AT = 946684800
"""The first second of the year 2000."""
KINDS = {"commit": 1, "tree": 2, "blob": 3}
FAST = 1
"""Of zlib's levels: most objects are small, and few are read again."""


def place_of(name: str) -> str:
    """Where a loose object is, below a folder of objects."""
    return f"{name[:2]}/{name[2:]}"


def name_of(kind: str, content: bytes) -> str:
    """What git calls an object."""
    return _sha1(_whole(kind, content)).hex()


def write_object(repository: Path, kind: str, content: bytes) -> str:
    """Write an object into a repository that may have it; its name.

    Raises:
        EnvironmentFailure: it cannot be written.
    """
    name = name_of(kind, content)
    place = repository / "objects" / place_of(name)
    if not place.exists():
        place.parent.mkdir(exist_ok=True)
        # Git knows its own names for what was never whole.
        write_whole(place, zlib.compress(_whole(kind, content), FAST), draft="tmp_obj_")
    return name


def commit_of(tree: str, message: str, *parents: str) -> bytes:
    """The content of a commit, as `git commit-tree` has it. Its date, the same for all, does not matter."""
    who = f"{git.NAME} <{git.EMAIL}> {COMMITTED_AT} +0000"
    lines = [f"tree {tree}", *(f"parent {parent}" for parent in parents), f"author {who}", f"committer {who}"]
    return "\n".join([*lines, "", message, ""]).encode("utf-8")


def small_object(repository: Path, name: str) -> tuple[str, bytes] | None:
    """Kind and content of a loose object that is whole and at most 1 MiB; None for any other: ask git."""
    place = repository / "objects" / place_of(name)
    with suppress(OSError, zlib.error):
        if place.stat().st_size <= SMALL_BYTES:
            unpacked = zlib.decompressobj().decompress(place.read_bytes(), SMALL_BYTES)
            header, _, content = unpacked.partition(b"\0")
            kind = header.partition(b" ")[0].decode("ascii", "replace")
            if _sha1(unpacked).hex() == name and unpacked == _whole(kind, content):
                return kind, content
    return None


def packed(kind: str, content: bytes) -> bytes:
    """An object as it is in a pack."""
    size = len(content)
    header = bytearray([KINDS[kind] << 4 | size & 0xF])
    size >>= 4
    while size:
        header[-1] |= 0x80
        header.append(size & 0x7F)
        size >>= 7
    return bytes(header) + zlib.compress(content, FAST)


def pack_files(objects: Mapping[str, bytes]) -> dict[str, bytes]:
    """A pack of objects, by their names, as ``packed``, and its index: by the names of both files."""
    names = sorted(objects)
    data = b"PACK" + pack(">2I", 2, len(names)) + b"".join(objects[name] for name in names)
    digest = _sha1(data)
    ids = [bytes.fromhex(name) for name in names]
    first = [each[0] for each in ids]
    fanout = accumulate(first.count(byte) for byte in range(256))
    starts = accumulate((len(objects[name]) for name in names[:-1]), initial=12)
    checks = (zlib.crc32(objects[name]) for name in names)
    index = b"\377tOc" + pack(">257I", 2, *fanout) + b"".join(ids)
    index += pack(f">{len(names)}I", *checks) + pack(f">{len(names)}I", *starts) + digest
    return {f"pack-{digest.hex()}.pack": data + digest, f"pack-{digest.hex()}.idx": index + _sha1(index)}


def _whole(kind: str, content: bytes) -> bytes:
    return f"{kind} {len(content)}\0".encode("ascii", "replace") + content


def _sha1(data: bytes) -> bytes:
    return hashlib.sha1(data, usedforsecurity=False).digest()
