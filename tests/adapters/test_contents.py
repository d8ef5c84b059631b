"""Trees and differences that are made without git are those that git makes, whatever happens to the files."""

import os
import random
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
from adapters.goals import goal_spec, store_of
from support import git, repository

from goalrun.adapters.contents import contents
from goalrun.adapters.index import Index, entry
from goalrun.adapters.points import EVENT
from goalrun.adapters.repository import entries
from goalrun.adapters.store import GitStore
from goalrun.core.spec import VerificationSpec

NAMES = (
    b"a",
    b"a.c",
    b"a-b",
    b"a0",
    b"b",
    b"\xff",
    b"new\nline",
    b"t\tab",
    b"\xc3\xa9",
    b"1 2",
    b"0",
    b"Z",
    b"l" * 240,
)
FULL = os.environ.get("GOALRUN_TESTS") == "all"
GIT: list[str] = []
"""What git was asked for; see ``goalrun.adapters.points``."""
sys.addaudithook(lambda event, facts: GIT.append(facts[0]) if event == EVENT else None)


@pytest.fixture
def top(user: Path) -> Path:
    """A workspace."""
    return repository(user / "project", {"a": "1\n", "b/a": "2\n", "b/c/d/e": "3\n", "t/x": "4\n"})


@pytest.fixture
def store(user: Path, top: Path) -> GitStore:
    """Its store."""
    return store_of(goal_spec(top, verification=VerificationSpec()), user.parent / "goal")


def move(top: Path, chance: random.Random) -> None:
    """Something that a worker could do to the files."""
    there = sorted(path for path in top.rglob("*") if ".git" not in path.parts)
    folders = [top, *(path for path in there if path.is_dir() and not path.is_symlink())]
    new = chance.choice(folders) / os.fsdecode(chance.choice(NAMES))
    old = chance.choice(there) if there else new
    kind = chance.choice(["write", "write", "write", "folder", "remove", "mode", "link", "rename", "same"])
    if kind in {"write", "folder", "link", "rename"} and os.path.lexists(new):
        subprocess.run(["rm", "-rf", new], check=True)
    if kind == "remove":
        subprocess.run(["rm", "-rf", old], check=True)
    elif kind == "write":
        new.write_text(f"{chance.random()}\n")
    elif kind == "folder":
        (new / "x" / os.fsdecode(chance.choice(NAMES))).mkdir(parents=True)
        (new / "x" / "file").write_text("below\n")
    elif kind == "mode" and old.is_file() and not old.is_symlink():
        old.chmod(chance.choice([0o755, 0o644]))
    elif kind == "link":
        new.symlink_to(os.fsdecode(chance.choice(NAMES)))
    elif kind == "rename" and os.path.lexists(old) and old not in new.parents:
        old.rename(new)
    elif kind == "same" and old.is_file():
        old.touch()


def with_index(top: Path, index: Path, *words: str, given: str | None = None) -> str:
    """What git says in a workspace, with an index of its own."""
    env = {**os.environ, "GIT_INDEX_FILE": str(index)}
    options = ["-c", "core.excludesFile=/dev/null", "-c", "advice.addEmbeddedRepo=false"]
    done = subprocess.run(
        ["git", *options, *words], cwd=top, env=env, check=True, capture_output=True, text=True, input=given
    )
    return done.stdout.strip()


@pytest.mark.parametrize("seed", range(60 if FULL else 6))
def test_trees_and_differences_are_those_that_git_makes(seed: int, store: GitStore, top: Path, tmp_path: Path) -> None:
    chance = random.Random(seed)  # noqa: S311 - to be repeated
    base = store.snapshot("base").tree
    trees = [base]
    for turn in range(1, 16):
        for _ in range(chance.choice([0, 1, 1, 2, 3, 12])):
            move(top, chance)
        GIT.clear()
        trees.append(store.snapshot(f"turn-{turn}").tree)
        if turn > 1:
            assert [each for each in GIT if each.endswith(" before") and each.startswith("git ")] == ["git add before"]
        run = partial(with_index, top, tmp_path / f"index-{turn}")
        run("add", "--all", ".")
        assert trees[-1] == run("write-tree")
        for before in (base, trees[-2]):
            words = ["diff-tree", "-r", "-t", "-z", "--raw", "--no-renames", before, trees[-1]]
            said = subprocess.run(["git", *words], cwd=store.path, check=True, capture_output=True).stdout
            assert store.compared(before, trees[-1]) == [*entries(said)]
    assert git(store.path, "fsck", "--full", "--strict", "--no-dangling") == ""


