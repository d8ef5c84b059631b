"""Objects and packs that are written without git are what git reads, and a worktree's repository has what it needs."""

import subprocess
import sys
from pathlib import Path

import pytest
from adapters.goals import goal_spec, store_of
from support import git, repository

from goalrun.adapters.exports import FEW_OBJECTS
from goalrun.adapters.objects import commit_of, name_of, pack_files, packed, small_object, write_object
from goalrun.adapters.points import EVENT
from goalrun.adapters.pool import Pool
from goalrun.adapters.store import GitStore
from goalrun.core.spec import VerificationSpec

GIT: list[str] = []
"""What git was asked for; see ``goalrun.adapters.points``."""
sys.addaudithook(lambda event, facts: GIT.append(facts[0]) if event == EVENT else None)


@pytest.fixture
def top(user: Path) -> Path:
    """A workspace."""
    return repository(user / "project", {f"part/{number}": f"{number}\n" for number in range(10)})


@pytest.fixture
def store(user: Path, top: Path) -> GitStore:
    """A store with a base."""
    made = store_of(goal_spec(top, verification=VerificationSpec()), user.parent / "goal")
    made.snapshot("base")
    return made


@pytest.mark.parametrize("size", [0, 1, 15, 16, 17, 2047, 2048, 40_000, 900_000])
def test_a_pack_is_one_that_git_can_read(size: int, tmp_path: Path) -> None:
    objects = {"blob": b"x" * size, "tree": b"", "commit": commit_of("4b825dc642cb6eb9a060e54bf8d69288fbee4904", "one")}
    names = {name_of(kind, content): packed(kind, content) for kind, content in objects.items()}
    git(tmp_path, "init", "-q", "--bare", ".")
    for name, data in pack_files(names).items():
        (tmp_path / "objects/pack" / name).write_bytes(data)
    (index,) = (tmp_path / "objects/pack").glob("*.idx")
    subprocess.run(["git", "verify-pack", index], check=True)
    for kind, content in objects.items():
        words = ["git", "cat-file", kind, name_of(kind, content)]
        assert subprocess.run(words, cwd=tmp_path, check=True, capture_output=True).stdout == content
    assert git(tmp_path, "fsck", "--full", "--strict", "--no-dangling") == ""


def test_an_object_that_was_written_is_read_again_and_a_damaged_one_is_not(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q", "--bare", ".")
    name = write_object(tmp_path, "blob", b"content\n")
    assert git(tmp_path, "cat-file", "blob", name) == "content\n"
    assert small_object(tmp_path, name) == ("blob", b"content\n")
    place = tmp_path / "objects" / name[:2] / name[2:]
    place.chmod(0o600)
    for damage in (b"", b"no zlib", place.read_bytes()[:-8], place.read_bytes() + b"x" * (1 << 20)):
        place.write_bytes(damage)
        assert small_object(tmp_path, name) is None
    other = write_object(tmp_path, "blob", b"other\n")
    place.write_bytes((tmp_path / "objects" / other[:2] / other[2:]).read_bytes())
    assert small_object(tmp_path, name) is None


def test_a_goal_of_many_turns_packs_what_is_new_in_each(store: GitStore, top: Path, tmp_path: Path, user: Path) -> None:
    """And not, more and more, what was new in all."""
    pool, asked, kept = Pool(tmp_path / "pooled", "project"), [], []
    for turn in range(1, 9):
        many = turn in {3, 4, 6}
        for number in range(FEW_OBJECTS if many else 10):
            (top / f"new-{turn}-{number}").write_text(f"{turn} {number}\n")
        if turn == 7:
            # As in the base, whose objects are in its pack alone.
            git(top, "checkout", "-q", "HEAD", "--", ".")
        (top / "part/1").write_text(f"{turn}\n")
        tree = store.snapshot(f"turn-{turn}").tree
        GIT.clear()
        with pool.worktree(store, tree) as worktree:
            assert git(worktree.top, "fsck", "--full", "--strict", "--no-dangling") == ""
            assert git(worktree.top, "status", "--porcelain") == ""
            assert git(worktree.top, "rev-parse", "HEAD^{tree}").strip() == tree
            assert git(worktree.top, "diff", "HEAD", "--stat") == ""
            assert worktree.changes(store) == []
        asked.append("git pack-objects before" in GIT)
        kept.append(len([*(user.parent / "goal/packed").iterdir()]))
    assert asked == [True, False, True, True, False, True, False, False]
    assert kept == [1, 1, 2, 3, 3, 4, 4, 4]


def test_trees_can_be_exported_before_there_is_a_base(top: Path, tmp_path: Path, user: Path) -> None:
    """As where something is prepared for the checks."""
    store = store_of(goal_spec(top, verification=VerificationSpec()), user.parent / "goal")
    for turn in (1, 2):
        (top / "part/1").write_text(f"turn {turn}\n")
        tree, place = store.snapshot(f"prepared-{turn}").tree, tmp_path / f"there-{turn}"
        place.mkdir()
        store.materialise(tree, place)
        store.export(tree, place)
        assert git(place, "fsck", "--full", "--strict", "--no-dangling") == ""
        assert git(place, "status", "--porcelain") == ""


def test_a_process_that_takes_a_goal_up_goes_on_with_its_packs(
    store: GitStore, top: Path, tmp_path: Path, user: Path
) -> None:
    for turn in (1, 2):
        for number in range(FEW_OBJECTS * 2):
            (top / f"new-{number}").write_text(f"{turn} {number}\n")
        with Pool(tmp_path / f"pooled-{turn}", "project").worktree(store, store.snapshot(f"turn-{turn}").tree):
            pass
    again = store_of(goal_spec(top, verification=VerificationSpec()), user.parent / "goal")
    for turn in (3, 4):
        (top / "part/1").write_text(f"turn {turn}\n")
        tree = again.snapshot(f"turn-{turn}").tree
        GIT.clear()
        with Pool(tmp_path / f"pooled-{turn}", "project").worktree(again, tree) as worktree:
            assert git(worktree.top, "fsck", "--full", "--strict", "--no-dangling") == ""
            assert git(worktree.top, "status", "--porcelain") == ""
        assert "git pack-objects before" not in GIT
    # The worktree of the last one was not compared with git's help: what the packs have is known.
    assert "git diff-tree before" not in GIT
