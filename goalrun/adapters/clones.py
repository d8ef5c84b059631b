"""A goal's own copy of the user's repository, so that several run side by side; its result comes back as a branch.

The user's repository is only read until then, and then it gets objects and that one ref. (``git worktree add`` would
write into it from the beginning.)
"""

import tempfile
from pathlib import Path

from goalrun.adapters import git
from goalrun.adapters.files import private_folder, remove_tree
from goalrun.adapters.repository import as_file
from goalrun.adapters.store import GitStore
from goalrun.errors import GitFailed, SpecError

NOTHING = "0" * 40
_LOCAL = {
    "GIT_CONFIG_COUNT": "1",
    "GIT_CONFIG_KEY_0": "protocol.file.allow",
    "GIT_CONFIG_VALUE_0": "always",
}


def clones_of(home: Path) -> Path:
    """The folder of all clones: beside the state folder, which workers cannot see."""
    return home.with_name(f"{home.name}-worktrees")


def head_of(repository: Path) -> str:
    """The commit that is checked out; "" where there is none yet.

    Raises:
        SpecError: the folder is no repository that can be worked on in a clone.
    """
    if not (repository / ".git").exists():
        raise SpecError(
            f"--worktree needs a git repository, and {repository} is none", hint="git init, or leave it out"
        )
    if (repository / ".gitmodules").exists():
        raise SpecError(f"--worktree cannot deliver a branch of {repository}: it has submodules", hint="leave it out")
    found = git.run(["rev-parse", "--verify", "--quiet", "HEAD^{commit}"], repository)
    return found.stdout.decode("ascii").strip() if found.status == 0 else ""


def clone(repository: Path, store: GitStore, top: Path) -> None:
    """Make a stand-alone clone with the files as they are now, uncommitted and untracked ones included.

    Args:
        repository: the user's; ignored files stay behind.
        store: one of its own for the moment, whose workspace the repository is.
        top: the new folder.

    Raises:
        EnvironmentFailure: it cannot be made; nothing is left of it.
    """
    try:
        private_folder(top.parent)
        # Copied, not linked: what a worker does to objects in here stays in here.
        words = ["clone", "--quiet", "--no-hardlinks", "--no-checkout", "--template=", str(repository), str(top)]
        git.checked(words, top.parent, _LOCAL)
        # With it a worker could push.
        git.checked(["remote", "remove", "origin"], top)
        store.create()
        store.materialise(store.snapshot("base").tree, top)
        (top.with_name(f"{top.name}.index")).unlink()
        if head_of(top):
            git.checked(["read-tree", "HEAD"], top)
            git.run(["update-index", "-q", "--refresh"], top)
    except BaseException as failure:
        remove_tree(top.parent)
        if isinstance(failure, OSError):
            raise GitFailed(f"the worktree {top} cannot be made: {failure}") from failure
        raise


def deliver(store: GitStore, tree: str, repository: Path, parent: str, branch: str) -> None:
    """Make a branch of the user's repository that holds a tree; nothing is checked out, and no hook runs.

    Args:
        store: holds the tree.
        tree: the goal's result.
        repository: the user's.
        parent: the commit that was checked out when the goal began; "" for none.
        branch: must not be there yet.

    Raises:
        GitFailed: it is, or cannot be written.
    """
    with tempfile.TemporaryFile() as pack, as_file(f"{tree}\n".encode()) as wanted:
        git.stream(["pack-objects", "--quiet", "--revs", "--stdout"], store.path, {}, pack, wanted)
        pack.seek(0)
        git.checked(["unpack-objects", "-q"], repository, stdin=pack)
    message = f"goalrun {branch.rpartition('/')[2]}"
    words = ["commit-tree", tree, "-m", message, *(["-p", parent] if parent else [])]
    commit = git.checked(words, repository).decode("ascii").strip()
    made = git.run(["update-ref", f"refs/heads/{branch}", commit, NOTHING], repository)
    if made.status != 0:
        said = " ".join(made.stderr.split())[:300]
        raise GitFailed(f"the branch {branch} cannot be made in {repository}: {said}")
