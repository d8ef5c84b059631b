"""A bare repository of goalrun's own, and the plumbing to work in it."""

import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, NamedTuple

from goalrun.adapters import git
from goalrun.adapters.files import identity_of, require_same
from goalrun.adapters.objects import commit_of, write_object

BASE_REF = "refs/goalrun/base"
GITLINK, FOLDER = "160000", "040000"
ABSENT = ("000000", "0" * 40)
"""Mode and name of what is not there."""
_HASH = re.compile("[0-9a-f]{40}")
KEPT = 4


class Entry(NamedTuple):
    """One path in the difference of two trees; a mode of ``000000`` says that it is absent on that side."""

    path: bytes
    before: tuple[str, str]
    after: tuple[str, str]

    @property
    def shown(self) -> str:
        """The path as text, escaped where it is none."""
        return shown(self.path)

    @property
    def is_folder(self) -> bool:
        """Whether it is a folder on one side; a file of the name that is there on the other has an entry of its own."""
        return FOLDER in (self.before[0], self.after[0])


class Repository:
    """A store, with the workspace as its work tree and an index of its own.

    Args:
        folder: the goal's folder; the store is ``store.git`` in it.
        workspace: top folder of the workspace.

    Attributes:
        base: the commit of the base, as the journal has it: a ref can be moved. Until it is known, the ref.
    """

    def __init__(self, folder: Path, workspace: Path) -> None:
        self.base = BASE_REF
        self.path = folder / "store.git"
        self._folder = folder
        self._workspace = workspace
        self._index = folder / "index"
        self._known = identity_of(workspace)
        self._trees: dict[str, str] = {}
        self._compared: dict[tuple[str, str], list[Entry]] = {}
        self._pinned = ""

    def require_workspace(self) -> None:
        """Refuse a workspace that is not the folder that it was when this object was made; see ``require_same``."""
        require_same(self._workspace, self._known)

    def commit(self, tree: str, message: str, *parents: str) -> str:
        """A commit of a tree; its date does not matter, and is the same for all."""
        commit = write_object(self.path, "commit", commit_of(tree, message, *parents))
        self._trees[commit] = tree
        return commit

    def changes(self, before: str, after: str) -> list[Entry]:
        """The paths that differ between two trees or commits."""
        return [entry for entry in self.compared(before, after) if not entry.is_folder]

    def compared(self, before: str, after: str) -> list[Entry]:
        """The same, with the folders above them."""
        found = self._compared.get((before, after)) if before != after else []
        if found is None:
            found = list(entries(self._git(["diff-tree", "-r", "-t", "-z", "--raw", "--no-renames", before, after])))
            if _HASH.fullmatch(before) and _HASH.fullmatch(after):
                self._remember(before, after, found)
        return found

    def between(self, before: str, after: str) -> list[Entry]:
        """The same, out of what both have different from the base; that was looked at before, mostly."""
        if before == after or (self.base == BASE_REF and not self.refs("base")):
            return self.compared(before, after)
        base = self.tree_of(self.base)
        back = (Entry(each.path, each.after, each.before) for each in self.compared(base, before))
        return composed(back, self.compared(base, after))

    def _remember(self, before: str, after: str, found: list[Entry]) -> None:
        # A turn's snapshot is compared with the base more than once; more than the last few is not kept.
        pinned = {pair: known for pair, known in self._compared.items() if pair[1] == self._pinned}
        kept = list(self._compared.items())[1 - KEPT :]
        self._compared = {**pinned, **dict(kept), (before, after): found}

    def blobs(self, tree: str) -> dict[str, str]:
        """What stands for the content of each file of a tree, by its path as shown."""
        listing = self._git(["ls-tree", "-r", "-z", "--full-tree", tree]).split(b"\0")
        pairs = [line.partition(b"\t") for line in listing if line]
        return {shown(path): meta.split(b" ")[2].decode("ascii") for meta, _, path in pairs}

    def patch(self, before: str, after: str, limit: int) -> str:
        """The patch between two commits or trees, with the list of files in front."""
        common = ["diff-tree", "-r", "-M", "--no-ext-diff", "--no-textconv", "--no-color"]
        stat = self._git([*common, "--stat=120", "--stat-count=200", before, after]).decode("utf-8", "replace")
        with tempfile.TemporaryFile(dir=self._folder) as output:
            # Bounded on the way: a diff can be larger than memory.
            git.stream([*common, "-p", before, after], self.path, self._environment(), output)
            size = output.tell()
            output.seek(0)
            patch = output.read(limit).decode("utf-8", "replace")
        rest = f"\n[… {size - limit} bytes left out …]\n" if size > limit else ""
        return f"{stat}\n{patch}{rest}" if patch else ""

    @contextmanager
    def patches(self, pairs: Sequence[tuple[str, str]]) -> Iterator[IO[bytes]]:
        """The patches between many pairs of trees, one after the other, each below a line with its pair.

        Files above half a MiB count as binary.
        """
        common = ["diff-tree", "--stdin", "-r", "-p", "--no-renames", "--no-ext-diff", "--no-textconv", "--no-color"]
        large = {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "core.bigFileThreshold", "GIT_CONFIG_VALUE_0": "512k"}
        asked = "".join(f"{before} {after}\n" for before, after in pairs).encode("ascii")
        with tempfile.TemporaryFile(dir=self._folder) as output, as_file(asked) as stdin:
            git.stream(common, self.path, self._environment(large), output, stdin)
            output.seek(0)
            yield output

    def lines(self, before: str, after: str) -> int:
        """How many lines differ between two trees; a file that is no text counts as one."""
        listing = self._git(["diff-tree", "-r", "-z", "--numstat", "--no-renames", before, after])
        counts = [entry.split(b"\t")[:2] for entry in listing.split(b"\0") if entry]
        return sum(1 if b"-" in (added, gone) else int(added) + int(gone) for added, gone in counts)

    def ref(self, label: str) -> str | None:
        """The commit under a label; None if there is none."""
        return self._ref(f"refs/goalrun/{label}")

    def refs(self, *labels: str) -> dict[str, str]:
        """What labels name, those that name something."""
        if (self.path / "packed-refs").exists():
            # Somebody had git tidy up in the store.
            return {label: commit for label in labels if (commit := self.ref(label)) is not None}
        found = {}
        for label in labels:
            with suppress(FileNotFoundError):
                named = (self.path / f"refs/goalrun/{label}").read_text(encoding="utf-8", errors="replace").strip()
                # One that the power was cut over may be empty.
                if _HASH.fullmatch(named):
                    found[label] = named
        return found

    def tree_of(self, commit: str) -> str:
        """The tree of a commit."""
        known = self._trees.get(commit)
        if known is None:
            known = self._git(["rev-parse", "--verify", f"{commit}^{{tree}}"]).decode("ascii").strip()
            if _HASH.fullmatch(commit):
                self._trees[commit] = known
        return known

    def _ref(self, name: str) -> str | None:
        found = self._try(["rev-parse", "--verify", "--quiet", f"{name}^{{commit}}"])
        return found.stdout.decode("ascii").strip() if found.status == 0 else None

    def _environment(self, extra: Mapping[str, str] | None = None) -> dict[str, str]:
        return {
            "GIT_DIR": str(self.path),
            "GIT_WORK_TREE": str(self._workspace),
            "GIT_INDEX_FILE": str(self._index),
            **(extra or {}),
        }

    def _git(
        self,
        arguments: list[str],
        extra: Mapping[str, str] | None = None,
        stdin: IO[bytes] | None = None,
    ) -> bytes:
        return git.checked(arguments, self._cwd(), self._environment(extra), stdin)

    def _try(self, arguments: list[str]) -> git.Output:
        return git.run(arguments, self._cwd(), self._environment())

    def _cwd(self) -> Path:
        # `add .` is relative to the folder that git runs in.
        return self._workspace if self._workspace.is_dir() else self._folder


