"""Verification worktrees that are used again: set back to a tree, and proven to be it and nothing else.

To write all files of a workspace takes seconds, to set back what a check changed milliseconds. What is trusted is out
of a check's reach: git's index of the worktree is kept in this process, and the objects come from the store. What
cannot be proven is removed and made from scratch, as is every worktree of an earlier run.
"""

import os
import shutil
import stat
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from goalrun.adapters.files import files_below, private_folder, remove_tree
from goalrun.adapters.index import BILLION, CLOCK_STEP_SECONDS, Index, entry
from goalrun.adapters.objects import name_of
from goalrun.adapters.repository import Entry, present, shown
from goalrun.adapters.trees import LINK, Trees
from goalrun.core.protection import Change
from goalrun.errors import EnvironmentFailure, GitFailed

FOLDER = "verify"
REPOSITORY = b".git"
EXECUTABLE = "100755"
FILES = {"100644", EXECUTABLE}
REPOSITORY_FOLDERS: Mapping[bytes, set[bytes]] = {
    b".git": {b"objects", b"refs", b"info"},
    b".git/objects": {b"pack", b"info"},
    b".git/objects/info": set(),
    b".git/objects/pack": set(),
    b".git/refs": {b"heads", b"tags"},
    b".git/refs/heads": set(),
    b".git/refs/tags": set(),
    b".git/info": set(),
}
Mark = tuple[int, ...]


