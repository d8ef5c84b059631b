"""Trees made from snapshots: what checks run on, where, and what they did to it."""

import os
import shutil
import tempfile
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from posixpath import dirname, join, normpath
from typing import NamedTuple

from goalrun.adapters import git
from goalrun.adapters.files import private_folder
from goalrun.adapters.objects import place_of, small_blob, write_commit
from goalrun.adapters.repository import (
    ABSENT,
    BASE_REF,
    GITLINK,
    Entry,
    Repository,
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
PACKED = "packed"
"""A folder in a goal's own: what was exported first, as a pack, in a folder named by its tree."""
FEW_OBJECTS = 100
"""So many are copied in less time than git takes to make a pack of them."""
MAX_TEXT_BYTES = 1 << 20
EXACT_ATTRIBUTES = "* -text -ident -filter !eol !working-tree-encoding !diff\n"
"""In ``info/attributes``: blobs are the files' exact bytes and patches show them, whatever ``.gitattributes`` says."""


class Plan(NamedTuple):
    """What the checks run on: the snapshot with protected paths as in the base.

    Attributes:
        tree: without the worker's additions to test roots.
        full_tree: with them; equal to ``tree`` when there are none.
    """

    tree: str
    full_tree: str
    tampering: tuple[Tamper, ...]


class Trees(Repository):
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
        # Both were compared with the base already.
        base = self.tree_of(self.base)
        before, after = ({each.path: each for each in self.changes(base, each)} for each in (held, tree))
        sides = ((path, _side(path, before, after), _side(path, after, before)) for path in before | after)
        changed = [Entry(*each) for each in sides if each[1] != each[2]]
        if len(changed) > FEW_OBJECTS:
            return None
        found = {}
        for each in changed:
            data = small_blob(self.path, each.after[1]) if present(each.after) else b""
            if data is None:
                return None
            found[each.path] = (each, data)
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

    def _worktree(self, folder: Path) -> dict[str, str]:
        index = str(folder.with_name(folder.name + ".index"))
        # What a power cut takes of a worktree is made again.
        unsynced = {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "core.fsync", "GIT_CONFIG_VALUE_0": "none"}
        return self._environment({"GIT_WORK_TREE": str(folder), "GIT_INDEX_FILE": index, **unsynced})

    def export(self, tree: str, top: Path, config: bytes | None = None, left: Container[str] = ()) -> list[str]:
        """Make a stand-alone repository of one commit, of a tree whose files are in a folder, or will be.

        Args:
            tree: what it holds.
            top: the folder.
            config: the configuration of an earlier one there.
            left: what is there of that one's files of objects; as returned.

        Returns:
            The files of objects that a later one may have too, below the folder of objects.
        """
        repository = top / ".git"
        if config is None:
            git.checked(["init", "--quiet", "--template=", "--initial-branch=main", str(top)], top)
        for name in ("objects/pack", "objects/info", "refs/heads", "refs/tags", "info"):
            (repository / name).mkdir(parents=True, exist_ok=True)
        if config is not None:
            (repository / "config").write_bytes(config)
        (repository / "HEAD").write_text("ref: refs/heads/main\n", encoding="ascii")
        # Without them `git status` would call files changed whose bytes are not what the tree's own rules make.
        (repository / "info/attributes").write_text(EXACT_ATTRIBUTES, encoding="ascii")
        files = self._bring_objects(tree, repository / "objects", left)
        written = write_commit(repository, tree, "snapshot", durable=False)
        (repository / "refs/heads/main").write_text(f"{written}\n", encoding="ascii")
        # Written with the files, by the same git: it is up to date.
        with suppress(FileNotFoundError):
            shutil.copyfile(self._worktree(top)["GIT_INDEX_FILE"], repository / "index")
        return files

    def _bring_objects(self, tree: str, objects: Path, left: Container[str]) -> list[str]:
        """The objects of a tree: a pack of the tree that was exported first, and what is in this one alone."""
        first, home = self._first_pack(tree)
        packs = {f"pack/{pack.name}": str(pack) for pack in home.iterdir()}
        _copy(packs, objects, left)
        if first == tree:
            return list(packs)
        names = {tree, *(entry.after[1] for entry in self.compared(first, tree) if present(entry.after))}
        loose = {place_of(each): f"{self.path}/objects/{place_of(each)}" for each in names}
        if len(loose) <= FEW_OBJECTS:
            with suppress(FileNotFoundError):
                _copy(loose, objects, left)
                return [*packs, *loose]
        self._pack(names, objects / "pack")
        return list(packs)

    def _first_pack(self, tree: str) -> tuple[str, Path]:
        """The tree that was exported first, and the folder of its pack, in the goal's own."""
        home = private_folder(self._folder / PACKED)
        found = next((each for each in home.iterdir() if len(each.name) == len(tree)), None)
        if found is None:
            draft = Path(tempfile.mkdtemp(dir=home))
            listing = self._git(["ls-tree", "-r", "-t", "-z", "--full-tree", tree]).split(b"\0")
            self._pack(
                {tree, *(line.split(b"\t")[0].split(b" ")[2].decode("ascii") for line in listing if line)}, draft
            )
            found = home / tree
            with suppress(OSError):
                # Another thread may have been first.
                draft.rename(found)
        return found.name, found

    def _pack(self, names: Iterable[str], folder: Path) -> None:
        # Made once or thrown away soon: looking for similar objects would take longer than all the rest.
        words = ["pack-objects", "--quiet", "--window=0", str(folder / "pack")]
        with as_file("".join(f"{name}\n" for name in names).encode("ascii")) as listing:
            git.checked(words, self._folder, self._worktree(folder), listing)

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


def _copy(sources: Mapping[str, str], folder: Path, left: Container[str]) -> None:
    """Copy files to where they go below a folder, but those that are ``left`` there."""
    for name, source in sources.items():
        if name not in left:
            (folder / name).parent.mkdir(exist_ok=True)
            shutil.copyfile(source, folder / name)


def _side(path: bytes, changed: Mapping[bytes, Entry], other: Mapping[bytes, Entry]) -> tuple[str, str]:
    """Mode and blob of a path in one tree, out of what that, and another one, have changed since the base."""
    return changed[path].after if path in changed else other[path].before
