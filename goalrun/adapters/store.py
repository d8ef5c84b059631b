"""The goal's own bare repository: snapshots of the workspace.

It shares no object, path, ref, hook or configuration with the user's repository, which is only ever read. Its
index is kept between turns, so a snapshot costs what changed, not what there is.
"""

import os
import tempfile
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from time import monotonic

from goalrun.adapters import git
from goalrun.adapters.contents import Contents, contents
from goalrun.adapters.exports import EXACT_ATTRIBUTES, PACKED
from goalrun.adapters.files import in_the_way, private_folder, remove_tree, write_whole
from goalrun.adapters.index import TIME_STEP_SECONDS, Index
from goalrun.adapters.objects import write_object
from goalrun.adapters.repository import BASE_REF, GITLINK, Entry, as_file, composed, present, shown
from goalrun.adapters.trees import Trees
from goalrun.core.model import Snapshot
from goalrun.errors import GitFailed

CACHES = (
    "__pycache__/", "*.pyc", "*.pyo", ".pytest_cache/", ".mypy_cache/", ".ruff_cache/", ".hypothesis/", ".tox/",
    ".nox/", ".venv/", "node_modules/", ".DS_Store", ".aider.tags.cache.v4/",
)  # fmt: skip
"""Left out of snapshots like ignored files, unless the user's repository tracks them: tools make them."""
MAX_EXCLUDES_BYTES = 1 << 20
PACKED_BASE = {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "core.bigFileThreshold", "GIT_CONFIG_VALUE_0": "1"}
"""Has `git add` write all blobs into one pack: half the room, and half the time, of a file for each."""
TELL_SECONDS = 2.0
LEAST_KEPT_BYTES = 4 << 20
"""Below that, storing everything anew is as fast."""
MAX_NESTED = 100
"""How deep repositories may lie in one another."""
EMPTY_TREE = "4b825dc642cb6eb9a060e54bf8d69288fbee4904"
"""What git calls a folder without files."""
SEED = b".goalrun-nested"


