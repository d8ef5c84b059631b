"""A worker's copies of repositories: a mirror of each, a clone for each goal, and the way back: a branch or a file.

Neither mirror nor credentials are in reach of an agent: the mirror lies in the state folder, and a clone has no remote.
"""

import hashlib
import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NamedTuple
from urllib.parse import unquote

from goalrun.adapters import git
from goalrun.adapters.clones import clones_of
from goalrun.adapters.files import private_folder, remove_tree
from goalrun.adapters.lock import held
from goalrun.adapters.repository import as_file
from goalrun.errors import GitFailed

PROTOCOLS = ("file", "git", "ssh", "https", "http")
SSH = "ssh -oBatchMode=yes -oConnectTimeout=20 -oServerAliveInterval=15"
COMMIT = re.compile(r"[0-9a-f]{40}")


class Mirrors(NamedTuple):
    """The mirrors of a worker.

    Attributes:
        home: the state folder.
        credentials: a git configuration file, for reaching repositories alone; None for none.
        poll: called while waiting for a repository, or for another slot of this machine; what it raises ends that.
    """

    home: Path
    credentials: Path | None
    poll: Callable[[], None]

    @contextmanager
    def of(self, repo: str) -> Iterator[Path]:
        """The mirror of a repository, for this process alone."""
        name = hashlib.sha256(repo.encode()).hexdigest()[:32]
        folder = private_folder(self.home / "mirrors")
        with held(folder / f"{name}.lock", self.poll):
            mirror = folder / f"{name}.git"
            # Whoever left them is dead; no ref has such a name (git-check-ref-format(1)).
            for lock in (*mirror.glob("*.lock"), *mirror.glob("refs/**/*.lock")):
                lock.unlink(missing_ok=True)
            yield mirror

    def base(self, mirror: Path, repo: str, ref: str, known: str) -> str:
        """Bring a mirror up to date; the commit that a goal begins with.

        Args:
            mirror: its folder.
            repo: address of the repository.
            ref: branch, tag or commit.
            known: the commit that the goal began with, if it has begun: it is kept, wherever the ref is now.

        Raises:
            GitFailed: the repository cannot be reached, or has no such ref.
        """
        if known and mirror.exists() and _has(mirror, known):
            return known
        if not (mirror / "HEAD").exists():
            remove_tree(mirror)
            git.checked(["init", "--quiet", "--bare", "--template=", str(mirror)], mirror.parent)
        words = ["fetch", "--quiet", "--prune", "--no-auto-maintenance", "--", repo, "+refs/*:refs/*"]
        git.require_success(words, self._reach(words, mirror))
        if known and _has(mirror, known):
            return known
        if known:
            raise GitFailed(f"{repo} no longer has {known}, which this goal began with")
        found = _resolved(mirror, ref)
        if not found:
            raise GitFailed(f"{repo} has no branch, tag or commit {ref!r}")
        return found

    def tip(self, mirror: Path, repo: str, ref: str) -> str:
        """Where a branch of a repository is now; "" where that is not known."""
        found = self._reach(["ls-remote", "--", repo, f"refs/heads/{ref}"], mirror)
        return found.stdout[:40].decode("ascii") if found.status == 0 else ""

    def push(self, mirror: Path, repo: str, commit: str, branch: str) -> None:
        """Make a branch of a repository; one that is there has to be the same.

        A worker that is killed while it pushes to a path leaves the repository's lock of the branch there. Only workers
        of this goal ever write the branch, and all of them the same commit: so it does not matter whose lock it was.

        Raises:
            GitFailed: it cannot be made.
        """
        words = ["push", "--quiet", "--no-verify", "--", repo, f"{commit}:refs/heads/{branch}"]
        pushed = self._reach(words, mirror)
        if pushed.status != 0 and (lock := _lock_of(repo, branch)) is not None:
            lock.unlink(missing_ok=True)
            pushed = self._reach(words, mirror)
        git.require_success(words, pushed)

    def _reach(self, words: list[str], mirror: Path) -> git.Output:
        return git.follow(words, mirror, self._reaching(), lambda _: self.poll())

    def _reaching(self) -> dict[str, str]:
        # A line that is dead ends the command, and not the night.
        settings = [("http.lowSpeedLimit", "1000"), ("http.lowSpeedTime", "60")]
        settings += [(f"protocol.{name}.allow", "always") for name in PROTOCOLS]
        pairs = {f"GIT_CONFIG_KEY_{n}": key for n, (key, _) in enumerate(settings)}
        pairs |= {f"GIT_CONFIG_VALUE_{n}": value for n, (_, value) in enumerate(settings)}
        variables = {**pairs, "GIT_CONFIG_COUNT": str(len(settings)), "GIT_SSH_COMMAND": SSH}
        if self.credentials is None:
            return variables
        # The variable would win over what the file says.
        own = git.run(["config", "--file", str(self.credentials), "--get", "core.sshCommand"], self.home)
        ssh = own.stdout.decode("utf-8", "replace").strip() or SSH
        return {**variables, "GIT_CONFIG_GLOBAL": str(self.credentials), "GIT_SSH_COMMAND": ssh}


