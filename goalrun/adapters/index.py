"""Git's index, read without git: which paths it has, and which of them its times cannot vouch for.

The format is that of gitformat-index(5), versions 2 and 3: a header of 12 bytes, entries, extensions, and the SHA-1 of
all of it. An entry begins with times of change and of modification, in seconds and nanoseconds.
"""

import hashlib
import os
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from operator import itemgetter
from struct import pack, pack_into, unpack_from

HEADER, DIGEST = 12, 20
SECONDS, BLOB, FLAGS, NAME = 4, 40, 60, 62
EXTENDED = 0x40
"""In the first byte of the flags: there are two more bytes of them."""
SIGNATURE = b"DIRC"
KNOWN_VERSIONS = (2, 3)
TIME_STEP_SECONDS = 2.0
"""How far the clocks of two file systems may be from each other."""
CLOCK_STEP_SECONDS = 0.02
"""How far one may be behind the time of this machine: it moves with the kernel's ticks."""
BILLION = 1_000_000_000


class Index:
    """An index as git wrote it, or with other times of change.

    Args:
        data: the whole file.
        entries: where its entries are, if that is known: as for ``entries``.
    """

    def __init__(self, data: bytes, entries: Sequence[tuple[int, bytes]] | None = None) -> None:
        self.data = data
        self._entries = entries

    def is_whole(self) -> bool:
        """Whether it is what git wrote: git itself takes it at its word."""
        data = self.data
        if len(data) < HEADER + DIGEST or data[-DIGEST:] != _digest(data[:-DIGEST]):
            return False
        return data.startswith(SIGNATURE) and unpack_from(">I", data, len(SIGNATURE))[0] in KNOWN_VERSIONS

    @property
    def entries(self) -> Sequence[tuple[int, bytes]]:
        """Where each entry begins, and its path, in the order of the paths; looked for once."""
        if self._entries is None:
            self._entries = [*_entries(self.data)]
        return self._entries

    @cached_property
    def folders(self) -> dict[bytes, set[bytes]]:
        """Every folder with the names in it, those above first; b"" is the top."""
        found: dict[bytes, set[bytes]] = {b"": set()}
        last, names = b"", found[b""]
        for _, path in self.entries:
            folder, _, name = path.rpartition(b"/")
            if folder != last:
                last, below = folder, b""
                for part in folder.split(b"/") if folder else ():
                    found[below].add(part)
                    below = below + b"/" + part if below else part
                    found.setdefault(below, set())
                names = found[folder]
            names.add(name)
        return found

    def start_of(self, path: bytes) -> int | None:
        """Where the entry of a path begins; None if it has none."""
        number = bisect_left(self.entries, path, key=itemgetter(1))
        start, found = self.entries[number] if number < len(self.entries) else (0, b"")
        return start if found == path else None

    def blob(self, start: int) -> str:
        """The name of an entry's content."""
        return self.data[start + BLOB : start + BLOB + DIGEST].hex()

    def doubted(self, since: float, top: bytes, step: float = CLOCK_STEP_SECONDS) -> "Index":
        """An index that has git read again what may have changed since it was read.

        Git compares times in seconds: in the second in which it read a file, that could change once more, get its size
        and its time back, and look the same. Files whose time of change is older than the moment at which git began to
        read cannot. Of the others the time of change has to be the same to the nanosecond, else the index forgets it:
        the clock of a file system steps every few milliseconds, and no command begins so soon after git has ended.

        Args:
            since: when git began to read, or write, what is in it, in seconds since the epoch.
            top: the folder that it is about.
            step: seconds by which the clock of the folder's file system may be behind the one that ``since`` is of.
        """
        data = self.data
        first = max(0, int(since - step)).to_bytes(SECONDS, "big")
        young = [(start, path) for start, path in self.entries if data[start : start + SECONDS] >= first]
        doubtful = [start for start, path in young if not _is_as_recorded(data, start, os.path.join(top, path))]  # noqa: PTH118 - bytes
        changed = bytearray(data)
        for start in doubtful:
            changed[start : start + SECONDS] = bytes(SECONDS)
        return Index(_signed(changed), self.entries) if doubtful else self

    def changed(self, changes: Mapping[bytes, bytes]) -> "Index":
        """An index with other entries for some paths, see ``entry``; b"" takes a path out. Extensions are left out."""
        data, entries = self.data, [*self.entries, (self._end, b"")]
        pieces: list[bytes] = []
        places: list[tuple[int, bytes]] = []
        number, length = 0, HEADER
        for path in (*sorted(changes), None):
            found = len(self.entries) if path is None else bisect_left(self.entries, path, key=itemgetter(1))
            shift = length - entries[number][0]
            pieces.append(data[entries[number][0] : entries[found][0]])
            places += [(start + shift, each) for start, each in entries[number:found]]
            length += len(pieces[-1])
            number = found
            if path is not None:
                number += entries[found][1] == path
                pieces.append(changes[path])
                places += [(length, path)] if changes[path] else []
                length += len(changes[path])
        header = data[: len(SIGNATURE) + SECONDS] + pack(">I", len(places))
        return Index(_signed(bytearray(b"".join((header, *pieces, bytes(DIGEST))))), places)

    @property
    def _end(self) -> int:
        """Where the entries end, and extensions begin."""
        if not self.entries:
            return HEADER
        start, path = self.entries[-1]
        return start + _length(_name(self.data, start) - start + len(path))

    def front(self, path: bytes) -> tuple[bytes, int]:
        """The entry of a path, or the one in front of where it would be: its path, and when it was modified in ns."""
        number = bisect_right(self.entries, path, key=itemgetter(1)) - 1
        start, found = self.entries[number] if number >= 0 else (0, b"")
        return found, _modified(self.data, start) if number >= 0 else 0

    def in_order(self, before: "Index", since: float, top: bytes) -> "Index":
        """Give files that were just written the times that they would have, had all been written at once.

        A file that is newer than its source looks built: what a worker delivers later must not look newer for that. In
        a fresh worktree files are written in the order of their paths; so one that was there before gets its time back,
        and a new one that of the file in front of it.

        Args:
            before: the index before they were written.
            since: when that began.
            top: the worktree.
        """
        data = self.data
        first = pack(">2I", *divmod(int((since - CLOCK_STEP_SECONDS) * BILLION), BILLION))
        changed = bytearray(data)
        young = [number for number, (start, _) in enumerate(self.entries) if data[start : start + len(first)] >= first]
        for number in young:
            start, path = self.entries[number]
            known = before.start_of(path)
            if known is not None:
                time = _modified(before.data, known)
            else:
                time = _modified(changed, self.entries[max(0, number - 1)][0])
            place = os.path.join(top, path)  # noqa: PTH118 - bytes
            os.utime(place, ns=(time, time), follow_symlinks=False)
            status = os.lstat(place)
            times = (*divmod(status.st_ctime_ns, BILLION), *divmod(status.st_mtime_ns, BILLION))
            pack_into(">4I", changed, start, *times)
        return Index(_signed(changed), self.entries)