def test_a_process_that_takes_a_goal_up_asks_git_once(store: GitStore, user: Path, top: Path) -> None:
    store.snapshot("base")
    (top / "a").write_text("other\n")
    first = store.snapshot("turn-1")
    again = store_of(goal_spec(top, verification=VerificationSpec()), user.parent / "goal")
    asked = []
    for turn in (2, 3):
        (top / "b/a").write_text(f"turn {turn}\n")
        GIT.clear()
        assert again.snapshot(f"turn-{turn}").diff_files == 2
        asked.append("git write-tree before" in GIT)
    assert asked == [True, False]
    assert git(store.path, "rev-parse", "refs/goalrun/turn-1^{tree}").strip() == first.tree


def test_a_workspace_can_begin_with_nothing_and_become_nothing(user: Path) -> None:
    top = user / "empty"
    top.mkdir()
    store = store_of(goal_spec(top, verification=VerificationSpec()), user.parent / "goal")
    empty = store.snapshot("base").tree
    assert store.snapshot("turn-1").tree == empty
    for turn in (2, 3):
        (top / "folder").mkdir()
        (top / "folder/file").write_text(f"{turn}\n")
        full = store.snapshot(f"turn-{turn}-full")
        assert (full.diff_files, git(store.path, "ls-tree", "-r", "--name-only", full.tree)) == (1, "folder/file\n")
        shutil.rmtree(top / "folder")
        gone = store.snapshot(f"turn-{turn}")
        assert (gone.diff_files, gone.changed_files, gone.tree) == (0, 1, empty)
    Path(user.parent / "goal/index").unlink()
    assert store.snapshot("turn-4").tree == empty


def test_entries_that_are_no_files_are_left_to_git(top: Path, tmp_path: Path) -> None:
    """A file that is only meant to be added is in the index, and in no tree."""
    index = tmp_path / "index"
    run = partial(with_index, top, index)
    run("add", "--all")
    run("write-tree")
    known = contents(Index(index.read_bytes()))
    assert known is not None
    (top / "meant").write_text("to be\n")
    run("add", "--intent-to-add", "meant")
    assert known.following(index.read_bytes(), lambda _: "") is None
    (top / "b/a").write_text("in conflict\n")
    listing = "".join(f"100644 {run('hash-object', '-w', 'b/a')} {stage}\tb/a\n" for stage in (1, 2, 3))
    run("read-tree", "HEAD")
    run("update-index", "--index-info", given=listing)
    assert known.following(index.read_bytes(), lambda _: "") is None


def test_trees_that_git_has_not_written_down_are_not_known(top: Path, tmp_path: Path) -> None:
    index = tmp_path / "index"
    run = partial(with_index, top, index)
    run("add", "--all")
    assert contents(Index(index.read_bytes())) is None
    tree = run("write-tree")
    found = contents(Index(index.read_bytes()))
    assert found is not None
    listing = (line.split() for line in run("ls-tree", "-r", "-t", "-d", tree).splitlines())
    assert found.trees == {b"": tree, **{os.fsencode(path): name for _, _, name, path in listing}}
    (top / "b/c/d/e").write_text("other\n")
    run("add", "--all")
    assert contents(Index(index.read_bytes())) is None


@pytest.mark.parametrize("seed", range(40 if FULL else 8))
def test_an_index_that_is_read_where_it_is_different_is_the_one_that_is_read_whole(seed: int, tmp_path: Path) -> None:
    chance, status = random.Random(seed), tmp_path.stat()  # noqa: S311 - to be repeated

    def made(paths: set[bytes]) -> dict[bytes, bytes]:
        return {path: entry(path, 0o100644, chance.randbytes(20).hex(), status) for path in paths}

    pool = [b"/".join(chance.choices(NAMES, k=chance.randint(1, 3))) + b"%d" % number for number in range(1000, 1700)]
    index = Index(b"DIRC\0\0\0\2\0\0\0\0" + bytes(20)).changed(made(set(chance.sample(pool, 400))))
    for _ in range(12):
        there = set(index.places.paths)
        gone = set(chance.sample(sorted(there), min(len(there), chance.choice([0, 1, 5, 300]))))
        new = set(chance.sample(pool, chance.choice([0, 1, 5, 300])))
        changes = {**dict.fromkeys(gone, b""), **made(new)}
        after = index.changed(changes)
        whole = Index(after.data)
        assert after.places == whole.places
        assert after.folders == whole.folders
        order = {folder: number for number, folder in enumerate(after.folders)}
        assert all(order[folder.rpartition(b"/")[0]] < number for folder, number in order.items() if folder)
        found = index.following(after.data)
        assert found is not None
        followed, changed = found
        assert followed.places == whole.places
        assert set(changed) == (gone - new) | new
        index = followed
