"""What happened to the files, between many pairs of snapshots at once: one git for all of them."""

import re
from collections.abc import Iterable, Sequence
from itertools import groupby

from goalrun.adapters.repository import Repository, shown
from goalrun.errors import GitFailed
from goalrun.pages.model import FilePatch, Patch

MAX_FILES, FILE_CHARS = 200, 64
"""Listed of one patch, and what each of them counts as, at least."""
_PAIR = re.compile(rb"[0-9a-f]{40,64} [0-9a-f]{40,64}\n")
_KINDS = {"+": "added", "-": "gone", "@": "place"}
_ABOUT = re.compile(rb"(new file|deleted file|old mode|new mode|Binary files)")


def patches(store: Repository, pairs: Sequence[tuple[str, str]], most: int) -> list[Patch]:
    """The patch between each pair of trees.

    Args:
        store: holds them.
        pairs: trees before and after.
        most: characters of lines that are kept of each patch.

    Returns:
        As many as there are pairs; those that cannot be read say so.
    """
    found: dict[str, _Reader] = {}
    reader = _Reader(most)
    try:
        with store.patches(pairs) as lines:
            for line in lines:
                if _PAIR.fullmatch(line):
                    reader = found[line.decode("ascii").strip()] = _Reader(most)
                else:
                    reader.take(line)
    except GitFailed as failure:
        return [Patch(failure=str(failure))] * len(pairs)
    done = {pair: each.patch() for pair, each in found.items()}
    missing = Patch(failure=f"git finds no such trees in the store {store.path}")
    return [done.get(f"{before} {after}", missing) for before, after in pairs]


class _Reader:
    """Reads the lines of one patch. A line of a file's content begins with a sign, so none can look like a header."""

    def __init__(self, most: int) -> None:
        self._room, self._most_files = most, min(MAX_FILES, most // FILE_CHARS)
        self._files: list[FilePatch] = []
        self._count = 0
        self._now: FilePatch | None = None
        self._lines: list[str] = []
        self._content = False

    def take(self, line: bytes) -> None:
        if line.startswith(b"diff --git "):
            self._end()
            self._now, self._content = FilePatch(_name(line)), False
        elif self._now is not None and not self._content and not line.startswith(b"@@"):
            about = _ABOUT.match(line)
            if about is not None:
                said = about[1].decode("ascii").replace("old mode", "mode changed").replace("Binary files", "binary")
                known = (
                    self._now.about if "new mode" in said or said in self._now.about else f"{self._now.about} {said}"
                )
                self._now = self._now._replace(about=known.strip().replace(" file", ""))
        elif self._now is not None:
            self._content = True
            self._take_content(self._now, line.decode("utf-8", "replace"))

    def _take_content(self, now: FilePatch, line: str) -> None:
        left_out = 0 if self._room > 0 else 1
        if not left_out:
            # One endless line must not take the room of all.
            self._lines.append(line if len(line) <= self._room else f"{line[: self._room]} […]\n")
            self._room -= len(line)
        self._now = now._replace(
            added=now.added + line.startswith("+"),
            gone=now.gone + line.startswith("-"),
            left_out=now.left_out + left_out,
        )

    def _end(self) -> None:
        if self._now is None:
            return
        self._count += 1
        if len(self._files) < self._most_files:
            self._files.append(self._now._replace(chunks=tuple(_chunks(self._lines))))
        self._lines = []

    def patch(self) -> Patch:
        self._end()
        return Patch(tuple(self._files), self._count - len(self._files))


def _chunks(lines: Sequence[str]) -> Iterable[tuple[str, str]]:
    """Lines of one kind together: a page with an element for each line is slow."""
    for kind, group in groupby(lines, key=lambda line: _KINDS.get(line[:1], "same")):
        yield kind, "".join(group)


def _name(line: bytes) -> str:
    """The path out of ``diff --git a/PATH b/PATH``, escaped for display; git quotes what is unusual, as C does."""
    both = line.removeprefix(b"diff --git ").rstrip(b"\n")
    if both.startswith(b'"'):
        half = both[3 : len(both) // 2 - 1]
        return shown(half.decode("unicode_escape").encode("latin-1"))
    return shown(both[2 : len(both) // 2])
