"""Repositories that vanish, move or attack, and agents that turn their clone against the worker."""

import json
from pathlib import Path

from fleet.place import Gates, Place, bare, goal, in_a_fleet
from support import git, script, slow

pytestmark = in_a_fleet
HOOKS = ("post-checkout", "pre-push", "pre-commit", "post-index-change", "reference-transaction", "pre-auto-gc")
PLANT = """
import pathlib, sys
evil, elsewhere, repo = sys.argv[1:]
top = pathlib.Path(".git")
with (top / "config").open("a") as config:
    config.write(f'''
[core]
    fsmonitor = touch {evil}-fsmonitor
    sshCommand = touch {evil}-ssh
    hooksPath = .git/hooks
    alternateRefsCommand = touch {evil}-alternate
[uploadpack]
    packObjectsHook = touch {evil}-pack
[filter "x"]
    clean = touch {evil}-clean; cat
    smudge = touch {evil}-smudge; cat
    process = touch {evil}-process
[diff "x"]
    textconv = touch {evil}-textconv
    command = touch {evil}-diff
[url "{elsewhere}"]
    insteadOf = {repo}
    pushInsteadOf = {repo}
[remote "origin"]
    url = {elsewhere}
    uploadpack = touch {evil}-uploadpack
    receivepack = touch {evil}-receivepack
''')
for name in NAMES:
    hook = top / "hooks" / name
    hook.parent.mkdir(exist_ok=True)
    hook.write_text(f"#!/bin/sh\\ntouch {evil}-{name}\\n")
    hook.chmod(0o755)
if pathlib.Path("once").exists():
    pathlib.Path("done").touch()
pathlib.Path("once").touch()
"""


def advance(repo: Path) -> str:
    """One more commit on main; its id."""
    commit = git(repo, "commit-tree", "-p", "main", "-m", "next", git(repo, "rev-parse", "main^{tree}").strip()).strip()
    git(repo, "update-ref", "refs/heads/main", commit)
    return commit


def test_what_a_repository_or_an_agent_plants_is_never_run_and_never_leads_elsewhere(place: Place) -> None:
    evil, repo = place.folder / "evil", place.folder / "repo.git"
    module = f'[submodule "s"]\n\tpath = s\n\turl = ext::touch% {evil}-module\n\tupdate = !touch {evil}-update\n'
    bare(repo, {".gitattributes": "* filter=x diff=x\n", ".gitmodules": module, "s/a": "", "-x": "", "a": ""})
    elsewhere = bare(place.folder / "elsewhere.git", {"a": ""})
    plant = script(place.folder / "plant.py", PLANT.replace("NAMES", repr(HOOKS)))
    name = place.submit(goal(repo, f"{plant} {evil} {elsewhere} {repo}"))[0]
    place.worker("one")
    row = place.wait(name)[0]
    assert (row["state"], row["turns"], row["failures"]) == ("achieved", 2, 0), row
    assert {"done", "-x"} <= set(git(repo, "ls-tree", "--name-only", f"goalrun/{name}").split())
    assert git(elsewhere, "branch", "--list", "goalrun/*") == ""
    assert [path.name for path in place.folder.glob("evil*")] == []


def test_a_repository_that_vanishes_under_its_goal_leaves_a_bundle(place: Place) -> None:
    repo = bare(place.folder / "repo.git", {"a": ""})
    kept = place.folder / "kept.git"
    name = place.submit(goal(repo, f"mv {repo} {kept}; touch done"))[0]
    place.worker("one")
    row = place.wait(name)[0]
    assert (row["state"], row["turns"], row["failures"]) == ("achieved", 1, 2), row
    assert "repo.git' does not appear to be a git repository" in row["delivered"]
    file = place.folder / "file"
    assert place.run("show", name, "--bundle", str(file)).code == 0
    git(kept, "fetch", "--quiet", str(file), f"goalrun/{name}:result")
    assert git(kept, "ls-tree", "--name-only", "result").split() == ["a", "done"]


@slow
def test_a_goal_keeps_its_base_on_another_machine_too(place: Place) -> None:
    repo = bare(place.folder / "repo.git", {"a": ""})
    base = git(repo, "rev-parse", "main").strip()
    gates = Gates(place.folder / "gates")
    name = place.submit(goal(repo, gates.worker("goal")))[0]
    first = place.worker("one")
    gates.wait("goal")
    moved = advance(repo)
    first.kill()
    first.wait()
    gates.let_go("goal")
    # Its mirror never saw main where the goal began.
    place.worker("two")
    row = place.wait(name)[0]
    assert (row["state"], row["base"], row["takeovers"]) == ("achieved", base, 1), row
    assert f"main has moved since from {base[:12]} to {moved[:12]}" in row["detail"]
    assert git(repo, "rev-parse", f"goalrun/{name}^").strip() == base
    assert json.loads(place.run("show", name, "--json").out)["detail"] == row["detail"]