class GitStore(Trees):
    """A goal's repository. The user's own is only read, and only for what it tracks and ignores."""

    _contents: Contents | None = None
    """What the last snapshot of this process found in the index."""

    def beside(self, folder: Path, index: Path) -> "GitStore":
        """The same store for another folder, with an index there."""
        other = GitStore(self._folder, folder, self._make_protection)
        other.base, other._index = self.base, index
        return other

    def create(self) -> None:
        """Make the repository, with the user's ignore rules as they are now. Making it again changes nothing."""
        if (self.path / "goalrun-ready").exists():
            return
        # One that was never ready holds nothing, or half of it: git would trip over its own locks.
        remove_tree(self.path)
        git.checked(["init", "--quiet", "--bare", "--template=", str(self.path)], self._folder)
        self.path.chmod(0o700)
        for name, value in (
            ("core.fsync", "committed,reference"),
            ("core.fsyncMethod", "batch"),
            ("core.bare", "false"),
        ):
            git.checked(["config", name, value], self.path, {"GIT_DIR": str(self.path)})
        info = private_folder(self.path / "info")
        write_whole(info / "attributes", EXACT_ATTRIBUTES)
        write_whole(info / "exclude", "\n".join(CACHES) + "\n" + self._user_excludes())
        write_whole(self.path / "goalrun-ready", "")

    def require(self, base: Snapshot, last: Snapshot) -> None:
        """Refuse to go on with a store that has lost something of these snapshots; lost refs are made again.

        Raises:
            GitFailed: what is missing is named.
        """
        found = self._try(["rev-list", "--objects", "--quiet", base.commit, last.commit])
        if not self.path.is_dir() or found.status != 0:
            said = " ".join(found.stderr.split())[:300] if self.path.is_dir() else "it is gone"
            raise GitFailed(
                f"the store {self.path} is damaged: {said}",
                hint="bring it back from a backup, or start a new goal: the workspace has the files as they are",
            )
        for label, snapshot in (("base", base), ("last", last)):
            if self.ref(label) is None:
                self._point(snapshot.commit, label)

    def _user_excludes(self) -> str:
        """The user's ignore rules that are not in the tree: the global file, then the repository's own."""
        found = user_excludes_files(self._workspace)
        if (self._workspace / ".git").exists():
            own = git.run(["rev-parse", "--git-path", "info/exclude"], self._workspace)
            if own.status == 0:
                found.append(self._workspace / os.fsdecode(own.stdout.strip(b"\n")))
        texts = []
        for path in found:
            with suppress(OSError), path.open("rb") as file:
                texts.append(file.read(MAX_EXCLUDES_BYTES).decode("utf-8", "surrogateescape"))
        return "\n".join(texts) + "\n"

    def fill(self, shelf: Path, tell: Callable[[str], None], poll: Callable[[], None]) -> None:
        """Read the workspace into the index before the first snapshot: the part of it that can take long.

        What an earlier goal kept of the same workspace is not stored again. It comes as a pack, of which git makes
        the index itself: an object has the name that its bytes have, whoever could write to the shelf.

        Args:
            shelf: the pack of an earlier goal, if there is one; see ``keep``.
            tell: shows a line of progress.
            poll: called while it lasts; what it raises ends it.
        """
        told = monotonic()

        def watch(done: int) -> None:
            nonlocal told
            poll()
            if monotonic() - told >= TELL_SECONDS:
                told = monotonic()
                tell(f"taking the base: {done} files" if done else "taking the base: what an earlier goal stored")

        if self._index.exists():
            return
        self.require_workspace()
        for left in (self.path / "objects/pack").glob("tmp_*"):
            # Half a pack, of a process that was killed.
            left.unlink(missing_ok=True)
        how = PACKED_BASE
        with suppress(FileNotFoundError), shelf.open("rb") as pack:
            words = ["index-pack", "--stdin", "--fix-thin"]
            os.utime(shelf)
            if git.follow(words, self.path, self._environment(), watch, pack).status == 0:
                # What is stored is not compressed again, which a pack takes before it is known.
                how = {}
            else:
                shelf.unlink(missing_ok=True)
        self._since.touch()
        # It may fail, on nested repositories; the snapshot sees to that.
        git.follow(["add", "--all", "--verbose", "--", "."], self._workspace, self._environment(how), watch)

    def keep(self, shelf: Path) -> None:
        """Keep what was packed of the base for the next goal of the workspace, where that is worth it."""
        packs = [*(self._folder / PACKED).glob("1-*/*.pack")]
        if len(packs) == 1 and packs[0].stat().st_size >= LEAST_KEPT_BYTES:
            private_folder(shelf.parent)
            draft = shelf.with_name(f"{shelf.name}.{os.getpid()}")
            with suppress(OSError):
                os.link(packs[0], draft)
                draft.replace(shelf)

    @property
    def _since(self) -> Path:
        """A file that was touched when git began to read what is in the index."""
        return self._index.with_name(f"{self._index.name}.since")

    def snapshot(self, label: str, *, last: bool = True) -> Snapshot:
        """Commit the whole workspace as it is, as the successor of the last one, and, with ``last``, in its place.

        Raises:
            GitFailed: git could not read the workspace or write the store.
        """
        self.require_workspace()
        # Ours alone, under the goal's lock: one left here is of a process that was killed.
        self._index.with_name(self._index.name + ".lock").unlink(missing_ok=True)
        known = self.refs("last", "base", label)
        previous, before = known.get("last"), known.get(label)
        base = known.get("base") if label != "base" else None
        reference = base or previous
        compared = self.tree_of(reference) if reference else EMPTY_TREE
        tree, changed = self._recorded(compared, first=not self._distrust_times() or previous is None)
        # What was read may be the folder that came in its place meanwhile.
        self.require_workspace()
        if before is not None and self.tree_of(before) == tree:
            # Taken already, by a process that was killed before it could record that.
            commit, previous = before, self._ref(f"{before}^")
        else:
            # What the label named until now stays in reach.
            parents = dict.fromkeys(each for each in (previous, before) if each is not None)
            commit = self.commit(tree, f"goalrun {label}", *parents)
        # What is in the place of the last one is in the journal next, which outlasts a power cut; the rest is not.
        self._point(commit, *dict.fromkeys((label, "last") if last else (label,)), durable=not last)
        if label == "base":
            self.base = commit
        since = set(changed) ^ set(self.changes(compared, self.tree_of(previous))) if previous else ()
        return Snapshot(
            commit=commit,
            tree=tree,
            changed_files=len({entry.path for entry in since}),
            diff_files=len(changed) if base else 0,
            warnings=self._warnings(first=base is None),
        )

    def _point(self, commit: str, *labels: str, durable: bool = True) -> None:
        # As git would; but nobody else writes here, and it takes long to start.
        for label in labels:
            write_whole(private_folder(self.path / "refs/goalrun") / label, f"{commit}\n", durable=durable)

    def take_turn(self, label: str, *, restore: bool) -> Snapshot:
        """The snapshot of a turn; with ``restore`` protected paths are first put back as in the base.

        What the worker left stays in the store under ``LABEL-as-left``.
        """
        if not restore:
            return self.snapshot(label)
        # Of a process that was killed meanwhile, which may have put some back already.
        first = self.ref(f"{label}-as-left")
        left = self.snapshot(f"{label}-as-left", last=False)
        plan = self.plan(left)
        if plan.tampering:
            self.check_out(left.tree, plan.full_tree)
        edits = plan.tampering
        if first is not None:
            edits = (*self.plan(Snapshot(commit=first, tree=self.tree_of(first))).tampering, *edits)
        after = self.snapshot(label)
        return after.but(protected_edits=tuple(dict.fromkeys(edits)))

    def check_out(self, current: str, target: str) -> None:
        """Make the workspace, which holds ``current``, hold ``target``: only what differs is touched.

        Raises:
            GitFailed: a file that is in no snapshot stands in the way; nothing was changed.
        """
        self.require_workspace()
        # Git itself refuses over untracked files, but takes ignored ones for worthless.
        changed = self.changes(current, target)
        new = [entry.path for entry in changed if not present(entry.before)]
        gone = {entry.path for entry in changed if not present(entry.after)}
        obstacle = in_the_way(os.fsencode(self._workspace), new, gone)
        if obstacle is not None:
            raise GitFailed(f"{shown(obstacle)} is in no snapshot and stands in the way", hint="move it away first")
        self._git(["read-tree", "-m", "-u", current, target])

    def bring(self, before: str, after: str) -> bool:
        """Make in the workspace what happened between two trees.

        Returns:
            False, and nothing is done, where a file that was changed is neither as before nor as after.

        Raises:
            GitFailed: a file that is in no snapshot stands in the way.
        """
        now = self.snapshot("steps", last=False).tree
        there = {entry.path: entry.before for entry in self.changes(now, after)}
        missing = [entry for entry in self.changes(before, after) if entry.path in there]
        if any(there[entry.path] != entry.before for entry in missing):
            return False
        self.check_out(now, self._tree_with(now, [Entry(entry.path, entry.after, entry.before) for entry in missing]))
        return True

    def merge(self, before: str, after: str) -> tuple[str, ...]:
        """The same, three-way where both changed a file: the paths in conflict, and then nothing is done."""
        now = self.snapshot("steps", last=False).tree
        with tempfile.TemporaryDirectory(dir=self._folder) as scratch:
            index = {"GIT_INDEX_FILE": str(Path(scratch, "index"))}
            self._git(["read-tree", "-i", "-m", "--aggressive", before, now, after], index)
            left = _unmerged(self._git(["ls-files", "--unmerged", "-z"], index))
            # What git cannot settle by whole files; `git merge-tree` could, but not with a base before git 2.40.
            merged = {path: self._merged(stages, Path(scratch)) for path, stages in left.items()}
            conflicts = tuple(shown(path) for path, blob in merged.items() if not blob)
            if conflicts:
                return conflicts
            lines = [b"0 %s\t%s\0" % (b"0" * 40, path) for path in merged]
            lines += [f"{left[path]['2'][0]} {blob}\t".encode() + path + b"\0" for path, blob in merged.items()]
            with as_file(b"".join(lines)) as listing:
                self._git(["update-index", "-z", "--index-info"], index, listing)
            tree = self._git(["write-tree"], index).decode("ascii").strip()
        self.check_out(now, tree)
        return ()

    def _merged(self, stages: Mapping[str, tuple[str, str]], scratch: Path) -> str:
        """The blob of one file that was changed on both sides; "" where they are in conflict."""
        if set(stages) != {"1", "2", "3"} or len({mode for mode, _ in stages.values()}) > 1:
            return ""
        if not stages["1"][0].startswith("100"):
            return ""
        names = {"2": "ours", "1": "base", "3": "theirs"}
        for stage, name in names.items():
            with (scratch / name).open("wb") as file:
                git.stream(["cat-file", "blob", stages[stage][1]], self.path, self._environment(), file)
        # Its exit status counts conflicts; a negative one, as of binary files, is an error.
        done = git.run(["merge-file", "-q", *names.values()], scratch)
        if done.status != 0:
            return ""
        words = ["hash-object", "-w", "--no-filters", "--", str(scratch / "ours")]
        return self._git(words).decode("ascii").strip()

    def unsaved(self, now: str, known: Iterable[str]) -> list[str]:
        """The files of a tree that no known tree has like that; what is half of one and half of another is saved."""
        found = [
            {(entry.shown, entry.after) for entry in self.changes(tree, now) if present(entry.after)} for tree in known
        ]
        return sorted(path for path, _ in set.intersection(*found))

    def diff(self, snapshot: Snapshot, limit: int) -> str:
        """The patch from the base, at most about ``limit`` characters: the list of files is never cut away."""
        return self.patch(self.base, snapshot.commit, limit)

    def _distrust_times(self) -> bool:
        """Have files read again that changed as the last snapshot was taken, or just before; see ``Index.doubted``.

        False if there is no index that can be gone on with: it is made anew.
        """
        since = self._since
        data = self._listing()
        if self._contents is not None and self._contents.listing.data == data:
            found, whole = self._contents.listing, True
        else:
            found = Index(data)
            whole = found.is_whole()
        if not whole:
            self._index.unlink(missing_ok=True)
        else:
            began = since.stat().st_mtime if since.exists() else 0.0
            if (known := found.doubted(began, os.fsencode(self._workspace), TIME_STEP_SECONDS)) is not found:
                write_whole(self._index, known.signed(), durable=False)
        # What is read from here on is doubted by the next snapshot, also if this one is cut.
        since.touch()
        return whole

    def _track_what_the_user_tracks(self) -> None:
        """Tracked files count even where an ignore rule matches them."""
        if not (self._workspace / ".git").exists():
            return
        # Bytes and -z: names are not always text. The user's index is read, never written.
        tracked = git.run(["ls-files", "-z", "--cached"], self._workspace)
        if tracked.status != 0:
            raise GitFailed(f"cannot read the index of {self._workspace}: {tracked.stderr.strip()[:300]}")
        known = set(self._git(["ls-files", "-z"]).split(b"\0"))
        left_out = sorted(path for path in set(tracked.stdout.split(b"\0")) - known if self._is_file(path))
        with as_file(b"".join(path + b"\0" for path in left_out)) as listing:
            self._git(["update-index", "--add", "-z", "--stdin"], stdin=listing)

    def _is_file(self, path: bytes) -> bool:
        """Whether there is a file, reached through no link: git takes nothing from beyond one."""
        place = os.fsencode(self._workspace)
        *folders, name = path.split(b"/")
        for folder in folders:
            place += b"/" + folder
            if os.path.islink(place):  # noqa: PTH114 - bytes
                return False
        place += b"/" + name
        return bool(name) and (os.path.islink(place) or os.path.isfile(place))  # noqa: PTH113, PTH114 - bytes

    def _recorded(self, compared: str, *, first: bool) -> tuple[str, list[Entry]]:
        """The workspace as a tree, and how that differs from another one."""
        said = ""
        for _ in range(MAX_NESTED):
            added = self._try(["add", "--all", "--", "."])
            if added.status == 0:
                if first:
                    self._track_what_the_user_tracks()
                tree = self._tree(compared)
                changed = self.changes(compared, tree)
                nested = [entry.path for entry in changed if entry.after[0] == GITLINK]
                if not nested:
                    return tree, changed
            else:
                nested, said = self._nested(), " ".join(added.stderr.split())[:500]
            if not nested:
                break
            # A nested repository is entered like any folder once the index holds a file below it; the file that
            # is put there is missing on disk, so the same `add` takes it out again.
            self._seed(nested)
        raise GitFailed(f"the workspace cannot be snapshotted: {said}")

    def _tree(self, compared: str) -> str:
        """The tree of what the index holds."""
        known, data = self._contents, self._listing()
        write = partial(write_object, self.path, "tree")
        followed = known.following(data, write) if known is not None and data else None
        if known is not None and followed is not None:
            self._contents, steps = followed
            before, after = known.trees[b""], self._contents.trees[b""]
            compared_before = [] if compared == before else self._compared.get((compared, before))
            if compared_before is not None:
                self._remember(compared, after, composed(compared_before, steps))
            return after
        tree = self._git(["write-tree"]).decode("ascii").strip()
        data = self._listing()
        self._contents = contents(Index(data)) if data else None
        return tree

    def _listing(self) -> bytes:
        """The index as it is on disk; b"" where git needed none, because there are no files."""
        return self._index.read_bytes() if self._index.exists() else b""

    def _nested(self) -> list[bytes]:
        listing = self._git(["ls-files", "-z", "--others", "--exclude-standard"])
        return [path.rstrip(b"/") for path in listing.split(b"\0") if path.endswith(b"/")]

    def _seed(self, nested: Iterable[bytes]) -> None:
        with as_file(b"") as nothing:
            empty = self._git(["hash-object", "-w", "--stdin"], stdin=nothing).strip()
        lines = b"".join(
            b"0 %s\t%s\0" % (b"0" * 40, path) + b"100644 %s\t%s/%s\0" % (empty, path, SEED) for path in nested
        )
        with as_file(lines) as listing:
            self._git(["update-index", "-z", "--index-info"], stdin=listing)

    def _warnings(self, *, first: bool) -> tuple[str, ...]:
        if not first:
            return ()
        modules = self._workspace / ".gitmodules"
        found = ["submodules are kept as files"] if modules.is_file() else []
        named = self.protection().only_named if self._ref(BASE_REF) else ()
        why = "is protected, because a check names it; --may-change lets the worker change it"
        return (*found, *(f"{path} {why}" for path in named))


