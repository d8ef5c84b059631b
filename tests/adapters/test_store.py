"""The store: whole workspaces as commits, read from the user's repository and never written to it."""

import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from adapters.goals import EXECUTABLE, LINK, REGULAR, fingerprint, goal_spec, on_disk, store_of, untouched
from adapters.workspaces import (
    FILES,
    SCENARIOS,
    bytes_that_attributes_would_change,
    detached,
    linked_worktree,
    links,
    modes,
    nested_in_nested,
    odd_names,
    shallow,
    submodule,
    tracked_though_ignored,
)
from support import git, repository, write

from goalrun.adapters.git import forget_git_variables
from goalrun.adapters.patches import patches
from goalrun.adapters.repository import shown
from goalrun.adapters.store import LEAST_KEPT_BYTES, GitStore, find_workspace
from goalrun.adapters.trees import Plan
from goalrun.core.model import Snapshot, Tamper
from goalrun.core.spec import VerificationSpec
from goalrun.errors import EnvironmentFailure, GitFailed, Interrupted

Content = dict[bytes, tuple[str, bytes]]


def content(store: GitStore, tree: str) -> Content:
    """The files of a tree, asked of plain git."""
    found: Content = {}
    for line in git(store.path, "ls-tree", "-r", "-z", "--full-tree", tree).split("\0"):
        if line:
            meta, _, path = line.partition("\t")
            mode, kind, blob = meta.split()
            assert kind == "blob", line
            text = git(store.path, "cat-file", "blob", blob)
            found[os.fsencode(path)] = (mode, text.encode("utf-8", "surrogateescape"))
    return found


def names(store: GitStore, tree: str) -> set[str]:
    """The paths of a tree."""
    return {os.fsdecode(path) for path in content(store, tree)}


@pytest.fixture
def top(user: Path) -> Path:
    """A repository of the user's with some files."""
    return repository(user / "project", FILES)


def store_for(workspace: Path, verification: VerificationSpec | None = None) -> GitStore:
    """A store beside the user's folder."""
    spec = goal_spec(workspace, verification=verification or VerificationSpec())
    return store_of(spec, workspace.parents[1] / "goal" / workspace.name)


def based(workspace: Path) -> tuple[GitStore, Snapshot]:
    """A store whose base is the workspace as it is."""
    store = store_for(workspace)
    return store, store.snapshot("base")


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
def test_snapshots_hold_what_is_on_disk_and_leave_the_users_repository_as_it_is(
    scenario: Callable[[Path], Path], user: Path
) -> None:
    top = scenario(user)
    store = store_for(top)
    with untouched(user):
        base = store.snapshot("base")
        assert content(store, base.tree) == on_disk(top)
    inner = "inner/" if (top / "inner").exists() else ""
    write(top, {f"{inner}i.txt": "edited later\n", f"{inner}added/later.txt": "later\n"})
    with untouched(user):
        turn = store.snapshot("turn-1")
        assert content(store, turn.tree) == on_disk(top)
        assert store.snapshot("turn-2").tree == turn.tree
    assert turn.changed_files == turn.diff_files == 2


def test_labels_name_snapshots_and_each_follows_the_one_before(top: Path) -> None:
    store, base = based(top)
    turn = store.snapshot("turn-1")
    aside = store.snapshot("aside", last=False)
    after = store.snapshot("turn-2")
    assert (store.ref("base"), store.ref("turn-1"), store.ref("aside")) == (base.commit, turn.commit, aside.commit)
    assert store.ref("turn-9") is None
    assert git(store.path, "rev-list", after.commit).split() == [after.commit, turn.commit, base.commit]


def test_a_snapshot_counts_changes_from_the_one_before_and_from_the_base(top: Path) -> None:
    store, _ = based(top)
    write(top, {"a.txt": "1\n", "c.txt": "1\n"})
    first = store.snapshot("turn-1")
    write(top, {"a.txt": "2\n"})
    second = store.snapshot("turn-2")
    assert (first.changed_files, first.diff_files) == (2, 2)
    assert (second.changed_files, second.diff_files) == (1, 2)