def _is_as_recorded(data: bytes, start: int, place: bytes) -> bool:
    seconds, nanoseconds = unpack_from(">2I", data, start)
    with suppress(OSError):
        # Some file systems count in seconds; then nobody can tell.
        return bool(nanoseconds) and os.lstat(place).st_ctime_ns == int(seconds) * BILLION + int(nanoseconds)
    return True


def entry(path: bytes, mode: int, blob: str, status: os.stat_result) -> bytes:
    """An entry for a file that was just written."""
    times = (*divmod(status.st_ctime_ns, BILLION), *divmod(status.st_mtime_ns, BILLION))
    numbers = (status.st_dev, status.st_ino, mode, status.st_uid, status.st_gid, status.st_size)
    fields = pack(">10I", *times, *(number & 0xFFFFFFFF for number in numbers))
    data = fields + bytes.fromhex(blob) + pack(">H", min(len(path), 0xFFF)) + path
    return data.ljust(_length(len(data)), b"\0")


def _entries(data: bytes) -> Iterator[tuple[int, bytes]]:
    start = HEADER
    for _ in range(unpack_from(">I", data, len(SIGNATURE) + SECONDS)[0]):
        name = _name(data, start)
        end = data.index(b"\0", name)
        yield start, data[name:end]
        start += _length(end - start)


def _name(data: bytes, start: int) -> int:
    """Where an entry's path begins; version 2 has no entry with more flags."""
    return start + NAME + (2 if data[start + FLAGS] & EXTENDED else 0)


def _length(used: int) -> int:
    """How long an entry is: padded with one to eight zeros."""
    return (used + 8) & ~7


def _modified(data: bytes | bytearray, start: int) -> int:
    seconds, nanoseconds = unpack_from(">2I", data, start + 8)
    return int(seconds) * BILLION + int(nanoseconds)


def _signed(data: bytearray) -> bytes:
    data[-DIGEST:] = _digest(memoryview(data)[:-DIGEST])
    return bytes(data)


def _digest(data: bytes | memoryview) -> bytes:
    return hashlib.sha1(data, usedforsecurity=False).digest()
