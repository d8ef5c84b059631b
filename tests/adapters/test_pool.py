"""Worktrees that are used again: whatever a command did in one, the next user finds what a fresh one would hold."""

import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from adapters.goals import goal_spec, store_of
from support import git, repository, write

from goalrun.adapters.points import EVENT
from goalrun.adapters.pool import Pool, Worktree, clear, pool_of
from goalrun.adapters.repository import Entry
from goalrun.adapters.store import GitStore
from goalrun.core.spec import VerificationSpec

FILES = {
    "app.py": "aaaa\n",
    "src/one.c": "int one;\n",
    "src/two.c": "int two;\n",
    "tests/test_app.py": "assert True\n",
    "data/sub/x.txt": "x\n",
    ".gitignore": "ignored/\n*.log\n",
    "run.sh": "true\n",
}
ATTRIBUTE = (
    "python3 -c 'import os, sys; [os.setxattr(p, sys.argv[1], bytes.fromhex(sys.argv[2])) for p in sys.argv[3:]]'"
)
UNSET = "python3 -c 'import os, sys; os.removexattr(sys.argv[2], sys.argv[1])'"
RIGHTS = "0200000001000700ffffffff02000700feff000004000500ffffffff10000700ffffffff20000500ffffffff"
"""Read, write and execute for nobody, as Linux keeps it (linux/posix_acl_xattr.h)."""
COMMIT = "git -c user.name=a -c user.email=a@b commit"
LEAKS = {
    "nothing": "true",
    "an untracked file": "echo x > new.txt",
    "ignored files": "mkdir -p ignored/a; echo x > ignored/a/b; echo x > some.log",
    "files excluded by info/exclude": "echo '*.ex' >> .git/info/exclude; echo x > left.ex",
    "an empty folder": "mkdir -p data/empty/below",
    "an edit": "echo bbbb > app.py",
    "an edit of the same size with its time set back": (
        "touch -r app.py /tmp/t.$$; printf 'bbbb\\n' > app.py; touch -r /tmp/t.$$ app.py; rm /tmp/t.$$"
    ),
    "an edit in place of a protected file": "printf 'assert 1==' | dd of=tests/test_app.py conv=notrunc status=none",
    "skip-worktree": "git update-index --skip-worktree app.py; echo bbbb > app.py",
    "assume-unchanged": "git update-index --assume-unchanged app.py; echo bbbb > app.py",
    "attributes of the repository": "echo '* text eol=crlf' > .git/info/attributes; echo '*.py ident' > .gitattributes",
    "an executable bit": "chmod +x app.py; chmod -x run.sh",
    "permission bits that git does not know": "chmod 0666 app.py; chmod 4755 run.sh; chmod 0400 tests/test_app.py",
    "a mode of a folder": "chmod 0777 src; chmod 1755 data",
    "an extended attribute of a file": f"{ATTRIBUTE} user.left 31 app.py",
    "an extended attribute of a folder": f"{ATTRIBUTE} user.left 31 src .",
    "a default list of rights": f"{ATTRIBUTE} system.posix_acl_default {RIGHTS} src",
    "a link in the place of a file": "rm app.py; ln -s /etc/passwd app.py",
    "a link in the place of a folder": "mkdir /tmp/d.$$; mv src/* /tmp/d.$$; rmdir src; ln -s /tmp/d.$$ src",
    "a folder in the place of a file": "rm app.py; mkdir -p app.py/below; echo x > app.py/below/x",
    "a file in the place of a folder": "rm -r data; echo x > data",
    "a hard link between files": "ln -f src/one.c src/two.c",
    "a hard link from outside": "ln app.py ../../kept; echo cccc > ../../kept",
    "a hard link from outside that nobody wrote to": "test -e ../../kept || ln app.py ../../kept",
    "a nested repository": f"mkdir inner; cd inner; git init -q; echo x > y; git add y; {COMMIT} -qm x",
    "a nested repository without a commit": "git init -q inner2",
    "compiled code": "mkdir -p __pycache__ tests/__pycache__; echo x | tee __pycache__/a.pyc > tests/__pycache__/t.pyc",
    "a read-only folder with something in it": "mkdir shut; echo x > shut/x; chmod 0 shut; chmod 0555 src data",
    "a pipe and a socket": (
        "mkfifo src/pipe; python3 -c \"import socket; socket.socket(socket.AF_UNIX).bind('data/sock')\""
    ),
    "configuration and hooks": (
        "git config core.fsmonitor /bin/false; git config user.name x; mkdir -p .git/hooks; "
        "echo 'exit 1' > .git/hooks/pre-commit; chmod +x .git/hooks/pre-commit"
    ),
    "refs, tags and commits": (
        f"git tag t; git checkout -qb other; echo bbbb > app.py; {COMMIT} -qam left; git stash list"
    ),
    "a repository that is a link": "mv .git ../moved; ln -s ../moved .git",
    "a repository that is gone": "rm -rf .git",
    "alternates and objects": "echo /tmp > .git/objects/info/alternates; echo x | git hash-object -w --stdin",
    "a pack that was written over": "cd .git/objects/pack; chmod +w *; for p in *.pack; do echo garbage > $p; done",
    "a file that was written again as it was": "cp app.py x; cat x > app.py; rm x; touch src/one.c tests/test_app.py",
    "a file that is gone": "rm app.py src/one.c",
    "everything gone": "find . -mindepth 1 -delete",
    "a name that is no text": "touch $'src/\\xff\\n'; mkdir $'\\xfe'",
}


