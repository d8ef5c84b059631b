"""Stand-alone repositories of one snapshot: what git finds where a check runs."""

import shutil
import tempfile
from collections.abc import Container, Iterable
from contextlib import suppress
from pathlib import Path

from goalrun.adapters import git
from goalrun.adapters.files import private_folder, remove_tree
from goalrun.adapters.objects import commit_of, name_of, pack_files, packed, small_object
from goalrun.adapters.repository import Repository, as_file, present

PACKED = "packed"
"""A folder in a goal's own, with packs for all worktrees: of the first tree that was exported, and of what another one
has that is not in those before it. Each is in a folder named by its number, from 1, and by its tree."""
FEW_OBJECTS = 100
"""So many are packed here, anew for each tree, in less time than git takes for it."""
EXACT_ATTRIBUTES = "* -text -ident -filter !eol !working-tree-encoding !diff\n"
"""In ``info/attributes``: blobs are the files' exact bytes and patches show them, whatever ``.gitattributes`` says."""
MAIN = "refs/heads/main"


class Exports(Repository):
    """A store whose snapshots can be had as repositories of their own."""

    _packed: dict[str, bytes] = {}  # noqa: RUF012 - replaced, never changed
    """What the last export packed here, by the names of the objects."""

    def export(self, tree: str, top: Path, config: bytes | None = None, left: Container[str] = ()) -> list[str]:
        """Make a stand-alone repository of one commit, of a tree whose files are in a folder, or will be.

        Args:
            tree: what it holds.
            top: the folder.
            config: the configuration of an earlier one there.
            left: what is there of that one's files; as returned.

        Returns:
            The files that a later one may have too, below ``.git``.
        """
        repository = top / ".git"
        if config is None:
            git.checked(["init", "--quiet", "--template=", "--initial-branch=main", str(top)], top)
            config = (repository / "config").read_bytes()
        for name in ("objects/pack", "objects/info", "refs/heads", "refs/tags", "info"):
            (repository / name).mkdir(parents=True, exist_ok=True)
        commit = commit_of(tree, "snapshot")
        packs, own = self._objects_of(tree)
        files = {
            "HEAD": f"ref: {MAIN}\n".encode("ascii"),
            "config": config,
            # Without them `git status` would call files changed whose bytes are not what the tree's own rules make.
            "info/attributes": EXACT_ATTRIBUTES.encode("ascii"),
        }
        made = pack_files({**own, name_of("commit", commit): packed("commit", commit)})
        files.update({f"objects/pack/{name}": data for name, data in made.items()})
        for name, data in files.items():
            if name not in left:
                (repository / name).write_bytes(data)
        for pack in packs:
            if f"objects/pack/{pack.name}" not in left:
                shutil.copyfile(pack, repository / "objects/pack" / pack.name)
        (repository / MAIN).write_text(f"{name_of('commit', commit)}\n", encoding="ascii")
        # Written with the files, by the same git: it is up to date.
        with suppress(FileNotFoundError):
            shutil.copyfile(self._worktree(top)["GIT_INDEX_FILE"], repository / "index")
        return [*files, *(f"objects/pack/{pack.name}" for pack in packs)]

    def _objects_of(self, tree: str) -> tuple[list[Path], dict[str, bytes]]:
        """The objects of a tree: the files of packs that are there for all, and what is in no such pack."""
        home = private_folder(self._folder / PACKED)
        kept = sorted((int(each.name.partition("-")[0]), each) for each in home.iterdir() if "-" in each.name)
        if not kept:
            listing = self._git(["ls-tree", "-r", "-t", "-z", "--full-tree", tree]).split(b"\0")
            blobs = (line.split(b"\t")[0].split(b" ")[2].decode("ascii") for line in listing if line)
            kept = [(1, self._keep_pack(1, tree, {tree, *blobs}))]
        last = kept[-1][1].name.partition("-")[2]
        self._pinned = last
        new = {tree, *(each.after[1] for each in self.between(last, tree) if present(each.after))} - {last}
        own = self._few(new)
        if own is None:
            kept.append((len(kept) + 1, self._keep_pack(len(kept) + 1, tree, new)))
        return [pack for _, folder in kept for pack in folder.iterdir()], own or {}

    def _few(self, names: set[str]) -> dict[str, bytes] | None:
        """Few small objects as in a pack; None for others."""
        if len(names) > FEW_OBJECTS:
            return None
        found = {name: self._packed[name] for name in names if name in self._packed}
        for name in names - found.keys():
            loose = small_object(self.path, name)
            if loose is None:
                return None
            found[name] = packed(*loose)
        self._packed = found
        return found

    def _keep_pack(self, number: int, tree: str, names: Iterable[str]) -> Path:
        home = self._folder / PACKED
        draft = Path(tempfile.mkdtemp(dir=home))
        self._pack(names, draft)
        place = home / f"{number}-{tree}"
        try:
            draft.rename(place)
        except OSError:
            # Another thread was first.
            remove_tree(draft)
        return place

    def _pack(self, names: Iterable[str], folder: Path) -> None:
        # Looking for similar objects would take longer than all the rest.
        words = ["pack-objects", "--quiet", "--window=0", str(folder / "pack")]
        with as_file("".join(f"{name}\n" for name in names).encode("ascii")) as listing:
            git.checked(words, self._folder, self._worktree(folder), listing)

    def _worktree(self, folder: Path) -> dict[str, str]:
        index = str(folder.with_name(folder.name + ".index"))
        # What a power cut takes of a worktree is made again.
        unsynced = {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "core.fsync", "GIT_CONFIG_VALUE_0": "none"}
        return self._environment({"GIT_WORK_TREE": str(folder), "GIT_INDEX_FILE": index, **unsynced})
