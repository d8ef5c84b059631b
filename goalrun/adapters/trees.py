"""Trees made from snapshots: what checks run on, where, and what they did to it."""

import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from posixpath import dirname, join, normpath
from typing import NamedTuple

from goalrun.adapters import git
from goalrun.adapters.exports import FEW_OBJECTS, Exports
from goalrun.adapters.objects import small_object
from goalrun.adapters.repository import (
    ABSENT,
    BASE_REF,
    GITLINK,
    Entry,
    as_file,
    entries,
    present,
    shown,
)
from goalrun.core.manifests import harness_changed, is_mixed_manifest
from goalrun.core.mentions import mentioned
from goalrun.core.model import Snapshot, Tamper
from goalrun.core.protection import Change, Finding, Protection, matches

LINK = "120000"
MAX_TEXT_BYTES = 1 << 20


class Plan(NamedTuple):
    """What the checks run on: the snapshot with protected paths as in the base.

    Attributes:
        tree: without the worker's additions to test roots.
        full_tree: with them; equal to ``tree`` when there are none.
    """

    tree: str
    full_tree: str
    tampering: tuple[Tamper, ...]


class Trees(Exports):
    """A store that knows which paths are protected.

    Args:
        protection: makes the protected set from the files of the base.
    """

    def __init__(self, folder: Path, workspace: Path, protection: Callable[[frozenset[str]], Protection]) -> None:
        super().__init__(folder, workspace)
        self._make_protection = protection
        self._protection: Protection | None = None
        self._protected: frozenset[bytes] | None = None

    def protection(self) -> Protection:
        """The protected set, made from the base once."""
        if self._protection is None:
            listing = self._git(["ls-tree", "-r", "-z", "--name-only", "--full-tree", self.base])
            bare = self._make_protection(frozenset(shown(path) for path in listing.split(b"\0") if path))
            mentions = mentioned(bare.checks, bare.subfolder, bare.base_files, self._text_of_base)
            self._protection = bare.but(mentions=mentions)
        return self._protection

    def _text_of_base(self, path: str) -> str | None:
        found = self._try(["cat-file", "blob", f"{self.base}:{path}"])
        return found.stdout[:MAX_TEXT_BYTES].decode("utf-8", "replace") if found.status == 0 else None

    def plan(self, snapshot: Snapshot) -> Plan:
        """What the checks of a snapshot run on, and the edits that they must not see."""
        found = list(self._findings(snapshot.tree))
        undone = [entry for entry, finding in found if finding.kind != "extra"]
        extra = [entry for entry, finding in found if finding.kind == "extra"]
        tampering = tuple(tamper for _, finding in found if (tamper := finding.tamper) is not None)
        full = self._tree_with(snapshot.tree, undone)
        strict = self._tree_with(full, extra) if extra else full
        return Plan(tree=strict, full_tree=full, tampering=tampering)

    def _findings(self, tree: str) -> Iterator[tuple[Entry, Finding]]:
        protection = self.protection()
        for entry in self.changes(self.tree_of(self.base), tree):
            change = Change(path=entry.shown, before=present(entry.before), after=present(entry.after))
            finding = protection.finding(change)
            if finding is None and is_mixed_manifest(entry.shown) and self._harness_edit(entry, protection):
                finding = Finding(path=entry.shown, kind="modified" if change.before else "added")
            if finding is None and entry.after[0] == LINK and self._leads_out(entry):
                finding = Finding(path=entry.shown, kind="modified" if change.before else "added")
            if finding is not None:
                yield entry, finding

    def _leads_out(self, entry: Entry) -> bool:
        """Whether a link of the worker's leads out of the workspace: what is there is not delivered."""
        target = os.fsdecode(self._git(["cat-file", "blob", entry.after[1]]))
        return target.startswith("/") or normpath(join(dirname(os.fsdecode(entry.path)), target)).startswith("..")

    def _harness_edit(self, entry: Entry, protection: Protection) -> bool:
        """Whether a manifest that may change was changed in more than its product tables (design 11.4)."""
        if not matches(entry.shown, protection.spec.may_change) or not present(entry.after):
            return False
        before = self._git(["cat-file", "blob", entry.before[1]]) if present(entry.before) else b""
        after = self._git(["cat-file", "blob", entry.after[1]])
        return present(entry.before) and harness_changed(entry.shown, before, after)

    def _tree_with(self, tree: str, undo: Iterable[Entry]) -> str:
        """A tree with some paths as they were before."""
        gone = [entry for entry in undo if not present(entry.before)]
        back = [entry for entry in undo if present(entry.before)]
        if not gone and not back:
            return tree
        # Removals first: a folder that became a file, or a link, has to go before what was below it comes back.
        lines = [b"0 %s\t%s\0" % (b"0" * 40, entry.path) for entry in (*gone, *back)]
        lines += [f"{mode} {blob}\t".encode() + path + b"\0" for path, (mode, blob), _ in back]
        with tempfile.TemporaryDirectory(dir=self._folder) as scratch, as_file(b"".join(lines)) as listing:
            index = {"GIT_INDEX_FILE": str(Path(scratch, "index"))}
            self._git(["read-tree", tree], index)
            self._git(["update-index", "-z", "--index-info"], index, listing)
            return self._git(["write-tree"], index).decode("ascii").strip()

    def materialise(self, tree: str, folder: Path) -> None:
        """Write a tree's files, exact bytes and modes, into an empty folder."""
        env = self._worktree(folder)
        git.checked(["read-tree", tree], folder, env)
        git.checked(["checkout-index", "--all", "--force", "--index"], folder, env)

    def marks(self, folder: Path) -> dict[str, tuple[int, ...]]:
        """Identity and times of the base's tests in a materialised worktree: a write moves the time of change."""
        found: dict[str, tuple[int, ...]] = {}
        for path in self.protection().test_files:
            with suppress(OSError):
                status = (folder / path).lstat()
                found[path] = (status.st_ino, status.st_mtime_ns, status.st_ctime_ns, status.st_size)
        return found

    def changed_while_checked(
        self, folder: Path, marks: dict[str, tuple[int, ...]], changed: Sequence[Change]
    ) -> list[Tamper]:
        """Protected paths that the checks, or what they ran, changed in a materialised worktree.

        Tests that were written over and put back show by ``marks``, from before the checks.
        """
        now = self.marks(folder)
        touched = [Tamper(path=path, kind="escaped") for path, mark in marks.items() if now.get(path) != mark]
        return [*touched, *(Tamper(path=each.path, kind="escaped") for each in self.protection().escapes(changed))]

    @contextmanager
    def differing(self, folder: Path) -> Iterator[Callable[[], list[Change]]]:
        """Files of a materialised worktree that differ from its index, which lies outside of it; see ``git.beside``."""
        # Unlike the plumbing, `diff` looks at the bytes where the times differ.
        words = ["diff", "--raw", "-z", "--no-renames", "--no-ext-diff", "--no-textconv"]
        with git.beside(words, folder, self._worktree(folder)) as ended:
            yield lambda: [Change(path=each.shown, before=True, after=present(each.after)) for each in entries(ended())]

    def reading_over(self, tree: str, folder: Path) -> AbstractContextManager[Callable[[], object]]:
        """Make the files in a materialised worktree those of a tree; what its index vouches for is not written.

        That is done once what is given returns; see ``git.beside``.
        """
        return git.beside(["read-tree", "--reset", "-u", tree], folder, self._worktree(folder))

    def difference(self, held: str, tree: str) -> dict[bytes, tuple[Entry, bytes]] | None:
        """What a tree has different from another one, by path, with the bytes of its files.

        None where that is much, or not to be had without git.
        """
        changed = [each for each in self.between(held, tree) if not each.is_folder]
        if len(changed) > FEW_OBJECTS:
            return None
        found = {}
        for each in changed:
            loose = small_object(self.path, each.after[1]) if present(each.after) else ("blob", b"")
            if loose is None:
                return None
            found[each.path] = (each, loose[1])
        return found

    def differs(self, tree: str, folder: Path) -> AbstractContextManager[Callable[[], bytes]]:
        """What of index or files of a materialised worktree is not exactly a tree's; see ``git.beside``."""
        return git.beside(["diff-index", "--raw", "-z", "--no-renames", tree], folder, self._worktree(folder))

    def protected(self) -> frozenset[bytes]:
        """The base's files that are protected."""
        if self._protected is None:
            protection = self.protection()
            paths = (path for path in protection.base_files if protection.protects(path))
            self._protected = frozenset(map(os.fsencode, paths))
        return self._protected

    def left_in(self, folder: Path) -> list[str]:
        """Paths in a materialised worktree that its tree does not have; a wholly new folder is one path."""
        untracked = ["ls-files", "-z", "--others", "--directory", "--no-empty-directory", "--", "."]
        found = git.checked(untracked, folder, self._worktree(folder)).split(b"\0")
        return [os.fsdecode(path.rstrip(b"/")) for path in found if path]

    def adopt(self, objects: Path, commit: str, now: str | None = None) -> None:
        """Take one commit's tree out of another repository and make it the base.

        Submodules are files in a snapshot: the base has theirs as they are ``now``, in that tree, or without it none.

        The objects come as a pack and are hashed again on the way in, so one that is forged is missing then.

        Raises:
            GitFailed: an object is forged, damaged or missing.
        """
        with tempfile.TemporaryFile() as pack, as_file(f"{commit}^{{tree}}\n".encode()) as wanted:
            git.stream(["pack-objects", "--quiet", "--revs", "--stdout"], objects, {}, pack, wanted)
            pack.seek(0)
            self._git(["unpack-objects", "-q"], stdin=pack)
        tree = git.checked(["rev-parse", "--verify", f"{commit}^{{tree}}"], objects).decode("ascii").strip()
        self._git(["rev-list", "--objects", "--quiet", tree])
        base = self.commit(self._with_files_of_submodules(tree, now), "goalrun base")
        self._git(["update-ref", BASE_REF, base])
        self.base = base

    def _with_files_of_submodules(self, tree: str, now: str | None) -> str:
        listing = self._git(["ls-tree", "-r", "-z", "--full-tree", tree]).split(b"\0")
        links = [line.partition(b"\t")[2] for line in listing if line.startswith(GITLINK.encode())]
        files = []
        for path in links:
            if now is None:
                break
            below = self._git(["ls-tree", "-r", "-z", "--full-tree", now, "--", os.fsdecode(path) + "/"]).split(b"\0")
            for line in filter(None, below):
                mode, _, blob = line.partition(b"\t")[0].decode("ascii").split(" ")
                files.append(Entry(line.partition(b"\t")[2], (mode, blob), ABSENT))
        gone = [Entry(path, ABSENT, (GITLINK, "0" * 40)) for path in links]
        return self._tree_with(tree, [*gone, *files])