def test_ignored_files_are_left_out_wherever_the_rule_stands(top: Path, home: Path) -> None:
    rules = {"by-tree": ".gitignore", "by-folder": "sub/.gitignore", "by-info": ".git/info/exclude"}
    for name, place in rules.items():
        write(top, {place: f"{name}.txt\n", f"sub/{name}.txt": "ignored\n"})
    write(home, {".gitconfig": "[include]\n\tpath = more\n", "more": "[core]\n\texcludesFile = ~/mine\n"})
    write(home, {"mine": "by-user.txt\n", ".config/git/ignore": "not-in-force.txt\n"})
    write(top, {"sub/by-user.txt": "ignored\n", "sub/not-in-force.txt": "kept\n", "__pycache__/m.pyc": "x"})
    write(top, {"node_modules/dep/index.js": "x", ".venv/bin/python": "x"})
    store = store_for(top)
    with untouched(top.parent):
        found = names(store, store.snapshot("base").tree)
    assert found == {*FILES, ".gitignore", "sub/.gitignore", "sub/not-in-force.txt"}


def test_the_xdg_ignore_file_counts_where_no_other_is_configured(
    top: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(home, {".config/git/ignore": "by-home.txt\n", "xdg/git/ignore": "by-xdg.txt\n"})
    write(top, {"by-home.txt": "x", "by-xdg.txt": "x"})
    assert "by-home.txt" not in names(*_tree(based(top)))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home / "xdg"))
    shutil.rmtree(top.parents[1] / "goal")
    found = names(*_tree(based(top)))
    assert "by-xdg.txt" not in found
    assert "by-home.txt" in found


def test_an_ignore_file_in_the_repositorys_own_configuration_outranks_the_users(top: Path, home: Path) -> None:
    write(home, {".gitconfig": "[core]\n\texcludesFile = ~/mine\n", "mine": "by-user.txt\n", "ours": "by-repo.txt\n"})
    git(top, "config", "core.excludesFile", str(home / "ours"))
    write(top, {"by-user.txt": "x", "by-repo.txt": "x"})
    assert names(*_tree(based(top))) == {*FILES, "by-user.txt"}


def _tree(made: tuple[GitStore, Snapshot]) -> tuple[GitStore, str]:
    return made[0], made[1].tree


def test_ignore_rules_outside_the_tree_are_those_of_the_first_snapshot(top: Path, home: Path) -> None:
    store, _ = based(top)
    write(home, {".config/git/ignore": "*.txt\n"})
    write(top, {".git/info/exclude": "*\n", "new.txt": "new\n"})
    store.create()
    assert "new.txt" in names(store, store.snapshot("turn-1").tree)


def test_bits_in_the_users_index_hide_no_edit(top: Path) -> None:
    git(top, "update-index", "--assume-unchanged", "a.txt")
    git(top, "update-index", "--skip-worktree", "src/b.py")
    write(top, {"a.txt": "hidden\n", "src/b.py": "hidden\n"})
    store = store_for(top)
    with untouched(top.parent):
        base = store.snapshot("base")
    assert content(store, base.tree) == on_disk(top)
    assert content(store, base.tree)[b"a.txt"] == (REGULAR, b"hidden\n")


def test_a_sparse_checkout_is_taken_as_it_is_on_disk(top: Path) -> None:
    git(top, "sparse-checkout", "set", "src")
    write(top, {"tests/test_c.py": "outside of the cone\n"})
    store = store_for(top)
    with untouched(top.parent):
        base = store.snapshot("base")
    assert names(store, base.tree) == {"a.txt", "src/b.py", "tests/test_c.py"}


def test_nothing_that_a_repository_configures_is_run(top: Path, tmp_path: Path, home: Path) -> None:
    marker = tmp_path / "ran"
    trap = tmp_path / "trap"
    trap.write_text(f"#!/bin/sh\necho $0 $* >> {marker}\ncat\n", "utf-8")
    trap.chmod(0o755)
    hooks = ("post-index-change", "reference-transaction", "pre-commit", "fsmonitor-watchman", "post-checkout")
    for hook in hooks:
        shutil.copy(trap, top / ".git" / "hooks" / hook)
    configuration = {
        "core.fsmonitor": trap, "core.hooksPath": top / ".git/hooks", "filter.evil.clean": trap,
        "filter.evil.smudge": trap, "filter.evil.required": "true", "diff.external": trap, "diff.evil.textconv": trap,
        "core.pager": trap, "core.sshCommand": trap, "core.alternateRefsCommand": trap, "gpg.program": trap,
        "commit.gpgSign": "true", "diff.evil.command": trap, "uploadpack.packObjectsHook": trap,
    }  # fmt: skip
    for name, value in configuration.items():
        git(top, "config", name, str(value))
    shutil.copy(top / ".git/config", home / ".gitconfig")
    write(top, {".gitattributes": "* filter=evil diff=evil\n"})
    store = store_for(top)
    with untouched(top.parent):
        base = store.snapshot("base")
    write(top, {"a.txt": "edited\n", "tests/test_b.py": "edited\n"})
    turn = store.take_turn("turn-1", restore=True)
    assert "edited" in store.diff(turn, 10_000)
    place = tmp_path / "V"
    place.mkdir()
    store.materialise(turn.tree, place)
    store.export(turn.tree, place)
    store.adopt(top, git(top, "rev-parse", "HEAD").strip())
    assert content(store, base.tree)[b"a.txt"] == (REGULAR, b"a\n")
    assert not marker.exists(), marker.read_text("utf-8")


