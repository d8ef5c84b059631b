"""Git's index, read without git: which paths it has, and which of them its times cannot vouch for.

The format is that of gitformat-index(5), versions 2 and 3: a header of 12 bytes, entries, extensions, and the SHA-1 of
all of it. An entry begins with times of change and of modification, in seconds and nanoseconds.
"""

import hashlib
import os
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from functools import cached_property
from struct import pack, pack_into, unpack_from
from typing import NamedTuple

HEADER, DIGEST = 12, 20
SECONDS, MODE, BLOB, FLAGS, NAME = 4, 24, 40, 60, 62
EXTENDED, STAGES = 0x40, 0x30
"""In the first byte of the flags: there are two more bytes of them; it is one side of a conflict."""
SIGNATURE = b"DIRC"
KNOWN_VERSIONS = (2, 3)
BLOCK = 64
"""So many entries are compared at once with what they were."""
TIME_STEP_SECONDS = 2.0
"""How far the clocks of two file systems may be from each other."""
CLOCK_STEP_SECONDS = 0.02
"""How far one may be behind the time of this machine: it moves with the kernel's ticks."""
BILLION = 1_000_000_000


class Places(NamedTuple):
    """Where the entries of an index are.

    Attributes:
        paths: of all, in their order.
        starts: where each begins, and behind them where the last one ends.
    """

    paths: list[bytes]
    starts: list[int]

    def take(self, other: "Places", first: int, end: int, at: int) -> None:
        """Have some entries of another index, one behind the other from some place on."""
        shift = at - other.starts[first]
        starts = other.starts[first:end]
        self.paths.extend(other.paths[first:end])
        self.starts.extend([start + shift for start in starts] if shift else starts)


class Young(NamedTuple):
    """What may have changed lately.

    Attributes:
        first: seconds, as in an entry.
        paths: of all entries whose time of change was not before that when it was last looked at, or is another one.
    """

    first: bytes
    paths: frozenset[bytes]