def _unmerged(listing: bytes) -> dict[bytes, dict[str, tuple[str, str]]]:
    """Mode and blob by path and stage (1 base, 2 ours, 3 theirs), out of ``git ls-files --unmerged -z``."""
    found: dict[bytes, dict[str, tuple[str, str]]] = {}
    for entry in filter(None, listing.split(b"\0")):
        meta, _, path = entry.partition(b"\t")
        mode, blob, stage = meta.decode("ascii").split(" ")
        found.setdefault(path, {})[stage] = (mode, blob)
    return found


def user_excludes_files(workspace: Path) -> list[Path]:
    """The user's own ignore files: the one thing that is read from their git configuration.

    Later configuration outranks earlier, as in git-config(1): the user's files, then the repository's.
    """
    xdg = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "git"
    sources = [["--file", str(xdg / "config")], ["--file", str(Path.home() / ".gitconfig")]]
    if (workspace / ".git").exists():
        sources.append(["--local"])
    chosen = xdg / "ignore"
    for source in sources:
        found = git.run(["config", *source, "--includes", "--type=path", "--get", "core.excludesFile"], workspace)
        if found.status == 0 and (name := os.fsdecode(found.stdout.removesuffix(b"\n"))):
            chosen = Path(name)
    return [chosen]


def find_workspace(folder: Path) -> Path:
    """The git top level that a folder is in, else the folder itself; real paths both."""
    here = folder.resolve(strict=True)
    top = git.run(["rev-parse", "--show-toplevel"], here)
    if top.status != 0:
        return here
    return Path(os.fsdecode(top.stdout.removesuffix(b"\n"))).resolve()
