"""The goal's own bare repository: snapshots of the workspace, and trees made from them.

It shares no object, path, ref, hook or configuration with the user's repository, which is only ever read. Its
index is kept between turns, so a snapshot costs what changed, not what there is. ``info/attributes`` outranks every
``.gitattributes`` in the tree (gitattributes(5)), so blobs are the files' exact bytes.
"""

import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, NamedTuple

from goalrun.adapters import git
from goalrun.adapters.files import in_the_way, private_folder, write_whole
from goalrun.core.model import Snapshot, Tamper
from goalrun.core.protection import (
    Change,
    Finding,
    Protection,
    harness_changed,
    is_mixed_manifest,
    matches,
)
from goalrun.errors import EnvironmentFailure, GitFailed

EXACT_ATTRIBUTES = "* -text -ident -filter !eol !working-tree-encoding\n"
CACHES = (
    "__pycache__/", "*.pyc", "*.pyo", ".pytest_cache/", ".mypy_cache/", ".ruff_cache/", ".hypothesis/", ".tox/",
    ".nox/", ".venv/", "node_modules/", ".DS_Store",
)  # fmt: skip
"""Left out of snapshots like ignored files, unless the user's repository tracks them: tools make them."""
MAX_EXCLUDES_BYTES = 1 << 20
GITLINK = "160000"
TIME_STEP_SECONDS = 2.0
SEED = b".goalrun-nested"
BASE_REF = "refs/goalrun/base"


class Entry(NamedTuple):
    """One path in the difference of two trees; a mode of ``000000`` says that it is absent on that side."""

    path: bytes
    before: tuple[str, str]
    after: tuple[str, str]

    @property
    def shown(self) -> str:
        """The path as text, escaped where it is none."""
        return shown(self.path)


class Plan(NamedTuple):
    """What the checks run on: the snapshot with protected paths as in the base.

    Attributes:
        tree: without the worker's additions to test roots.
        full_tree: with them; equal to ``tree`` when there are none.
    """

    tree: str
    full_tree: str
    tampering: tuple[Tamper, ...]


def shown(path: bytes) -> str:
    """A path as text: what is not UTF-8, and control characters, are escaped."""
    text = path.decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