class Index:
    """An index as git wrote it, or with other entries; then it is not signed, which git does not ask for.

    Args:
        data: the whole file.
        places: where its entries are, if that is known.
        young: what may have changed lately, if that is known.
    """

    def __init__(self, data: bytes, places: Places | None = None, young: Young | None = None) -> None:
        self.data = data
        self._places = places
        self._young = young

    def is_whole(self) -> bool:
        """Whether it is what git wrote: git itself takes it at its word."""
        data = self.data
        if len(data) < HEADER + DIGEST or data[-DIGEST:] != _digest(data[:-DIGEST]):
            return False
        return data.startswith(SIGNATURE) and unpack_from(">I", data, len(SIGNATURE))[0] in KNOWN_VERSIONS

    def signed(self) -> bytes:
        """The whole file, so that it shows when some of it is lost."""
        return self.data[:-DIGEST] + _digest(memoryview(self.data)[:-DIGEST])

    @property
    def places(self) -> Places:
        """Where its entries are; looked for once."""
        if self._places is None:
            self._places = _places(self.data)
        return self._places

    @cached_property
    def folders(self) -> dict[bytes, set[bytes]]:
        """Every folder with the names in it, those above first; b"" is the top."""
        found: dict[bytes, set[bytes]] = {b"": set()}
        last, names = b"", found[b""]
        for path in self.places.paths:
            folder, _, name = path.rpartition(b"/")
            if folder != last:
                last, names = folder, _names_in(found, folder)
            names.add(name)
        return found

    def start_of(self, path: bytes) -> int | None:
        """Where the entry of a path begins; None if it has none."""
        paths, starts = self.places
        number = bisect_left(paths, path)
        return starts[number] if number < len(paths) and paths[number] == path else None

    def blob(self, start: int) -> str:
        """The name of an entry's content."""
        return self.data[start + BLOB : start + BLOB + DIGEST].hex()

    def mode(self, start: int) -> int:
        """The mode of an entry."""
        return int(unpack_from(">I", self.data, start + MODE)[0])

    def is_untouched(self, path: bytes, status: os.stat_result) -> bool:
        """Whether a file is the one that was recorded, to the nanosecond of its last change."""
        start = self.start_of(path)
        return start is not None and self.data.startswith(
            entry(path, self.mode(start), self.blob(start), status), start
        )

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
        first = max(0, int(since - step)).to_bytes(SECONDS, "big")
        young = ((self.start_of(path), os.path.join(top, path)) for path in self._since(first))  # noqa: PTH118 - bytes
        doubtful = [at for at, place in young if at is not None and not _is_as_recorded(self.data, at, place)]
        if not doubtful:
            return self
        changed = bytearray(self.data)
        for start in doubtful:
            changed[start : start + SECONDS] = bytes(SECONDS)
        return self._like(changed)

    def _since(self, first: bytes) -> frozenset[bytes]:
        """The paths of entries whose time of change is at least this."""
        data, known = self.data, self._young
        if known is None or known.first > first:
            found: Iterable[tuple[bytes, int | None]] = zip(*self.places, strict=False)
        else:
            found = ((path, self.start_of(path)) for path in known.paths)
        young = (path for path, at in found if at is not None and data[at : at + SECONDS] >= first)
        self._young = Young(first, frozenset(young))
        return self._young.paths

    def _like(self, data: bytearray) -> "Index":
        """One with the same paths, and with times that are not later than in this one."""
        found = Index(bytes(data), self.places, self._young)
        found.__dict__.update({name: value for name, value in self.__dict__.items() if name == "folders"})
        return found

    def following(self, data: bytes) -> "tuple[Index, list[bytes]] | None":
        """What git made of this index, and the paths whose entries are new, other ones, or gone.

        None where one that is new is no file that is there, or one side of a conflict.
        """
        old, (paths, starts) = self.data, self.places
        left = _count(data)
        found, changed = Places([], []), list[bytes]()
        at, number = HEADER, 0
        while left or number < len(paths):
            end = min(number + BLOCK, len(paths))
            size = starts[end] - starts[number]
            if left >= end - number > 0 and old[starts[number] : starts[end]] == data[at : at + size]:
                found.take(self.places, number, end, at)
                at, left, number = at + size, left - (end - number), end
                continue
            while number < end or (left and number == len(paths)):
                path, length = _entry(data, at) if left else (b"", 0)
                if not left or (number < len(paths) and path > paths[number]):
                    changed.append(paths[number])
                    number += 1
                    continue
                known = number < len(paths) and path == paths[number]
                if not known or old[starts[number] : starts[number + 1]] != data[at : at + length]:
                    if data[at + FLAGS] & (EXTENDED | STAGES):
                        return None
                    changed.append(path)
                found.paths.append(path)
                found.starts.append(at)
                at, left, number = at + length, left - 1, number + known
        found.starts.append(at)
        return Index(data, found, self._young_too(changed)), changed

    def changed(self, changes: Mapping[bytes, bytes]) -> "Index":
        """An index with other entries for some paths, see ``entry``; b"" takes a path out. Extensions are left out."""
        data, (paths, starts) = self.data, self.places
        pieces: list[bytes] = []
        found = Places([], [])
        number, length = 0, HEADER
        for path in (*sorted(changes), None):
            until = len(paths) if path is None else bisect_left(paths, path)
            found.take(self.places, number, until, length)
            pieces.append(data[starts[number] : starts[until]])
            length += len(pieces[-1])
            number = until
            if path is not None:
                number += until < len(paths) and paths[until] == path
                if changes[path]:
                    pieces.append(changes[path])
                    found.paths.append(path)
                    found.starts.append(length)
                    length += len(changes[path])
        found.starts.append(length)
        header = data[: len(SIGNATURE) + SECONDS] + pack(">I", len(found.paths))
        made = Index(b"".join((header, *pieces, bytes(DIGEST))), found, self._young_too(changes))
        made.__dict__["folders"] = _folders_with(self.folders, changes)
        return made

    def _young_too(self, changed: Mapping[bytes, bytes] | list[bytes]) -> Young | None:
        return Young(self._young.first, self._young.paths.union(changed)) if self._young is not None else None

    def front(self, path: bytes) -> tuple[bytes, int]:
        """The entry of a path, or the one in front of where it would be: its path, and when it was modified in ns."""
        paths, starts = self.places
        number = bisect_right(paths, path) - 1
        return (paths[number], _modified(self.data, starts[number])) if number >= 0 else (b"", 0)

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
        data, (paths, starts) = self.data, self.places
        first = pack(">2I", *divmod(int((since - CLOCK_STEP_SECONDS) * BILLION), BILLION))
        changed = bytearray(data)
        young = [number for number, path in enumerate(paths) if data[starts[number] : starts[number] + 8] >= first]
        for number in young:
            known = before.start_of(paths[number])
            if known is not None:
                time = _modified(before.data, known)
            else:
                time = _modified(changed, starts[max(0, number - 1)])
            place = os.path.join(top, paths[number])  # noqa: PTH118 - bytes
            os.utime(place, ns=(time, time), follow_symlinks=False)
            status = os.lstat(place)
            times = (*divmod(status.st_ctime_ns, BILLION), *divmod(status.st_mtime_ns, BILLION))
            pack_into(">4I", changed, starts[number], *times)
        return Index(bytes(changed), self.places)