class Pool:
    """The worktrees of one goal, for as long as this process runs it.

    Args:
        folder: the goal's folder.
        name: what the workspace is called.

    Attributes:
        folder: where they are.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self.folder = folder / FOLDER
        self._name = name or "workspace"
        self._free: list[Worktree] = []
        self._made = 0
        self._lock = threading.Lock()

    @contextmanager
    def worktree(self, store: Trees, tree: str) -> Iterator["Worktree"]:
        """A worktree that holds a tree, for one user at a time.

        Raises:
            EnvironmentFailure: it cannot be made.
        """
        with self._lock:
            taken = self._free.pop() if self._free else None
            self._made += taken is None
            number = self._made
        if taken is None or not taken.set_back(store, tree):
            place = private_folder(self.folder) / f"worktree-{number}" if taken is None else taken.place
            taken = Worktree(place, self._name)
            taken.make(store, tree)
        yield taken
        # One that something went wrong in is left to be removed with the rest.
        with self._lock:
            self._free.append(taken)


_pools: dict[Path, Pool] = {}


def pool_of(folder: Path, name: str) -> Pool:
    """The pool of a goal: one in a process, whoever lays out its worktrees."""
    return _pools.setdefault(folder, Pool(folder, name))


def clear(folder: Path) -> None:
    """Remove all worktrees of a goal, and forget what was known of them; the next one is made from scratch.

    Raises:
        EnvironmentFailure: a file cannot be removed.
    """
    _pools.pop(folder, None)
    remove_tree(folder / FOLDER)


class Unproven(Exception):
    """A worktree is not what it should be."""


class Worktree:
    """One of them.

    Args:
        place: a folder for it alone.
        name: what the workspace is called.
    """

    def __init__(self, place: Path, name: str) -> None:
        self.place = place
        self.top = place / "tree" / name
        self._index = self.top.with_name(f"{name}.index")
        self._bytes = os.fsencode(self.top)
        self._known = Index(b"")
        self._since = 0.0
        self._config = b""
        self._folder_mark: tuple[object, ...] = ()
        self._left: dict[str, Mark] = {}
        self._proven: dict[bytes, tuple[Mark, set[bytes]]] = {}
        self._laid, self._held, self._strange = "", "", False

    def make(self, store: Trees, tree: str) -> None:
        """Write it from scratch.

        Raises:
            GitFailed: that cannot be done.
        """
        remove_tree(self.place)
        self.top.mkdir(parents=True)
        self._folder_mark = _folder_mark(self._bytes)
        since = self.top.stat().st_mtime
        store.materialise(tree, self.top)
        self._left = {name: _mark(self._in_repository(name)) for name in store.export(tree, self.top)}
        self._config = (self.top / ".git/config").read_bytes()
        self._settle(Index(self._index.read_bytes()), since)
        self._proven = {}
        self._laid, self._held = tree, ""

    def set_back(self, store: Trees, tree: str) -> bool:
        """Make it hold a tree, whatever was done to it; False where that cannot be proven."""
        held, self._held = self._held, ""
        # A file that was written again, with the same bytes, is no change, but cannot be proven without being read.
        return any(self._made_to_hold(store, tree, known) for known in dict.fromkeys((held, "")))

    def _made_to_hold(self, store: Trees, tree: str, held: str) -> bool:
        try:
            self._index.touch()
            since = self._index.stat().st_mtime
            before = self._known.doubted(self._since, self._bytes)
            if not held or self._strange:
                self._remove_strangers(_names(before))
            difference = store.difference(held, tree) if held else None
            if difference is not None:
                self._settle(self._write_over(before, difference), since)
                with self._proven_to_be(store, tree):
                    self._lay_repository(store, tree)
            else:
                self._index.write_bytes(before.data)
                with store.reading_over(tree, self.top) as read:
                    self._lay_repository(store, tree)
                    read()
                self._settle(Index(self._index.read_bytes()).in_order(before, since, self._bytes), since)
                shutil.copyfile(self._index, self.top / ".git/index")
                with self._proven_to_be(store, tree):
                    pass
        except (Unproven, EnvironmentFailure, GitFailed, OSError):
            return False
        self._laid = tree
        return True

    def _write_over(self, before: Index, difference: Mapping[bytes, tuple[Entry, bytes]]) -> Index:
        """What git would do to the files, and to the index, where only a little is different."""
        entries: dict[bytes, bytes] = {}
        again = {path for path, (each, _) in difference.items() if self._is_as_written(before, each)}
        for path, (each, _) in difference.items():
            if present(each.before) and path not in again:
                _remove(self._bytes, path)
                entries[path] = b""
        last, time = b"", 0
        for path, (each, data) in sorted(difference.items()):
            if present(each.after):
                # As `Index.in_order` has it: the time that it had, or that of the file in front.
                front, old = before.front(path)
                time = time if front < last else old
                status = _write(self._bytes, path, each.after[0], data, time, over=path in again)
                entries[path] = entry(path, int(each.after[0], 8), each.after[1], status)
                last, time = path, status.st_mtime_ns
        return before.changed(entries) if entries else before

    def _is_as_written(self, before: Index, each: Entry) -> bool:
        """Whether a file can be written over: it stays of its kind, and nobody has touched it, or linked it."""
        if each.before[0] != each.after[0] or each.after[0] not in FILES:
            return False
        with suppress(OSError):
            return before.is_untouched(each.path, os.lstat(os.path.join(self._bytes, each.path)))  # noqa: PTH118 - bytes
        return False

    def changes(self, store: Trees) -> list[Change]:
        """What was done to it since: files that differ, and files that are new."""
        self._index.write_bytes(self._known.doubted(self._since, self._bytes).data)
        with store.differing(self.top) as changed:
            new = [Change(path=shown(path), before=False, after=True) for path in self._new_files()]
            found = changed()
            self._held, self._strange = "" if found else self._laid, bool(new)
            return [*found, *new]

    def _settle(self, known: Index, since: float) -> None:
        self._known, self._since = known, since
        self._index.write_bytes(known.signed())

    def _remove_strangers(self, folders: Mapping[bytes, set[bytes]]) -> None:
        """All but some names in some folders, and what stands in their place; they get back what they were like."""
        for folder, names in folders.items():
            place = os.path.join(self._bytes, folder)  # noqa: PTH118 - bytes
            with suppress(FileNotFoundError):
                if not stat.S_ISDIR(os.lstat(place).st_mode):
                    os.unlink(place)  # noqa: PTH108 - bytes
                    continue
                if _folder_mark(place) != self._folder_mark:
                    _restore_folder(place, self._folder_mark)
                for name in set(os.listdir(place)) - names:  # noqa: PTH208 - bytes
                    remove_tree(Path(os.fsdecode(os.path.join(place, name))))  # noqa: PTH118 - bytes

    def _lay_repository(self, store: Trees, tree: str) -> None:
        """The repository, with nothing of the old one but files of this one that nobody touched."""
        folders = {folder: set(names) for folder, names in REPOSITORY_FOLDERS.items()}
        for name in self._untouched():
            folder, _, file = (REPOSITORY + b"/" + os.fsencode(name)).rpartition(b"/")
            folders[folder].add(file)
        self._remove_strangers(folders)
        # Not those that were beyond a link.
        untouched = self._untouched()
        files = store.export(tree, self.top, self._config, untouched)
        self._left = {name: untouched.get(name) or _mark(self._in_repository(name)) for name in files}
        for name in untouched.keys() - self._left.keys():
            os.unlink(self._in_repository(name))  # noqa: PTH108 - bytes

    def _untouched(self) -> dict[str, Mark]:
        return {name: mark for name, mark in self._left.items() if _mark(self._in_repository(name)) == mark}

    def _in_repository(self, name: str) -> bytes:
        return os.path.join(self._bytes, REPOSITORY, os.fsencode(name))  # noqa: PTH118 - bytes

    @contextmanager
    def _proven_to_be(self, store: Trees, tree: str) -> Iterator[None]:
        """That every file is the tree's, every name in a folder is a file's, and protected files have their bytes.

        What is done meanwhile may change the repository alone.
        """
        with store.differs(tree, self.top) as found:
            yield
            self._prove_names()
            self._prove_protected(store)
            if found():
                raise Unproven("a file differs")

    def _prove_names(self) -> None:
        old = int((self._since - CLOCK_STEP_SECONDS) * BILLION)
        proven = {}
        for folder, place, names in self._touched():
            mark = _mark(place)
            if set(os.listdir(place)) != names or _folder_mark(place) != self._folder_mark:  # noqa: PTH208 - bytes
                raise Unproven(f"{shown(folder)} holds something else")
            # What is younger could change once more and look the same.
            if mark and mark[-1] < old:
                proven[folder] = mark, names
        self._proven = {
            folder: known for folder, known in self._proven.items() if folder in self._known.folders
        } | proven

    def _touched(self) -> Iterator[tuple[bytes, bytes, set[bytes]]]:
        """The folders that somebody may have touched since their names were proven, where they are, and their names."""
        for folder, names in _names(self._known).items():
            place = os.path.join(self._bytes, folder)  # noqa: PTH118 - bytes
            if self._proven.get(folder) != (_mark(place), names):
                yield folder, place, names

    def _prove_protected(self, store: Trees) -> None:
        for path in store.protected():
            start = self._known.start_of(path)
            if start is not None and _hash(self._bytes, path) != self._known.blob(start):
                raise Unproven(f"{shown(path)} has other bytes")

    def _new_files(self) -> Iterator[bytes]:
        for folder, place, names in self._touched():
            with suppress(OSError):
                for name in os.listdir(place) if not os.path.islink(place) else ():  # noqa: PTH114, PTH208 - bytes
                    if name not in names:
                        yield from _files(self._bytes, os.path.join(folder, name))  # noqa: PTH118 - bytes


def _names(index: Index) -> dict[bytes, set[bytes]]:
    """What every folder of a worktree has to hold; the top has the repository too."""
    return {**index.folders, b"": index.folders[b""] | {REPOSITORY}}


def _folder_mark(place: bytes) -> tuple[object, ...]:
    """What of a folder a command could leave a mark in: mode, owner, extended attributes."""
    status = os.lstat(place)
    return status.st_mode, status.st_uid, status.st_gid, *_attributes(place)


def _attributes(place: bytes) -> tuple[tuple[str, bytes], ...]:
    # Only Linux has them in the standard library; file systems may have none.
    with suppress(AttributeError, OSError):
        names = os.listxattr(place, follow_symlinks=False)
        return tuple((name, os.getxattr(place, name, follow_symlinks=False)) for name in sorted(names))
    return ()


def _restore_folder(place: bytes, mark: tuple[object, ...]) -> None:
    os.chmod(place, stat.S_IMODE(int(str(mark[0]))))  # noqa: PTH101 - bytes
    for name, _ in set(_attributes(place)) - set(mark[3:]):
        os.removexattr(place, name, follow_symlinks=False)


def _mark(path: bytes) -> Mark:
    """Identity and times of a file; a write moves the time of change, which nobody can set."""
    with suppress(OSError):
        status = os.lstat(path)
        return status.st_ino, status.st_mode, status.st_nlink, status.st_size, status.st_mtime_ns, status.st_ctime_ns
    return ()


def _hash(top: bytes, path: bytes) -> str:
    """What git calls the content of a file or a link."""
    place = os.path.join(top, path)  # noqa: PTH118 - bytes
    if os.path.islink(place):  # noqa: PTH114 - bytes
        data = os.readlink(place)  # noqa: PTH115 - bytes
    else:
        with os.fdopen(os.open(place, os.O_RDONLY | os.O_NOFOLLOW), "rb") as file:
            data = file.read()
    return name_of("blob", data)


def _remove(top: bytes, path: bytes) -> None:
    """Remove a file, and the folders above it that held nothing else."""
    place = os.path.join(top, path)  # noqa: PTH118 - bytes
    os.unlink(place)  # noqa: PTH108 - bytes
    with suppress(OSError):
        while (place := os.path.dirname(place)) != top:  # noqa: PTH120 - bytes
            os.rmdir(place)  # noqa: PTH106 - bytes


def _write(top: bytes, path: bytes, mode: str, data: bytes, time: int, *, over: bool) -> os.stat_result:
    """Write a file, or a link, that is not there, as git does; or over a file that is there, and has the mode."""
    place = os.path.join(top, path)  # noqa: PTH118 - bytes
    how = os.O_TRUNC if over else os.O_CREAT | os.O_EXCL
    missing = [place]
    while not os.path.isdir(above := os.path.dirname(missing[-1])):  # noqa: PTH112, PTH120 - bytes
        missing.append(above)
    for folder in reversed(missing[1:]):
        os.mkdir(folder)  # noqa: PTH102 - bytes
    if mode == LINK:
        os.symlink(data, place)  # noqa: PTH211 - bytes
    else:
        rights = 0o777 if mode == EXECUTABLE else 0o666
        with os.fdopen(os.open(place, os.O_WRONLY | os.O_NOFOLLOW | how, rights), "wb") as file:
            file.write(data)
    if time:
        os.utime(place, ns=(time, time), follow_symlinks=False)
    return os.lstat(place)


def _files(top: bytes, path: bytes) -> Iterator[bytes]:
    """A file, or all files below a folder; links are not followed."""
    place = os.path.join(top, path)  # noqa: PTH118 - bytes
    if os.path.islink(place) or not os.path.isdir(place):  # noqa: PTH112, PTH114 - bytes
        yield path
        return
    for below in files_below(place):
        yield os.path.relpath(below, top)