class GitStore:
    """A goal's repository.

    Args:
        folder: the goal's folder; the store is ``store.git`` in it.
        workspace: top folder of the workspace.
        protection: makes the protected set from the files of the base.
    """

    def __init__(self, folder: Path, workspace: Path, protection: Callable[[frozenset[str]], Protection]) -> None:
        self._folder = folder
        self.path = folder / "store.git"
        self._workspace = workspace
        self._index = folder / "index"
        self._make_protection = protection
        self._protection: Protection | None = None

    def create(self) -> None:
        """Make the repository, with the user's ignore rules as they are now. Making it again changes nothing."""
        if (self.path / "goalrun-ready").exists():
            return
        git.checked(["init", "--quiet", "--bare", "--template=", str(self.path)], self._folder)
        self.path.chmod(0o700)
        for name, value in (("core.fsync", "all"), ("core.fsyncMethod", "batch"), ("core.bare", "false")):
            git.checked(["config", name, value], self.path, {"GIT_DIR": str(self.path)})
        info = private_folder(self.path / "info")
        write_whole(info / "attributes", EXACT_ATTRIBUTES)
        write_whole(info / "exclude", "\n".join(CACHES) + "\n" + self._user_excludes())
        write_whole(self.path / "goalrun-ready", "")

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

    # Snapshots

    def snapshot(self, label: str, *, last: bool = True) -> Snapshot:
        """Commit the whole workspace as it is, as the successor of the last one, and, with ``last``, in its place.

        Raises:
            GitFailed: git could not read the workspace or write the store.
        """
        if not self._workspace.is_dir():
            raise EnvironmentFailure(f"the workspace is gone: {self._workspace}")
        with suppress(FileNotFoundError):
            # Ours alone, under the goal's lock: a lock left here is of a process that was killed.
            self._index.with_name(self._index.name + ".lock").unlink()
        first = not self._index.exists()
        if not first:
            self._distrust_times()
        self._add_all()
        if first:
            self._track_what_the_user_tracks()
        tree = self._git(["write-tree"]).decode("ascii").strip()
        previous = self._ref("refs/goalrun/last")
        base = self._ref(BASE_REF)
        commit = self.commit(tree, f"goalrun {label}", previous)
        self._git(["update-ref", f"refs/goalrun/{label}", commit])
        if last:
            self._git(["update-ref", "refs/goalrun/last", commit])
        return Snapshot(
            commit=commit,
            tree=tree,
            changed_files=len(self.changes(previous, tree)) if previous else 0,
            diff_files=len(self.changes(base, tree)) if base else 0,
            warnings=self._warnings(first=base is None),
        )

    def commit(self, tree: str, message: str, parent: str | None) -> str:
        """A commit of a tree; its date does not matter, and is the same for all."""
        arguments = ["commit-tree", tree, "-m", message, *(["-p", parent] if parent else [])]
        dates = {"GIT_AUTHOR_DATE": "2000-01-01T00:00:00Z", "GIT_COMMITTER_DATE": "2000-01-01T00:00:00Z"}
        return self._git(arguments, dates).decode("ascii").strip()

    def _distrust_times(self) -> None:
        """Have files read again that changed within about a second of the last snapshot.

        Git compares times in seconds: in that second a file could change once more, get its size and time of change
        back, and look the same.
        """
        written = self._index.stat().st_mtime
        top = os.fsencode(self._workspace)
        doubtful = []
        for entry in self._git(["ls-files", "--stage", "-z"]).split(b"\0"):
            with suppress(OSError):
                path = os.path.join(top, entry.partition(b"\t")[2])  # noqa: PTH118 - bytes
                if entry and abs(os.lstat(path).st_ctime - written) < TIME_STEP_SECONDS:
                    doubtful.append(entry + b"\0")
        if doubtful:
            with as_file(b"".join(doubtful)) as listing:
                self._git(["update-index", "-z", "--index-info"], stdin=listing)

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

    def _add_all(self) -> None:
        added = self._try(["add", "--all", "--", "."])
        nested = self._nested() if added.status != 0 else self._gitlinks()
        if not nested:
            if added.status != 0:
                raise GitFailed(f"the workspace cannot be snapshotted: {' '.join(added.stderr.split())[:500]}")
            return
        # A nested repository is entered like any folder once the index holds a file below it; the file that
        # is put there is missing on disk, so the same `add` takes it out again.
        for _ in range(100):
            self._seed(nested)
            added = self._try(["add", "--all", "--", "."])
            nested = self._nested() if added.status != 0 else self._gitlinks()
            if added.status == 0 and not nested:
                return
        raise GitFailed(f"the workspace cannot be snapshotted: {' '.join(added.stderr.split())[:500]}")

    def _nested(self) -> list[bytes]:
        listing = self._git(["ls-files", "-z", "--others", "--exclude-standard"])
        return [path.rstrip(b"/") for path in listing.split(b"\0") if path.endswith(b"/")]

    def _gitlinks(self) -> list[bytes]:
        previous = self._ref("refs/goalrun/last")
        if previous is None:
            listing = self._git(["ls-files", "-z", "--stage"]).split(b"\0")
            return [entry.partition(b"\t")[2] for entry in listing if entry.startswith(GITLINK.encode())]
        raw = self._git(["diff-index", "--cached", "--raw", "-z", "--no-renames", previous])
        return [entry.path for entry in entries(raw) if entry.after[0] == GITLINK]

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

    # Trees

    def changes(self, before: str, after: str) -> list[Entry]:
        """The paths that differ between two trees or commits."""
        return list(entries(self._git(["diff-tree", "-r", "-z", "--raw", "--no-renames", before, after])))

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
        for entry in self.changes(BASE_REF, tree):
            change = Change(path=entry.shown, before=_exists(entry.before), after=_exists(entry.after))
            finding = protection.finding(change)
            if finding is None and is_mixed_manifest(entry.shown) and self._harness_edit(entry, protection):
                finding = Finding(path=entry.shown, kind="modified" if change.before else "added")
            if finding is not None:
                yield entry, finding

    def _harness_edit(self, entry: Entry, protection: Protection) -> bool:
        """Whether a manifest that may change was changed in more than its product tables (design 11.4)."""
        if not matches(entry.shown, protection.spec.may_change) or not _exists(entry.after):
            return False
        before = self._git(["cat-file", "blob", entry.before[1]]) if _exists(entry.before) else b""
        after = self._git(["cat-file", "blob", entry.after[1]])
        return _exists(entry.before) and harness_changed(entry.shown, before, after)

    def protection(self) -> Protection:
        """The protected set, made from the base once."""
        if self._protection is None:
            listing = self._git(["ls-tree", "-r", "-z", "--name-only", "--full-tree", BASE_REF])
            self._protection = self._make_protection(frozenset(shown(path) for path in listing.split(b"\0") if path))
        return self._protection

    def _tree_with(self, tree: str, undo: Iterable[Entry]) -> str:
        """A tree with some paths as they were before."""
        gone = [entry for entry in undo if not _exists(entry.before)]
        back = [entry for entry in undo if _exists(entry.before)]
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

    def take_turn(self, label: str, *, restore: bool) -> Snapshot:
        """The snapshot of a turn; with ``restore`` protected paths are first put back as in the base.

        What the worker left stays in the store under ``LABEL-as-left``.
        """
        if not restore:
            return self.snapshot(label)
        left = self.snapshot(f"{label}-as-left", last=False)
        plan = self.plan(left)
        if plan.tampering:
            self.check_out(left.tree, plan.full_tree)
        after = self.snapshot(label)
        return Snapshot(**{**dict(after), "protected_edits": plan.tampering})

    def check_out(self, current: str, target: str) -> None:
        """Make the workspace, which holds ``current``, hold ``target``: only what differs is touched.

        Raises:
            GitFailed: a file that is in no snapshot stands in the way; nothing was changed.
        """
        # Git itself refuses over untracked files, but takes ignored ones for worthless.
        changed = self.changes(current, target)
        new = [entry.path for entry in changed if not _exists(entry.before)]
        gone = {entry.path for entry in changed if not _exists(entry.after)}
        obstacle = in_the_way(os.fsencode(self._workspace), new, gone)
        if obstacle is not None:
            raise GitFailed(f"{shown(obstacle)} is in no snapshot and stands in the way", hint="move it away first")
        self._git(["read-tree", "-m", "-u", current, target])

    def materialise(self, tree: str, folder: Path) -> None:
        """Write a tree's files, exact bytes and modes, into an empty folder."""
        env = self._worktree(folder)
        git.checked(["read-tree", tree], folder, env)
        git.checked(["checkout-index", "--all", "--force", "--index"], folder, env)

    def changed_while_checked(self, folder: Path) -> list[Tamper]:
        """Protected paths that the checks, or what they ran, changed in a materialised worktree.

        Its index lies outside of it, so nothing in there can make git look away.
        """
        env = self._worktree(folder)
        git.run(["update-index", "-q", "--refresh"], folder, env)
        listing = git.checked(["diff-files", "--raw", "-z", "--no-renames"], folder, env)
        changed = [Change(path=entry.shown, before=True, after=_exists(entry.after)) for entry in entries(listing)]
        new = git.checked(["ls-files", "-z", "--others", "--", "."], folder, env).split(b"\0")
        changed += [Change(path=shown(path), before=False, after=True) for path in new if path]
        protection = self.protection()
        return [Tamper(path=change.path, kind="escaped") for change in changed if protection.escaped(change)]

    def _worktree(self, folder: Path) -> dict[str, str]:
        index = str(folder.with_name(folder.name + ".index"))
        return self._environment({"GIT_WORK_TREE": str(folder), "GIT_INDEX_FILE": index})

    def diff(self, snapshot: Snapshot, limit: int) -> str:
        """The patch from the base, at most about ``limit`` characters: the list of files is never cut away."""
        return self.patch(BASE_REF, snapshot.commit, limit)

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

    def ref(self, label: str) -> str | None:
        """The commit under a label; None if there is none."""
        return self._ref(f"refs/goalrun/{label}")

    def tree_of(self, commit: str) -> str:
        """The tree of a commit."""
        return self._git(["rev-parse", "--verify", f"{commit}^{{tree}}"]).decode("ascii").strip()

    def adopt(self, objects: Path, commit: str) -> None:
        """Take one commit's tree out of another repository and make it the base.

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
        base = self.commit(self._without_gitlinks(tree), "goalrun base", None)
        self._git(["update-ref", BASE_REF, base])

    def _without_gitlinks(self, tree: str) -> str:
        """Submodules are files in a snapshot; their commit ids have no place in its base."""
        listing = self._git(["ls-tree", "-r", "-z", "--full-tree", tree]).split(b"\0")
        links = [line.partition(b"\t")[2] for line in listing if line.startswith(GITLINK.encode())]
        absent = ("000000", "0" * 40)
        return self._tree_with(tree, [Entry(path, absent, (GITLINK, "0" * 40)) for path in links])

    def export(self, tree: str, repository: Path) -> None:
        """Make a stand-alone repository of one commit, of a tree whose files are already in its folder."""
        commit = self.commit(tree, "snapshot", None)
        env = {"GIT_DIR": str(repository / ".git"), "GIT_WORK_TREE": str(repository)}
        git.checked(["init", "--quiet", "--template=", "--initial-branch=main", str(repository)], repository)
        # Without them `git status` would call files changed whose bytes are not what the tree's own rules make.
        write_whole(private_folder(repository / ".git" / "info") / "attributes", EXACT_ATTRIBUTES)
        with tempfile.TemporaryFile() as pack, as_file(f"{commit}\n".encode()) as wanted:
            git.stream(["pack-objects", "--quiet", "--revs", "--stdout"], self.path, {}, pack, wanted)
            pack.seek(0)
            git.checked(["index-pack", "--stdin"], repository, env, pack)
        git.checked(["update-ref", "refs/heads/main", commit], repository, env)
        git.checked(["read-tree", commit], repository, env)
        git.run(["update-index", "-q", "--refresh"], repository, env)

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


def _exists(side: tuple[str, str]) -> bool:
    return side[0] != "000000"


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
