"""Dependencies that a command makes: run once on the base, before any worker, and frozen like those of the workspace.

What the command left is kept for later goals of the same workspace, under a key of all that it should depend on.
"""

import hashlib
import json
import os
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from fnmatch import fnmatch
from pathlib import Path
from posixpath import basename, join, normpath
from typing import NamedTuple

from goalrun.adapters import crates
from goalrun.adapters.checks import CheckRunner
from goalrun.adapters.deps import INDEX, PREPARED, Frozen, Kept, editable, index, keep, place, write_index
from goalrun.adapters.files import private_folder, read_bounded, remove_tree
from goalrun.adapters.lock import held
from goalrun.adapters.sandbox import Place
from goalrun.adapters.store import GitStore
from goalrun.adapters.verifier import laid_out
from goalrun.core.evidence import clean, one_line
from goalrun.core.spec import GoalSpec
from goalrun.errors import EnvironmentFailure

FORMAT = 1
KEPT = 3
"""How many results are kept for a workspace: the ones used last."""
SECONDS = 1800.0
"""How long the command may take, where checks may not take longer."""
MOST_PATHS = 200
BASE_PACK = "base.pack"
"""Beside the results of a workspace: what its last goal stored of the base; see ``GitStore.keep``."""
TOLD_CHARS, MOST_READ = 300, 2_000
MANIFESTS = (
    "package.json", "package-lock.json", "npm-shrinkwrap.json", "yarn.lock", "pnpm-lock.yaml", "pnpm-workspace.yaml",
    "requirements*.txt", "constraints*.txt", "pyproject.toml", "setup.py", "setup.cfg", "uv.lock", "poetry.lock",
    "Pipfile.lock", "Cargo.toml", "Cargo.lock", "go.mod", "go.sum", "go.work", ".npmrc", ".python-version",
)  # fmt: skip


