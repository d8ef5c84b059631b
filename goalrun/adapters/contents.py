"""What an index holds: the tree of every folder, written without git where only a little of it is new.

`git write-tree` reads the whole index and writes it again, to make a few objects, and `git diff-tree` finds once more
what is new. It is known which entries `git add` has made.
"""

from bisect import bisect_left
from collections.abc import Callable, Mapping
from typing import NamedTuple

from goalrun.adapters.index import DIGEST, Index, above
from goalrun.adapters.repository import ABSENT, FOLDER, Entry

CACHE = b"TREE"
WriteTree = Callable[[bytes], str]


class Contents(NamedTuple):
    """An index and its trees.

    Attributes:
        listing: the index.
        trees: the name of the tree of every folder with files; b"" is the top.
    """

    listing: Index
    trees: Mapping[bytes, str]

    def following(self, data: bytes, write: WriteTree) -> "tuple[Contents, list[Entry]] | None":
        """What an index holds that git made of this one, and what is different, with the folders.

        Args:
            data: the new index.
            write: writes a tree; its name.

        Returns:
            None where the new index has entries that are no files: ask git.
        """
        followed = self.listing.following(data)
        if followed is None:
            return None
        index, changed = followed
        files = (Entry(path, _side(self.listing, path), _side(index, path)) for path in changed)
        steps = [each for each in files if each.before != each.after]
        trees = dict(self.trees)
        # Those below first: what is above needs their names.
        for folder in sorted({folder for each in steps for folder in above(each.path)}, reverse=True):
            content = _tree(index, folder, trees)
            if content or not folder:
                trees[folder] = write(content)
            else:
                trees.pop(folder, None)
            before, after = (_folder(each.get(folder)) for each in (self.trees, trees))
            if folder and before != after:
                steps.append(Entry(folder, before, after))
        return Contents(index, trees), steps


def contents(index: Index) -> Contents | None:
    """What an index holds that `git write-tree` was asked about last: it wrote down the trees there; else None.

    The format is that of "Cache tree" in gitformat-index(5).
    """
    data, at, found = index.data, index.places.starts[-1], dict[bytes, str]()
    while at < len(data) - DIGEST and data[at : at + len(CACHE)] != CACHE:
        at += 8 + int.from_bytes(data[at + 4 : at + 8], "big")
    at += 8
    left: list[tuple[bytes, int]] = []
    while at < len(data) - DIGEST:
        name = data[at : data.index(b"\0", at)]
        at += len(name) + 1
        line = data[at : data.index(b"\n", at)]
        count, below = map(int, line.split(b" "))
        at += len(line) + 1
        if count < 0:
            return None
        folder = b"/".join(filter(None, (left[-1][0] if left else b"", name)))
        found[folder] = data[at : at + DIGEST].hex()
        at += DIGEST
        left.append((folder, below))
        while left and not left[-1][1]:
            left.pop()
            if left:
                left[-1] = (left[-1][0], left[-1][1] - 1)
        if not left:
            return Contents(index, found)
    return None


def _tree(index: Index, folder: bytes, trees: Mapping[bytes, str]) -> bytes:
    """The content of a folder's tree; b"" if it has no files."""
    paths, starts = index.places
    prefix = folder + b"/" if folder else b""
    number, end = bisect_left(paths, prefix), bisect_left(paths, folder + b"0") if folder else len(paths)
    lines = []
    while number < end:
        name, below, _ = paths[number][len(prefix) :].partition(b"/")
        if below:
            lines.append(b"40000 %s\0" % name + bytes.fromhex(trees[prefix + name]))
            number = bisect_left(paths, prefix + name + b"0", number, end)
        else:
            lines.append(b"%o %s\0" % (index.mode(starts[number]), name) + bytes.fromhex(index.blob(starts[number])))
            number += 1
    return b"".join(lines)


def _side(index: Index, path: bytes) -> tuple[str, str]:
    start = index.start_of(path)
    return (f"{index.mode(start):06o}", index.blob(start)) if start is not None else ABSENT


def _folder(tree: str | None) -> tuple[str, str]:
    return (FOLDER, tree) if tree is not None else ABSENT
