"""``--worktree``: goals side by side on one repository, which gets branches and nothing else."""

from pathlib import Path

from flows.groups import until
from support import CHECK, FIXED, GOOD_WORKER, Done, Program, finish, git, write


def everything(repository: Path) -> dict[str, object]:
    """All of a repository that a goal may not change."""
    own = repository / ".git"
    names = ("HEAD", "index", "config", "FETCH_HEAD", "packed-refs")
    refs = git(repository, "for-each-ref", "--format=%(refname) %(objectname)").splitlines()
    return {
        "files": {
            path.name: path.read_bytes() for path in repository.rglob("*") if path.is_file() and own not in path.parents
        },
        "git": {name: (own / name).read_bytes() for name in names if (own / name).exists()},
        "refs": [ref for ref in refs if not ref.startswith("refs/heads/goalrun/")],
        "worktrees": git(repository, "worktree", "list"),
    }


def branch_of(done: Done) -> str:
    return f"goalrun/{done.json['id']}"


def test_two_goals_side_by_side_leave_a_branch_each_and_the_checkout_alone(program: Program, tmp_path: Path) -> None:
    ws = program.cwd
    write(ws, {"draft.txt": "not committed\n", ".gitignore": "junk.txt\n", "junk.txt": "left out\n"})
    write(ws / ".git" / "hooks", {"reference-transaction": f"#!/bin/sh\ntouch {tmp_path}/hooked\n"})
    (ws / ".git" / "hooks" / "reference-transaction").chmod(0o755)
    before, head = everything(ws), git(ws, "rev-parse", "HEAD").strip()
    here, there = tmp_path / "here", tmp_path / "there"
    # Each waits until the other one works: one after the other they would wait for ever.
    first = f"touch {here}; {until(there)}; test ! -e junk.txt; {GOOD_WORKER}; echo one > one.txt"
    second = f"touch {there}; {until(here)}; cat draft.txt; {GOOD_WORKER}; echo two > two.txt"
    runs = [
        program.spawn("start", "x", "--worker-cmd", line, "-c", CHECK, "--worktree", "--json")
        for line in (first, second)
    ]
    done = [finish(process) for process in runs]
    assert [each.code for each in done] == [0, 0], [each.err for each in done]
    for each, name in zip(done, ("one", "two"), strict=True):
        branch = branch_of(each)
        assert git(ws, "show", f"{branch}:shop.py") == FIXED
        assert git(ws, "show", f"{branch}:{name}.txt") == f"{name}\n"
        assert git(ws, "show", f"{branch}:draft.txt") == "not committed\n"
        assert git(ws, "log", "-1", "--format=%P %an", branch).split() == [head, "goalrun"]
    assert everything(ws) == before
    assert not (tmp_path / "hooked").exists()
    assert list((tmp_path / "state-worktrees").glob("*/*")) == []


def test_a_goal_that_fails_keeps_its_worktree_and_goes_on_in_it(program: Program) -> None:
    failed = program.start("--worktree", "--max-turns", "1", "--json", worker="echo half > half.txt")
    assert failed.code == 3
    top = Path(failed.json["workspace"])
    assert f"the worktree is kept: {top}" in failed.err
    assert git(program.cwd, "branch", "--list", "goalrun/*") == ""
    (top / "shop.py").write_text(FIXED)
    done = program.run("resume", failed.json["id"], "--max-turns", "+1", "--json")
    assert done.code == 0
    assert git(program.cwd, "show", f"{branch_of(done)}:half.txt") == "half\n"
    assert git(program.cwd, "show", f"{branch_of(done)}:shop.py") == FIXED
    assert not top.exists()


def test_a_branch_that_cannot_be_made_is_said_and_can_be_made_later(program: Program) -> None:
    git(program.cwd, "branch", "goalrun")
    failed = program.start("--worktree", worker=GOOD_WORKER)
    assert failed.code == 11
    goal = program.goals()[0]["id"]
    assert f"the branch goalrun/{goal} cannot be made" in failed.err
    git(program.cwd, "branch", "-D", "goalrun")
    assert program.run("resume", goal).code == 0
    assert git(program.cwd, "show", f"goalrun/{goal}:shop.py") == FIXED


def test_without_a_repository_it_is_refused(program: Program, tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.mkdir()
    done = program.start("--worktree", worker="true", cwd=plain)
    assert done.code == 2
    assert "--worktree needs a git repository" in done.err
    assert program.goals() == []


def test_clean_removes_what_is_left_of_achieved_goals(program: Program, tmp_path: Path) -> None:
    git(program.cwd, "branch", "goalrun")
    assert program.start("--worktree", worker=GOOD_WORKER).code == 11
    assert list((tmp_path / "state-worktrees").glob("*/*"))
    assert program.run("clean").code == 0
    assert list((tmp_path / "state-worktrees").glob("*")) == []