GIT: list[str] = []
"""What git was asked for; see ``goalrun.adapters.points``."""
LISTED: list[str] = []
"""Folders whose names were asked for."""
sys.addaudithook(lambda event, facts: GIT.append(facts[0]) if event == EVENT else None)
sys.addaudithook(lambda event, facts: LISTED.append(os.fsdecode(facts[0])) if event == "os.listdir" else None)


def seen(top: Path) -> dict[str, object]:
    """All that somebody in a worktree can find there, but for inodes and times."""
    found: dict[str, object] = {}
    for here, folders, files in os.walk(top):
        if "objects" in folders and here.endswith(".git"):
            folders.remove("objects")
        for path in (Path(here), *(Path(here, name) for name in (*files, *folders))):
            status = path.lstat()
            content: object = ""
            if path.is_symlink():
                content = path.readlink()
            elif stat.S_ISREG(status.st_mode) and path.name != "index":
                content = path.read_bytes()
            attributes = os.listxattr(path, follow_symlinks=False)
            links = status.st_nlink if stat.S_ISREG(status.st_mode) else 0
            found[str(path.relative_to(top))] = (status.st_mode, status.st_uid, links, content, attributes)
    found["git"] = git(top, "status", "--porcelain", "--ignored"), git(top, "log", "--all", "--format=%H %s")
    found["fsck"] = git(top, "fsck", "--full", "--strict")
    found["flags"] = git(top, "ls-files", "-v", "--stage")
    found["objects"] = sorted(git(top, "cat-file", "--batch-check", "--batch-all-objects").splitlines())
    return found


@pytest.fixture
def top(user: Path) -> Path:
    """A workspace."""
    return repository(user / "project", FILES)


@pytest.fixture
def store(user: Path, top: Path) -> GitStore:
    """A store with a base."""
    made = store_of(goal_spec(top, verification=VerificationSpec()), user.parent / "goal")
    made.snapshot("base")
    return made


def used(pool: Pool, store: GitStore, tree: str, command: str, *, looked_at: bool = False) -> Worktree:
    """A worktree in which a command was run."""
    with pool.worktree(store, tree) as worktree:
        subprocess.run(["bash", "-c", command], cwd=worktree.top, check=False, capture_output=True)
        if looked_at:
            worktree.changes(store)
    return worktree


@pytest.mark.parametrize("looked_at", [False, True], ids=["unseen", "seen"])
@pytest.mark.parametrize("leak", LEAKS)
def test_nothing_that_a_command_does_is_there_for_the_next(
    leak: str, store: GitStore, top: Path, tmp_path: Path, *, looked_at: bool
) -> None:
    first = store.snapshot("turn-1").tree
    write(top, {"app.py": "dddd\n", "more/new.py": "new\n"})
    second = store.snapshot("turn-2").tree
    pool = Pool(tmp_path / "pooled", "project")
    with Pool(tmp_path / "fresh", "project").worktree(store, second) as fresh:
        expected = seen(fresh.top)
    trees = (first, second, first, second)
    worktrees = [used(pool, store, tree, LEAKS[leak], looked_at=looked_at) for tree in trees]
    inode = worktrees[-1].place.stat().st_ino
    with pool.worktree(store, second) as again:
        assert seen(again.top) == expected
        # Set back, not made anew: all of this can be.
        assert again.place.stat().st_ino == inode
        assert again.changes(store) == []