class Preparation(NamedTuple):
    """The preparation of one goal.

    Attributes:
        folder: the goal's.
        runner: runs the command at the level of the checks, with the network.
        level: what that level is called.
        shelf: the folder of what was prepared for the workspace before.
    """

    spec: GoalSpec
    store: GitStore
    folder: Path
    runner: CheckRunner
    level: str
    shelf: Path

    def run(self, tree: str, tell: Callable[[str], None], poll: Callable[[], None]) -> None:
        """Freeze what the command makes of a tree, or made of one like it before.

        Raises:
            EnvironmentFailure: the command failed, or what it made cannot be used; nothing is kept.
            OSError: a folder could not be written.
            Interrupted: the goal was asked to pause or stop.
        """
        command = self.spec.verification.prepare or ""
        private_folder(self.shelf)
        entry = self.shelf / self._key(command, tree)
        if self._taken(entry, None, poll):
            tell(f"prepared from cache: {one_line(command)}")
            return
        tell(f"preparing: {one_line(command)}")
        made = self._result(command, tree)
        self._taken(entry, made, poll)
        remove_tree(made)
        names = ", ".join((index(self.folder / PREPARED) or Kept((), "")).names)
        tell(f"prepared: checks get {one_line(names)}" if names else "prepared: no new path is left in the worktree")

    def _key(self, command: str, tree: str) -> str:
        """Named by the command's own words, a file counts as well as a manifest."""
        words = re.split(r"[\s'\"`;&|<>()$=]+", command)
        named = {normpath(join(self.spec.subfolder, word)) for word in words}
        counts = {
            path: blob
            for path, blob in self.store.blobs(tree).items()
            if path in named or any(fnmatch(basename(path), manifest) for manifest in MANIFESTS)
        }
        asked = self.spec.verification
        place_and_tools = [self.spec.workspace, self.spec.subfolder, self.level, asked.path, asked.pass_env, asked.deps]
        text = json.dumps([FORMAT, command, *place_and_tools, sorted(counts.items())])
        return hashlib.sha256(text.encode()).hexdigest()[:32]

    def _taken(self, entry: Path, made: Path | None, poll: Callable[[], None]) -> bool:
        """Give the goal its copy of an entry, after putting what was made there, if the entry is missing."""
        # Who is here alone can neither remove what somebody copies, nor copy what somebody removes.
        with held(self.shelf / "lock", poll):
            kept = index(entry)
            if kept is None and made is not None:
                remove_tree(entry)
                os.sync()
                made.rename(entry)
                kept = index(entry)
            if kept is None:
                return False
            os.utime(entry)
            for old in sorted(entries(self.shelf), key=lambda found: -found.stat().st_mtime_ns)[KEPT:]:
                _discard(old)
            crates.keep(entry, self.folder)
            sources = {name: place(entry, number, name) for number, name in enumerate(kept.names)}
            keep(self.folder / PREPARED, sources, kept.made_in, poll)
        return True

    def _result(self, command: str, tree: str) -> Path:
        """Run the command in a fresh worktree; what it left there, in a folder of the goal's own."""
        made = self.folder / "preparing"
        remove_tree(made)
        private_folder(made)
        with laid_out(self.spec, self.store, self.folder, self.runner, tree) as (here, _):
            self._execute(command, here)
            names = [name for name in self.store.left_in(here.top) if name not in self.spec.verification.deps]
            if len(names) > MOST_PATHS:
                raise EnvironmentFailure(
                    f"--prepare left {len(names)} new paths", hint="have it fill folders of its own"
                )
            for number, name in enumerate(names):
                copy = place(made, number, name)
                private_folder(copy.parent)
                (here.top / name).rename(copy)
            made_in = os.path.realpath(self.runner.seen(here).top)
            crates.take(here.home, made)
        self._refuse_editable(made, names, made_in)
        write_index(made, Kept(tuple(names), made_in))
        return made

    def _execute(self, command: str, here: Place) -> None:
        output = private_folder(self.folder / "turns/base") / "prepare.out"
        timeout = max(SECONDS, self.spec.limits.check_timeout)
        if self.runner.start_folder(here) is None:
            raise EnvironmentFailure(f"--prepare cannot start: the base has no folder {self.spec.subfolder}")
        finished = self.runner.execute(command, here, output, lambda *_: None, timeout)
        if finished.timed_out or finished.exit_code != 0:
            how = f"not finished after {timeout:.0f} s" if finished.timed_out else f"status {finished.exit_code}"
            said = " ".join(clean(read_bounded(output, 0, MOST_READ), MOST_READ).split()) or "it printed nothing"
            last = said if len(said) <= TOLD_CHARS else f"…{said[-TOLD_CHARS:]}"
            raise EnvironmentFailure(
                f"--prepare failed ({how}): {last}",
                hint="try it in a fresh clone; it gets an empty HOME, and of your variables only --pass-env's",
            )

    def _refuse_editable(self, made: Path, names: Sequence[str], made_in: str) -> None:
        """At a level that shows a worktree where it is, each worktree has another path."""
        copies = (place(made, number, name) for number, name in enumerate(names))
        frozen = [Frozen(Path(made_in), copy, copy) for copy in copies]
        if made_in != self.spec.workspace and (escape := editable(frozen, Path(made_in))):
            raise EnvironmentFailure(
                f"--prepare made an editable install ({escape}), which names a folder that is gone when the checks run",
                hint="install bubblewrap, or install the project without -e",
            )


def entries(shelf: Path) -> list[Path]:
    """What is kept for a workspace, whole or half removed."""
    return [found for found in shelf.iterdir() if found.is_dir()]


def _discard(entry: Path) -> None:
    # First what says that it is whole: we may be killed half way.
    (entry / INDEX).unlink(missing_ok=True)
    remove_tree(entry)


def shelf_of(home: Path, workspace: str) -> Path:
    """Where, in the state folder, the results for a workspace are kept."""
    return home / PREPARED / hashlib.sha256(os.fsencode(workspace)).hexdigest()[:16]


def forget(home: Path, unused: Callable[[float], bool], *, dry_run: bool) -> int:
    """Remove results.

    Args:
        home: the state folder.
        unused: whether to remove one, by the time of its last use in seconds of the epoch.
        dry_run: only count.

    Returns:
        How many.
    """
    count = 0
    for shelf in (home / PREPARED).glob("*/"):
        with held(shelf / "lock", lambda: None):
            for entry in entries(shelf):
                if unused(entry.stat().st_mtime):
                    count += 1
                    if not dry_run:
                        _discard(entry)
            with suppress(FileNotFoundError):
                if unused((shelf / BASE_PACK).stat().st_mtime) and not dry_run:
                    (shelf / BASE_PACK).unlink()
    return count