def composed(first: Iterable[Entry], then: Iterable[Entry]) -> list[Entry]:
    """What differs after two differences, one after the other, as `git diff-tree -r -t` has it."""
    found = {_key(each): each for each in first}
    for each in then:
        known = found.pop(_key(each), each)
        if known.before != each.after:
            found[_key(each)] = Entry(each.path, known.before, each.after)
    return [found[key] for key in sorted(found)]


def _key(entry: Entry) -> bytes:
    """Git sorts a folder as if its name ended with a slash; there may be a file of the name as well."""
    return entry.path + b"/" if entry.is_folder else entry.path


def present(side: tuple[str, str]) -> bool:
    """Whether a path is there on one side of a difference."""
    return side[0] != ABSENT[0]


def entries(raw: bytes) -> Iterator[Entry]:
    """The entries of git's raw diff format with ``-z`` (git-diff-index(1), "Raw output format")."""
    fields = iter(raw.split(b"\0"))
    for meta in fields:
        if not meta.startswith(b":"):
            continue
        before_mode, after_mode, before, after, _ = meta[1:].decode("ascii").split(" ")
        yield Entry(next(fields), (before_mode, before), (after_mode, after))


def as_file(data: bytes) -> IO[bytes]:
    """Some bytes as a file that a child can read."""
    file = tempfile.TemporaryFile()  # noqa: SIM115 - the caller closes it
    file.write(data)
    file.seek(0)
    return file


def shown(path: bytes) -> str:
    """A path as text: what is not UTF-8, and control characters, are escaped."""
    text = path.decode("utf-8", "backslashreplace")
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)