def listed(pool: Pool, store: GitStore, tree: str, command: str) -> set[str]:
    """The folders of the files that are looked into when a worktree is set back in which a command was run."""
    used(pool, store, tree, command, looked_at=True)
    LISTED.clear()
    top = used(pool, store, tree, "true").top
    return {os.path.relpath(each, top) for each in LISTED if f"{each}/".startswith(f"{top}/") and ".git" not in each}


@pytest.mark.parametrize(
    ("command", "where"),
    [
        ("touch data/new; rm data/new", "data"),
        ("mkdir src/new; rmdir src/new", "src"),
        ("touch new; rm new", "."),
        ("chmod 700 tests; chmod 755 tests", "tests"),
        (f"{ATTRIBUTE} user.a 00 data/sub && {UNSET} user.a data/sub", "data/sub"),
        ("touch data/new; touch -r src/one.c data; rm data/new; touch -d 2001-01-01 data", "data"),
    ],
)
def test_only_folders_that_somebody_touched_are_looked_into(
    command: str, where: str, store: GitStore, tmp_path: Path
) -> None:
    """Also where they look the same again: the time of change is not for anybody to set."""
    tree, pool = store.snapshot("turn-1").tree, Pool(tmp_path / "pooled", "project")
    # What is young could have been touched; it is not for long.
    while listed(pool, store, tree, "true"):
        pass
    assert listed(pool, store, tree, command) == {where}


class Fooled(GitStore):
    """A store that does not see what is different in some paths."""

    unseen = b""

    def difference(self, held: str, tree: str) -> dict[bytes, tuple[Entry, bytes]] | None:
        found = super().difference(held, tree)
        return {path: each for path, each in found.items() if path != self.unseen} if found is not None else None


@pytest.mark.parametrize("unseen", [b"app.py", b"src/one.c", b"src/new.c", b"data/sub/x.txt"])
def test_the_proof_does_not_rest_on_what_was_to_be_written(
    unseen: bytes, store: GitStore, top: Path, tmp_path: Path, user: Path
) -> None:
    first = store.snapshot("turn-1").tree
    write(top, {"app.py": "dddd\n", "src/new.c": "int new;\n"})
    (top / "src/one.c").unlink()
    (top / "data/sub/x.txt").unlink()
    second = store.snapshot("turn-2").tree
    with Pool(tmp_path / "fresh", "project").worktree(store, second) as fresh:
        expected = seen(fresh.top)
    pool = Pool(tmp_path / "pooled", "project")
    while listed(pool, store, first, "true"):
        pass
    fooled = Fooled(user.parent / "goal", top, store._make_protection)
    fooled.base, fooled.unseen = store.base, unseen
    with pool.worktree(fooled, second) as worktree:
        assert seen(worktree.top) == expected


MOVES = (
    "echo other > app.py; chmod +x run.sh; rm src/one.c; rm -r data; echo now a file > data; ln -s app.py link",
    "rm data link; mkdir -p data/sub link; echo x > data/sub/x.txt; echo y > link/y; touch empty src/a src/zz .a",
    "rm -r src; ln -s data src; mkdir -p a/b/c/d; echo deep > a/b/c/d/e; touch $'a/\\xff\\n' 'a/b c'; chmod -x run.sh",
    "rm -r a src link; mkdir src; echo 'int two;' > src/two.c; ln -s nowhere a; rm app.py; ln -s run.sh app.py",
    "find . -mindepth 1 -not -path './.git*' -delete; echo alone > z",
    "rm z; mkdir -p z/z; echo x > z/z/z; head -c 900000 /dev/zero > zeros",
    "rm -r z; head -c 2000000 /dev/urandom > large",
    "for i in $(seq 150); do echo $i > many-$i; done",
)


