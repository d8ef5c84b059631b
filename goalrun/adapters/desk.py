"""The files that a flow's steps work on: those of the workspace, and worktrees beside it."""

import os
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from goalrun.adapters.files import remove_tree
from goalrun.adapters.store import GitStore
from goalrun.core.model import Snapshot
from goalrun.errors import EnvironmentFailure

DIFF_CHARS = 60_000


class StoredFiles:
    """A folder whose states are kept in the goal's store; see ``flows.ports.Files``."""

    def __init__(self, store: GitStore, folder: str, lock: threading.RLock) -> None:
        self.folder = folder
        self._store = store
        self._lock = lock

    def snapshot(self, label: str = "steps") -> Snapshot:
        """Keep them as they are, under ``refs/goalrun/LABEL``."""
        with self._lock:
            return self._store.snapshot(label, last=False)

    def bring(self, before: str, after: str) -> bool:
        """See ``GitStore.bring``."""
        with self._lock:
            return self._store.bring(before, after)

    def merge(self, before: str, after: str) -> str:
        """See ``GitStore.merge``; the paths in one line."""
        with self._lock:
            return ", ".join(self._store.merge(before, after))

    def diff(self, before: str, after: str) -> str:
        """What differs between two trees, as a bounded patch."""
        with self._lock:
            return self._store.patch(before, after, DIFF_CHARS)

    def lines(self, before: str, after: str) -> int:
        """See ``Repository.lines``."""
        with self._lock:
            return self._store.lines(before, after)


class StoreDesk:
    """The workspace, and worktrees beside it; see ``flows.ports.Desk``.

    Args:
        subfolder: where in the files work begins.
    """

    def __init__(self, store: GitStore, workspace: Path, subfolder: str) -> None:
        self._store = store
        self._workspace = workspace
        self._subfolder = subfolder
        self._lock = threading.RLock()

    def workspace(self) -> StoredFiles:
        """Those that all steps share."""
        return StoredFiles(self._store, str(self._workspace), self._lock)

    @contextmanager
    def worktree(self, name: str, tree: str) -> Iterator[StoredFiles]:
        """A folder of its own with these files, as a repository of one commit; it is removed afterwards."""
        scratch = Path(tempfile.mkdtemp(prefix="goalrun-member-"))
        try:
            top = scratch / (self._workspace.name or "workspace")
            top.mkdir()
            with self._lock:
                self._store.materialise(tree, top)
                self._store.export(tree, top)
                own = self._store.beside(top, Path(os.fspath(scratch), "index"))
            yield StoredFiles(own, str(top), self._lock)
        except OSError as failure:
            raise EnvironmentFailure(f"the worktree of {name} cannot be made: {failure}") from failure
        finally:
            remove_tree(scratch)