def _is_as_recorded(data: bytes, start: int, place: bytes) -> bool:
    seconds, nanoseconds = unpack_from(">2I", data, start)
    with suppress(OSError):
        now = divmod(os.lstat(place).st_ctime_ns, BILLION)
        # Of other seconds git sees it. Some file systems count in seconds; then nobody can tell.
        return now[0] != seconds or (bool(nanoseconds) and now[1] == nanoseconds)
    return True


def entry(path: bytes, mode: int, blob: str, status: os.stat_result) -> bytes:
    """An entry for a file that was just written."""
    times = (*divmod(status.st_ctime_ns, BILLION), *divmod(status.st_mtime_ns, BILLION))
    numbers = (status.st_dev, status.st_ino, mode, status.st_uid, status.st_gid, status.st_size)
    fields = pack(">10I", *times, *(number & 0xFFFFFFFF for number in numbers))
    data = fields + bytes.fromhex(blob) + pack(">H", min(len(path), 0xFFF)) + path
    return data.ljust(_length(len(data)), b"\0")


def _places(data: bytes) -> Places:
    found, start = Places([], []), HEADER
    for _ in range(_count(data)):
        path, length = _entry(data, start)
        found.paths.append(path)
        found.starts.append(start)
        start += length
    found.starts.append(start)
    return found


def _count(data: bytes) -> int:
    return int(unpack_from(">I", data, len(SIGNATURE) + SECONDS)[0])


def _entry(data: bytes, start: int) -> tuple[bytes, int]:
    """The path of an entry, and how long the entry is; version 2 has none with more flags."""
    name = start + NAME + (2 if data[start + FLAGS] & EXTENDED else 0)
    end = data.index(b"\0", name)
    return data[name:end], _length(end - start)


def _length(used: int) -> int:
    """How long an entry is: padded with one to eight zeros."""
    return (used + 8) & ~7


def _modified(data: bytes | bytearray, start: int) -> int:
    seconds, nanoseconds = unpack_from(">2I", data, start + 8)
    return int(seconds) * BILLION + int(nanoseconds)


def _digest(data: bytes | memoryview) -> bytes:
    return hashlib.sha1(data, usedforsecurity=False).digest()


def above(path: bytes) -> Iterator[bytes]:
    """The folders that a path is in, the nearest first; the last is the top, b""."""
    while path:
        path = path.rpartition(b"/")[0]
        yield path


def _names_in(folders: dict[bytes, set[bytes]], folder: bytes) -> set[bytes]:
    """The names in a folder, which is there from now on."""
    below = b""
    for part in folder.split(b"/") if folder else ():
        folders[below].add(part)
        below = below + b"/" + part if below else part
        folders.setdefault(below, set())
    return folders[folder]


def _folders_with(folders: Mapping[bytes, set[bytes]], changes: Mapping[bytes, bytes]) -> dict[bytes, set[bytes]]:
    """Folders and names once some paths are there, and others, those with b"", are not."""
    found = dict(folders)
    found.update({each: set(found[each]) for path in changes for each in above(path) if each in found})
    for path in (path for path, entry in changes.items() if not entry):
        for place in (path, *above(path)):
            folder, _, name = place.rpartition(b"/")
            found[folder].discard(name)
            if found[folder] or not folder:
                break
            del found[folder]
    for path in (path for path, entry in changes.items() if entry):
        folder, _, name = path.rpartition(b"/")
        _names_in(found, folder).add(name)
    return found