def test_what_differs_is_written_as_git_would(store: GitStore, top: Path, tmp_path: Path) -> None:
    """Where it is little; of what is large, or a lot, git is asked."""
    trees: list[str] = []
    for move in MOVES:
        subprocess.run(["bash", "-ec", move], cwd=top, check=True)
        trees.append(store.snapshot(f"turn-{len(trees)}").tree)
    pool = Pool(tmp_path / "pooled", "project")
    place = used(pool, store, trees[0], "true", looked_at=True).place.stat().st_ino
    asked = []
    for tree in (*trees, *reversed(trees), trees[1], trees[4], trees[1]):
        with Pool(tmp_path / "fresh", "project").worktree(store, tree) as fresh:
            expected = seen(fresh.top)
        GIT.clear()
        with pool.worktree(store, tree) as worktree:
            asked.append("git read-tree before" in GIT)
            assert seen(worktree.top) == expected
            assert worktree.place.stat().st_ino == place
            assert worktree.changes(store) == []
    assert [number for number, each in enumerate(asked) if each] == [6, 7, 9], "for what is large, for many, and back"


@pytest.mark.parametrize(
    "harm",
    ["rm -rf ../../*", "echo x > ../project.index", "rm -r . ; cd /; rm -rf $OLDPWD", "mv ../../tree ../../away"],
)
def test_what_cannot_be_set_back_is_made_anew(harm: str, store: GitStore, tmp_path: Path) -> None:
    tree = store.snapshot("turn-1").tree
    with Pool(tmp_path / "fresh", "project").worktree(store, tree) as fresh:
        expected = seen(fresh.top)
    pool = Pool(tmp_path / "pooled", "project")
    used(pool, store, tree, harm)
    with pool.worktree(store, tree) as again:
        assert seen(again.top) == expected


def test_two_users_at_once_have_a_worktree_each(store: GitStore, tmp_path: Path) -> None:
    pool, tree = Pool(tmp_path / "pooled", "project"), store.snapshot("turn-1").tree
    with pool.worktree(store, tree) as one, pool.worktree(store, tree) as other:
        assert one.top != other.top


def test_one_who_comes_between_gets_a_place_of_its_own(store: GitStore, tmp_path: Path) -> None:
    pool, tree = Pool(tmp_path / "pooled", "project"), store.snapshot("turn-1").tree
    tops = []

    class Lock:
        """Lets another user come by, once, as soon as it is free."""

        def __enter__(self) -> None:
            pass

        def __exit__(self, *_: object) -> None:
            pool._lock = threading.Lock()
            with pool.worktree(store, tree) as other:
                tops.append(other.top)

    pool._lock = Lock()  # type: ignore[assignment]
    with pool.worktree(store, tree) as one:
        assert [one.top] != tops


def test_what_was_delivered_later_is_no_newer_for_that(store: GitStore, top: Path, tmp_path: Path) -> None:
    pool = Pool(tmp_path / "pooled", "project")
    tree = store.snapshot("turn-1").tree
    with pool.worktree(store, tree) as worktree:
        before = {path: (worktree.top / path).stat().st_mtime_ns for path in FILES}
    write(top, {"app.py": "dddd\n", "src/one.o": "built\n", "src/zero.c": "int zero;\n"})
    with pool.worktree(store, store.snapshot("turn-2").tree) as worktree:
        after = {path: (worktree.top / path).stat().st_mtime_ns for path in (*FILES, "src/one.o", "src/zero.c")}
    assert {path: after[path] for path in FILES} == before
    assert after["src/one.o"] == before["src/one.c"]
    assert after["src/zero.c"] == before["src/two.c"]


def test_changes_are_told_also_where_size_and_time_are_the_same(store: GitStore, tmp_path: Path) -> None:
    pool, tree = Pool(tmp_path / "pooled", "project"), store.snapshot("turn-1").tree
    hidden = LEAKS["an edit of the same size with its time set back"]
    worktree = used(pool, store, tree, f"{hidden}; mkfifo pipe; echo x > data/sub/y")
    found = {(change.path, change.before, change.after) for change in worktree.changes(store)}
    assert found == {("app.py", True, True), ("pipe", False, True), ("data/sub/y", False, True)}


def test_a_goal_has_one_pool_until_its_worktrees_are_removed(store: GitStore, tmp_path: Path) -> None:
    tree = store.snapshot("turn-1").tree
    first = pool_of(tmp_path, "project")
    with first.worktree(store, tree) as worktree:
        assert worktree.top.is_dir()
    assert pool_of(tmp_path, "project") is first
    clear(tmp_path)
    assert not worktree.top.exists()
    again = pool_of(tmp_path, "project")
    assert again is not first
    with again.worktree(store, tree) as other:
        assert other is not worktree
        assert other.top.is_dir()
    clear(tmp_path)