def place_of(home: Path, goal: str, repo: str) -> Path:
    """Where a goal works: beside the state folder, as every clone."""
    name = re.sub(r"[^\w.-]", "", repo.rstrip("/").rpartition("/")[2].removesuffix(".git")).strip(".")
    return clones_of(home) / goal / (name or "repository")


def clone(mirror: Path, commit: str, ref: str, top: Path) -> None:
    """A stand-alone clone of a mirror with one commit checked out; what was there before goes.

    Raises:
        GitFailed: it cannot be made.
    """
    remove_tree(top.parent)
    private_folder(top.parent)
    local = {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "protocol.file.allow", "GIT_CONFIG_VALUE_0": "always"}
    # Copied, not linked: what a worker does to objects in here stays in here.
    git.checked(
        ["clone", "--quiet", "--no-hardlinks", "--no-checkout", "--template=", str(mirror), str(top)], top.parent, local
    )
    git.checked(["remote", "remove", "origin"], top)
    branch = "main" if COMMIT.fullmatch(ref) else ref
    git.checked(["checkout", "--quiet", "-B", branch, commit], top)


def commit_of(mirror: Path, store: Path, tree: str, base: str, goal: str, at: str) -> str:
    """The commit that delivers a tree; the same, however often and wherever it is made."""
    with tempfile.TemporaryFile() as pack, as_file(f"{tree}\n".encode()) as wanted:
        git.stream(["pack-objects", "--quiet", "--revs", "--stdout"], store, {}, pack, wanted)
        pack.seek(0)
        git.checked(["unpack-objects", "-q"], mirror, {"GIT_DIR": str(mirror)}, pack)
    dates = {"GIT_AUTHOR_DATE": at, "GIT_COMMITTER_DATE": at, "GIT_DIR": str(mirror)}
    made = git.checked(["commit-tree", tree, "-p", base, "-m", f"goalrun {goal}"], mirror, dates)
    return made.decode("ascii").strip()


def bundle(mirror: Path, commit: str, base: str, branch: str) -> IO[bytes]:
    """The same as a file that git can fetch from, where the base is known."""
    git.checked(["update-ref", f"refs/heads/{branch}", commit], mirror)
    file = tempfile.TemporaryFile()  # noqa: SIM115 - the caller closes it
    try:
        git.stream(["bundle", "create", "--quiet", "-", f"refs/heads/{branch}", f"^{base}"], mirror, {}, file)
    finally:
        git.checked(["update-ref", "-d", f"refs/heads/{branch}"], mirror)
    return file


def _lock_of(repo: str, branch: str) -> Path | None:
    """Where a repository of this file system locks a branch; None for any other."""
    place = Path(unquote(repo.removeprefix("file://")) if repo.startswith("file://") else repo)
    if not place.is_absolute() or not place.is_dir():
        return None
    found = git.run(["rev-parse", "--git-path", f"refs/heads/{branch}.lock"], place)
    return place / found.stdout.decode("utf-8").removesuffix("\n") if found.status == 0 else None


def _has(mirror: Path, commit: str) -> bool:
    return git.run(["cat-file", "-e", f"{commit}^{{commit}}"], mirror).status == 0


def _resolved(mirror: Path, ref: str) -> str:
    for name in (f"refs/heads/{ref}", f"refs/tags/{ref}", *([ref] if COMMIT.fullmatch(ref) else [])):
        found = git.run(["rev-parse", "--verify", "--quiet", f"{name}^{{commit}}"], mirror)
        if found.status == 0:
            return found.stdout.decode("ascii").strip()
    return ""