def test_replace_refs_never_stand_in_for_what_was_committed(top: Path) -> None:
    store = store_for(top)
    true = git(top, "rev-parse", "HEAD").strip()
    git(write(top, {"a.txt": "forged\n"}), "commit", "--quiet", "--all", "--message=forged")
    git(top, "replace", true, "HEAD")
    git(top, "replace", f"{true}:src/b.py", "HEAD:a.txt")
    assert git(top, "show", f"{true}:a.txt") == "forged\n"
    store.adopt(top, true)
    found = content(store, "refs/goalrun/base")
    assert (found[b"a.txt"], found[b"src/b.py"]) == ((REGULAR, b"a\n"), (REGULAR, b"b = 1\n"))


def test_git_variables_of_a_calling_hook_do_not_lead_to_the_users_repository(
    top: Path, user: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = repository(user / "other", {"other.txt": "other\n"})
    for name, value in (("GIT_DIR", ".git"), ("GIT_INDEX_FILE", ".git/index"), ("GIT_WORK_TREE", ".")):
        monkeypatch.setenv(name, str(other / value))
    forget_git_variables()
    store = store_for(top)
    with untouched(user):
        assert names(store, store.snapshot("base").tree) == set(FILES)
        assert find_workspace(top / "src") == top


def test_an_edit_of_the_same_size_and_time_is_seen(top: Path) -> None:
    # Some of them fall into one second: git may compare times in seconds.
    path = top / "a.txt"
    os.utime(path, (10**9, 10**9))
    store, _ = based(top)
    for letter in "bcdefghijk":
        path.write_text(f"{letter}\n", "utf-8")
        os.utime(path, (10**9, 10**9))
        assert content(store, store.snapshot("turn").tree)[b"a.txt"] == (REGULAR, f"{letter}\n".encode())


def test_a_lock_left_by_a_killed_process_is_no_obstacle(top: Path) -> None:
    store, _ = based(top)
    (top.parents[1] / "goal" / "project" / "index.lock").write_text("", "ascii")
    (top / ".git" / "index.lock").write_text("", "ascii")
    write(top, {"new.txt": "new\n"})
    with untouched(top.parent):
        assert "new.txt" in names(store, store.snapshot("turn-1").tree)


def test_an_index_that_was_lost_is_made_again(top: Path) -> None:
    write(top, {".gitignore": "*.log\n", "kept.log": "tracked\n"})
    git(top, "add", "--all", "--force")
    store, base = based(top)
    (top.parents[1] / "goal" / "project" / "index").unlink()
    again = store.snapshot("turn-1")
    assert again.tree == base.tree


def test_a_workspace_that_is_gone_is_an_error_and_no_empty_snapshot(top: Path) -> None:
    store, _ = based(top)
    shutil.rmtree(top)
    with pytest.raises(EnvironmentFailure, match="workspace is gone"):
        store.snapshot("turn-1")


def test_removing_everything_is_a_snapshot_of_nothing(top: Path) -> None:
    store, _ = based(top)
    for path in top.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert content(store, store.snapshot("turn-1").tree) == {}


def test_submodules_are_named_in_a_warning(user: Path) -> None:
    _, base = based(submodule(user))
    assert base.warnings == ("submodules are kept as files",)


# What the checks see


PROTECTED = {
    "tests/test_b.py": "assert b\n",
    "tests/data/x.json": "{}\n",
    "conftest.py": "# base\n",
    "src/b.py": "b = 1\n",
    "run.sh": "exit 0\n",
}


def planned(top: Path, edits: Mapping[str, str]) -> tuple[GitStore, Plan]:
    """The plan for a workspace with some edits."""
    store, _ = based(top)
    write(top, edits)
    return store, store.plan(store.snapshot("turn-1"))


@pytest.fixture
def guarded(user: Path) -> Path:
    return repository(user / "project", PROTECTED)


def test_edits_of_protected_paths_are_undone_for_the_checks_and_named(guarded: Path) -> None:
    store, _ = based(guarded)
    base = on_disk(guarded)
    (guarded / "tests/data/x.json").unlink()
    edits = {"tests/test_b.py": "pass\n", "pytest.ini": "[pytest]\n", "pytest.py": "# shadow\n", "src/b.py": "b = 2\n"}
    write(guarded, edits)
    snapshot = store.snapshot("turn-1")
    plan = store.plan(snapshot)
    assert set(plan.tampering) == {
        Tamper(path="tests/test_b.py", kind="modified"),
        Tamper(path="tests/data/x.json", kind="deleted"),
        Tamper(path="pytest.ini", kind="added"),
        Tamper(path="pytest.py", kind="shadow"),
    }
    expected = {**base, b"src/b.py": (REGULAR, b"b = 2\n")}
    assert content(store, plan.tree) == content(store, plan.full_tree) == expected
    assert content(store, snapshot.tree) == on_disk(guarded)


def test_added_tests_are_in_the_full_tree_alone_and_are_no_tampering(guarded: Path) -> None:
    base = on_disk(guarded)
    store, plan = planned(guarded, {"tests/test_new.py": "assert True\n", "src/c.py": "c = 1\n"})
    assert plan.tampering == ()
    assert content(store, plan.tree) == {**base, b"src/c.py": (REGULAR, b"c = 1\n")}
    assert content(store, plan.full_tree) == on_disk(guarded)


def test_without_findings_both_trees_are_the_snapshot(guarded: Path) -> None:
    store, _ = based(guarded)
    write(guarded, {"src/b.py": "b = 3\n"})
    snapshot = store.snapshot("turn-1")
    assert store.plan(snapshot) == Plan(snapshot.tree, snapshot.tree, ())


@pytest.mark.parametrize("replacement", ["link", "file"])
def test_a_test_folder_that_was_replaced_comes_back(replacement: str, guarded: Path) -> None:
    store, _ = based(guarded)
    base = on_disk(guarded)
    shutil.move(guarded / "tests", guarded / "elsewhere")
    if replacement == "link":
        (guarded / "tests").symlink_to("elsewhere")
    else:
        (guarded / "tests").write_text("no folder any more\n", "utf-8")
    plan = store.plan(store.snapshot("turn-1"))
    found = content(store, plan.tree)
    assert {path: found[path] for path in base} == base
    assert {tamper.path for tamper in plan.tampering} >= {"tests/test_b.py", "tests/data/x.json"}
    assert b"tests" not in found


def test_a_changed_mode_of_a_protected_file_is_undone(guarded: Path) -> None:
    store, base = based(guarded)
    (guarded / "tests/test_b.py").chmod(0o755)
    snapshot = store.snapshot("turn-1")
    assert content(store, snapshot.tree)[b"tests/test_b.py"][0] == EXECUTABLE
    plan = store.plan(snapshot)
    assert plan.tree == plan.full_tree == base.tree
    assert plan.tampering == (Tamper(path="tests/test_b.py", kind="modified"),)


def test_a_protected_file_that_became_a_link_is_undone(guarded: Path) -> None:
    store, base = based(guarded)
    shutil.copy(guarded / "tests/test_b.py", guarded / "src/same.py")
    (guarded / "tests/test_b.py").unlink()
    (guarded / "tests/test_b.py").symlink_to("../src/same.py")
    snapshot = store.snapshot("turn-1")
    assert content(store, snapshot.tree)[b"tests/test_b.py"][0] == LINK
    found = content(store, store.plan(snapshot).tree)
    assert found[b"tests/test_b.py"] == content(store, base.tree)[b"tests/test_b.py"]


def test_a_path_that_is_no_text_is_protected_and_shown_escaped(guarded: Path) -> None:
    odd = os.fsencode(guarded / "tests") + b"/\xff\n.py"
    with open(odd, "wb") as file:  # noqa: PTH123 - bytes
        file.write(b"base")
    store, base = based(guarded)
    with open(odd, "wb") as file:  # noqa: PTH123 - bytes
        file.write(b"weaker")
    plan = store.plan(store.snapshot("turn-1"))
    assert plan.tree == base.tree
    assert plan.tampering == (Tamper(path="tests/\\xff\\n.py", kind="modified"),)


def test_a_plan_leaves_workspace_and_index_alone(guarded: Path) -> None:
    store, _ = based(guarded)
    write(guarded, {"tests/test_b.py": "pass\n"})
    snapshot = store.snapshot("turn-1")
    with untouched(guarded.parent):
        store.plan(snapshot)
    assert store.snapshot("turn-2").tree == snapshot.tree


# Trees made into folders


@pytest.mark.parametrize(
    "scenario",
    [odd_names, links, modes, nested_in_nested, submodule, bytes_that_attributes_would_change, tracked_though_ignored],
    ids=lambda scenario: scenario.__name__,
)
def test_a_materialised_tree_is_the_same_bytes_in_a_repository_of_its_own(
    scenario: Callable[[Path], Path], user: Path, tmp_path: Path
) -> None:
    top = scenario(user)
    store, base = based(top)
    place = tmp_path / "V"
    place.mkdir()
    with untouched(user):
        store.materialise(base.tree, place)
        store.export(base.tree, place)
    assert on_disk(place) == on_disk(top)
    shutil.rmtree(store.path)
    assert git(place, "status", "--porcelain", "--ignored", "--untracked-files=all") == ""
    assert git(place, "rev-list", "--all", "--count").strip() == "1"
    assert git(place, "rev-parse", "HEAD^{tree}").strip() == base.tree
    assert git(place, "remote") == ""
    assert git(place, "fsck", "--strict").strip() == ""
    assert not (place / ".git/objects/info/alternates").exists()
    assert not [path for path in fingerprint(place / ".git") if "hooks/" in path]
    own = (place / ".git" / "config").read_text("utf-8")
    assert str(user) not in own
    assert str(store.path) not in own


def test_a_worktree_that_was_made_is_not_linked_to_the_store_by_inodes(top: Path, tmp_path: Path) -> None:
    store, base = based(top)
    place = tmp_path / "V"
    place.mkdir()
    store.materialise(base.tree, place)
    store.export(base.tree, place)
    assert all(path.lstat().st_nlink == 1 for path in place.rglob("*") if path.is_file())


def test_check_out_touches_only_what_differs(top: Path) -> None:
    store, base = based(top)
    write(top, {"a.txt": "turn\n", "new/file.txt": "new\n"})
    (top / "src/b.py").unlink()
    turn = store.snapshot("turn-1")
    kept = (top / "tests/test_b.py").stat()
    before = fingerprint(top / ".git")
    store.check_out(turn.tree, base.tree)
    assert on_disk(top) == content(store, base.tree)
    assert not (top / "new").exists()
    after = (top / "tests/test_b.py").stat()
    assert (after.st_ino, after.st_ctime_ns) == (kept.st_ino, kept.st_ctime_ns)
    store.check_out(base.tree, turn.tree)
    assert on_disk(top) == content(store, turn.tree)
    assert fingerprint(top / ".git") == before


@pytest.mark.parametrize("rules", ["", "notes*\n"], ids=["untracked", "ignored"])
@pytest.mark.parametrize(
    ("tracked", "precious"),
    [("notes.txt", "notes.txt"), ("notes/a.txt", "notes"), ("notes", "notes/deep/b.txt")],
    ids=["the same file", "a file where a folder was", "a folder where a file was"],
)
def test_check_out_refuses_over_a_file_that_is_in_no_snapshot(
    tracked: str, precious: str, rules: str, top: Path
) -> None:
    store = store_for(top)
    write(top, {tracked: "old\n"})
    target = store.snapshot("base")
    shutil.rmtree(top / tracked) if (top / tracked).is_dir() else (top / tracked).unlink()
    if "/" in tracked:
        (top / tracked).parent.rmdir()
    write(top, {"a.txt": "now\n", ".gitignore": rules})
    current = store.snapshot("turn-1")
    write(top, {precious: "precious, and nowhere else\n"})
    with untouched(top), pytest.raises(GitFailed):
        store.check_out(current.tree, target.tree)


def test_check_out_turns_files_into_folders_and_links_into_files(top: Path) -> None:
    store = store_for(top)
    write(top, {"one/a.txt": "1\n", "two": "2\n", "three/b.txt": "3\n"})
    target = store.snapshot("base")
    shutil.rmtree(top / "one")
    shutil.rmtree(top / "three")
    (top / "two").unlink()
    write(top, {"one": "now a file\n", "two/c.txt": "now a folder\n"})
    (top / "three").symlink_to("src")
    store.check_out(store.snapshot("turn-1").tree, target.tree)
    assert on_disk(top) == content(store, target.tree)


def test_check_out_refuses_over_an_edit_made_after_the_snapshot(top: Path) -> None:
    store, base = based(top)
    write(top, {"a.txt": "turn\n"})
    turn = store.snapshot("turn-1")
    write(top, {"a.txt": "edited by a person meanwhile\n"})
    with untouched(top), pytest.raises(GitFailed):
        store.check_out(turn.tree, base.tree)


def test_a_turn_can_put_protected_paths_back_and_says_which(guarded: Path) -> None:
    store, _ = based(guarded)
    base = on_disk(guarded)
    (guarded / "conftest.py").unlink()
    write(guarded, {"tests/test_b.py": "pass\n", "tests/test_new.py": "new\n", "src/b.py": "b = 2\n"})
    left = on_disk(guarded)
    turn = store.take_turn("turn-1", restore=True)
    now = {**base, b"src/b.py": (REGULAR, b"b = 2\n"), b"tests/test_new.py": (REGULAR, b"new\n")}
    assert on_disk(guarded) == content(store, turn.tree) == now
    assert {tamper.path for tamper in turn.protected_edits} == {"conftest.py", "tests/test_b.py"}
    assert content(store, "refs/goalrun/turn-1-as-left") == left
    assert store.plan(turn).tampering == ()
    assert turn.changed_files == 2


def test_a_turn_puts_back_a_test_folder_that_became_a_link(guarded: Path) -> None:
    store, base = based(guarded)
    shutil.move(guarded / "tests", guarded / "elsewhere")
    (guarded / "tests").symlink_to("elsewhere")
    turn = store.take_turn("turn-1", restore=True)
    found = on_disk(guarded)
    assert content(store, turn.tree) == found
    assert {path: kept for path, kept in found.items() if b"elsewhere" not in path} == content(store, base.tree)


def test_a_turn_that_may_not_restore_leaves_the_workspace_alone(guarded: Path) -> None:
    store, _ = based(guarded)
    write(guarded, {"tests/test_b.py": "pass\n"})
    with untouched(guarded):
        turn = store.take_turn("turn-1", restore=False)
    assert content(store, turn.tree) == on_disk(guarded)
    assert turn.protected_edits == ()


# A base out of the user's repository


def test_a_commit_of_the_users_becomes_the_base_without_its_submodule_links(user: Path) -> None:
    top = submodule(user)
    store = store_for(top)
    with untouched(user):
        store.adopt(top, git(top, "rev-parse", "HEAD").strip())
    assert names(store, "refs/goalrun/base") == {*FILES, ".gitmodules"}
    write(top, {"tests/test_b.py": "pass\n"})
    assert Tamper(path="tests/test_b.py", kind="modified") in store.plan(store.snapshot("verify")).tampering


@pytest.mark.parametrize("scenario", [shallow, linked_worktree, detached], ids=lambda scenario: scenario.__name__)
def test_a_base_can_come_from_any_kind_of_clone(scenario: Callable[[Path], Path], user: Path) -> None:
    top = scenario(user)
    git(top, "pack-refs", "--all")
    store = store_for(top)
    store.adopt(top, git(top, "rev-parse", "HEAD").strip())
    assert store.tree_of("refs/goalrun/base") == git(top, "rev-parse", "HEAD^{tree}").strip()


@pytest.mark.parametrize("revision", ["HEAD:tests/test_b.py", "HEAD:tests", "HEAD"])
def test_a_forged_object_in_the_users_repository_is_found(revision: str, top: Path) -> None:
    write(top, {"tests/test_b.py": "pass\n"})
    git(top, "commit", "--quiet", "--all", "--message=weaker")
    forged, true = (git(top, "rev-parse", revision.replace("HEAD", name)).strip() for name in ("HEAD", "HEAD~1"))
    objects = top / ".git" / "objects"
    (objects / true[:2] / true[2:]).unlink()
    shutil.copy(objects / forged[:2] / forged[2:], objects / true[:2] / true[2:])
    store = store_for(top)
    with pytest.raises(EnvironmentFailure):
        store.adopt(top, git(top, "rev-parse", "HEAD~1").strip() if revision != "HEAD" else true)
    assert store.ref("base") is None


def test_a_patch_is_bounded_and_keeps_the_list_of_files(top: Path) -> None:
    store, _ = based(top)
    write(top, {"big.txt": "".join(f"line {n}\n" for n in range(50_000)), "z-last.txt": "last\n"})
    patch = store.diff(store.snapshot("turn-1"), 5_000)
    assert len(patch) < 7_000
    assert "z-last.txt" in patch
    assert "bytes left out" in patch


def test_the_workspace_is_the_git_top_level_or_the_folder_itself(user: Path) -> None:
    top = submodule(user)
    (user / "alias").symlink_to(top / "src")
    (user / "plain").mkdir()
    assert find_workspace(top / "src") == top
    assert find_workspace(user / "alias") == top
    assert find_workspace(top / "vendor/library") == top / "vendor/library"
    assert find_workspace(user / "plain") == user / "plain"


def test_a_snapshot_that_was_taken_and_not_recorded_is_taken_again_as_the_same(top: Path) -> None:
    store, _ = based(top)
    write(top, {"a.txt": "turn\n"})
    first = store.snapshot("turn-1")
    assert store.snapshot("turn-1") == first
    assert (first.changed_files, first.diff_files) == (1, 1)


def test_a_label_that_is_given_again_keeps_in_reach_what_it_named(top: Path) -> None:
    store, _ = based(top)
    kept = []
    for text in ("one\n", "two\n", "three\n"):
        write(top, {"a.txt": text})
        kept.append(store.snapshot("before-restore", last=False).commit)
    reached = git(store.path, "--git-dir=.", "rev-list", "--all").split()
    assert set(kept) < set(reached)


def test_locks_that_a_killed_git_left_are_no_obstacle(top: Path) -> None:
    store, _ = based(top)
    for name in ("refs/goalrun/last.lock", "refs/goalrun/turn-1.lock"):
        (store.path / name).touch()
    write(top, {"a.txt": "turn\n"})
    assert store.ref("last") == store.ref("base")
    assert store.snapshot("turn-1").commit == store.ref("last")


def test_a_store_that_was_only_half_made_is_made_anew(top: Path) -> None:
    store = store_for(top)
    (store.path / "goalrun-ready").unlink()
    (store.path / "config.lock").touch()
    (store.path / "HEAD").unlink()
    store.create()
    assert store.snapshot("base").commit == store.ref("base")


def test_what_was_put_back_before_a_crash_is_told_and_kept(guarded: Path) -> None:
    """The worker's edit is put back, and goalrun dies before the turn's own snapshot is taken."""
    store, base = based(guarded)
    write(guarded, {"tests/test_b.py": "weak\n"})
    left = store.snapshot("turn-1-as-left", last=False)
    store.check_out(left.tree, base.tree)
    turn = store.take_turn("turn-1", restore=True)
    assert turn.protected_edits == (Tamper(path="tests/test_b.py", kind="modified"),)
    assert turn.tree == base.tree
    assert left.commit in git(store.path, "--git-dir=.", "rev-list", "--all").split()


def test_what_is_half_of_one_tree_and_half_of_another_is_saved_and_nothing_else_is(top: Path) -> None:
    store, base = based(top)
    write(top, {"a.txt": "turn\n", "new.txt": "new\n"})
    turn = store.snapshot("turn-1")
    (top / "new.txt").unlink()
    assert store.unsaved(store.snapshot("half").tree, [base.tree, turn.tree]) == []
    write(top, {"a.txt": "mine\n"})
    assert store.unsaved(store.snapshot("mine").tree, [base.tree, turn.tree]) == ["a.txt"]


def test_a_worker_cannot_hide_its_edits_from_patches_with_attributes(top: Path) -> None:
    store, base = based(top)
    write(top, {".gitattributes": "* -diff\n", "a.txt": "one\ntwo\nthree\n"})
    after = store.snapshot("turn-1")
    assert "+three" in store.diff(after, 10_000)
    assert store.lines(base.tree, after.tree) == 5
    (only,) = patches(store, [(base.tree, after.tree)], 10_000)
    assert [(each.path, each.added, each.gone, each.about) for each in only.files] == [
        (".gitattributes", 1, 0, "new"),
        ("a.txt", 3, 1, ""),
    ]


def test_patches_of_many_pairs_keep_names_and_bounds(top: Path) -> None:
    store, base = based(top)
    odd = 'sp ace "q" \t\x1b[31m\u202ené.txt'
    write(top, {odd: "diff --git a/x b/x\n--- a\n+++ b\n" * 3, "a.txt": "a" * 5000 + "\n"})
    (top / "binary").write_bytes(bytes(range(256)))
    (top / "large.txt").write_text("x\n" * 300_000, encoding="utf-8")
    first = store.snapshot("turn-1")
    (top / odd).unlink()
    second = store.snapshot("turn-2")
    found = patches(store, [(base.tree, first.tree), (first.tree, first.tree), (first.tree, second.tree)], 1000)
    by_name = {each.path: each for each in found[0].files}
    assert set(by_name) == {shown(odd.encode()), "a.txt", "binary", "large.txt"}
    assert by_name["binary"].about == by_name["large.txt"].about == "new binary"
    assert by_name["a.txt"].left_out == 0
    assert max(len(text) for _, text in by_name["a.txt"].chunks) < 1100
    assert by_name[shown(odd.encode())].left_out > 0
    assert found[1].files == ()
    ((path, added, gone, about, chunks, left_out),) = found[2].files
    assert (path, added, gone, about, left_out) == (shown(odd.encode()), 0, 9, "deleted", 0)
    assert [kind for kind, _ in chunks] == ["place", "gone"]


def test_patches_say_that_the_store_cannot_be_read(top: Path) -> None:
    store, base = based(top)
    (found,) = patches(store, [(base.tree, "1" * 40)], 1000)
    assert found.files == ()
    assert "git" in found.failure


def test_reading_a_workspace_for_the_first_time_can_be_ended_and_begun_again(top: Path, tmp_path: Path) -> None:
    (top / "large").write_bytes(os.urandom(64 << 20))
    store = store_for(top)
    packs = store.path / "objects/pack"

    def poll() -> None:
        if [*packs.glob("tmp_*")]:
            raise Interrupted("pause", "asked to")

    with pytest.raises(Interrupted):
        store.fill(tmp_path / "none", lambda _: None, poll)
    assert [*packs.iterdir()]
    store.fill(tmp_path / "none", lambda _: None, lambda: None)
    assert [*packs.glob("tmp_*")] == []
    assert content(store, store.snapshot("base").tree) == on_disk(top)


def test_what_is_tracked_though_ignored_is_in_the_base_that_was_read_before(user: Path, tmp_path: Path) -> None:
    top = tracked_though_ignored(user)
    store = store_for(top)
    store.fill(tmp_path / "none", lambda _: None, lambda: None)
    assert content(store, store.snapshot("base").tree) == on_disk(top)


@pytest.mark.parametrize("pack", ["whole", "damaged"])
def test_what_an_earlier_goal_kept_of_a_workspace_is_checked_and_not_stored_again(
    pack: str, top: Path, tmp_path: Path
) -> None:
    (top / "large").write_bytes(os.urandom(LEAST_KEPT_BYTES))
    damage = pack == "damaged"
    shelf, there = tmp_path / "shelf/base.pack", tmp_path / "there"
    first, base = based(top)
    there.mkdir()
    first.materialise(base.tree, there)
    first.export(base.tree, there)
    first.keep(shelf)
    kept = shelf.read_bytes()
    if damage:
        data = bytearray(kept)
        data[len(data) // 2] ^= 1
        shelf.unlink()
        shelf.write_bytes(data)
    shutil.rmtree(top.parents[1] / "goal")
    store = store_for(top)
    store.fill(shelf, lambda _: None, lambda: None)
    assert shelf.exists() is not damage
    snapshot = store.snapshot("base")
    assert (snapshot.tree, content(store, snapshot.tree)) == (base.tree, on_disk(top))
    blobs = set(store.blobs(base.tree).values())
    loose = {path.parent.name + path.name for path in (store.path / "objects").glob("??/*")}
    (stored,) = (store.path / "objects/pack").glob("*.pack")
    assert not blobs & loose
    assert (stored.read_bytes() == kept) is not damage
    assert git(store.path, "fsck", "--full", "--strict") == ""
