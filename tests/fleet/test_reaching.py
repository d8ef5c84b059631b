"""How workers reach repositories, with what, and what they leave where they were killed."""

import os
import signal
import socket
from pathlib import Path

import pytest
from fleet.place import Gates, Place, bare, copies, goal, in_a_fleet
from fleet.reach import http, needs_sshd, sshd
from support import git, slow, wait_until

pytestmark = in_a_fleet


def heads(repo: Path) -> set[str]:
    return set(git(repo, "for-each-ref", "--format=%(refname)").split())


@needs_sshd
def test_over_ssh_a_branch_is_pushed_and_who_may_not_push_gives_a_bundle(place: Place) -> None:
    repo, closed = copies(place.folder, "repo", "closed")
    with sshd(place.folder / "ssh") as ssh:
        name = place.submit(goal(f"{ssh.address}{repo}", "touch done"))[0]
        place.worker("one", "--credentials", ssh.credentials("all"))
        row = place.wait(name)[0]
        assert (row["state"], heads(repo)) == ("achieved", {"refs/heads/main", f"refs/heads/goalrun/{name}"}), row
        place.end()
        other = place.submit(goal(f"{ssh.address}{closed}", "touch done"))[0]
        place.worker("two", "--credentials", ssh.credentials("fetch"))
        row = place.wait(other)[0]
    assert (row["state"], row["failures"], heads(closed)) == ("achieved", 2, {"refs/heads/main"}), row
    assert "this key may not push" in row["delivered"]
    # Its turn was not done again for that, and what is told makes the branch.
    assert row["turns"] == 1
    assert f"goalrun fleet show {other} --bundle FILE" in row["delivered"]
    told = place.run("show", other, "--bundle", str(place.folder / "file")).err
    assert told.split()[:2] == ["git", "fetch"]
    git(closed, *told.split()[1:])
    assert git(closed, "ls-tree", "--name-only", f"goalrun/{other}").split() == ["a", "done"]


def test_over_http_credentials_are_the_workers_and_not_the_agents(place: Place) -> None:
    repo = bare(place.folder / "served" / "repo.git", {"a": ""})
    seen = place.folder / "seen"
    look = f"(env; git config --list; cat .git/config; git remote -v) > {seen}; touch done"
    credentials = place.folder / "credentials"
    credentials.write_text('[credential]\n\thelper = "!echo username=robot; echo password=hush-hush #"\n', "utf-8")
    with http(repo.parent, "robot", "hush-hush") as address:
        name = place.submit(goal(f"{address}/repo.git", look))[0]
        first = place.worker("one")
        # Nobody is asked for a password, and nothing waits for one.
        wait_until(lambda: place.goal(name)["failures"] > 0, "it cannot be cloned")
        assert "could not read Username" in place.said("one")
        os.kill(first.pid, signal.SIGTERM)
        first.wait()
        place.worker("two", "--credentials", str(credentials))
        row = place.wait(name)[0]
    assert (row["state"], row["delivered"].split()[0]) == ("achieved", f"goalrun/{name}"), row
    assert heads(repo) == {"refs/heads/main", f"refs/heads/goalrun/{name}"}
    assert "GOALRUN_TURN" in seen.read_text("utf-8")
    for path in (seen, *(path for path in place.folder.glob("two/**/config") if path.is_file())):
        assert "hush-hush" not in path.read_text("utf-8"), path
        assert str(credentials) not in path.read_text("utf-8"), path


@pytest.mark.parametrize(
    "address",
    [pytest.param("{}/a repo.git", id="path"), pytest.param("file://{}/a%20repo.git", id="file", marks=slow)],
)
def test_what_was_locked_by_a_worker_that_was_killed_stops_nobody(place: Place, address: str) -> None:
    repo = bare(place.folder / "a repo.git", {"a": ""})
    first = place.submit(goal(address.format(place.folder), "touch done"))[0]
    lock = repo / "refs/heads/goalrun" / f"{first}.lock"
    lock.parent.mkdir()
    lock.touch()
    place.worker("one")
    row = place.wait(first)[0]
    assert row["delivered"].split()[0] == f"goalrun/{first}", row
    assert not lock.exists()
    # The same in the worker's own mirror, which has to be brought up to date.
    (mirror,) = (place.folder / "one/state/mirrors").glob("*.git")
    for name in ("refs/heads/main.lock", "packed-refs.lock", "config.lock"):
        (mirror / name).touch()
    tree = git(repo, "rev-parse", "main^{tree}").strip()
    git(repo, "update-ref", "refs/heads/main", git(repo, "commit-tree", "-p", "main", "-m", "next", tree).strip())
    second = place.submit(goal(row["repo"], "touch done", 'key = "second"'))[0]
    again = place.wait(second)[0]
    assert (again["state"], again["failures"]) == ("achieved", 0), again
    assert again["base"] == git(repo, "rev-parse", "main").strip()


@slow
def test_a_push_that_takes_longer_than_the_server_is_patient_is_made_once(place: Place) -> None:
    repo = bare(place.folder / "repo.git", {"a": ""})
    hook = repo / "hooks/pre-receive"
    hook.parent.mkdir(exist_ok=True)
    # Of a heartbeat of 1 s, a transaction that says nothing is ended after 1.5.
    hook.write_text(f"#!/bin/sh\necho x >> {place.folder}/pushes\nsleep 3\n", "utf-8")
    hook.chmod(0o755)
    name = place.submit(goal(repo, "touch done"))[0]
    place.worker("one")
    assert place.wait(name)[0]["delivered"].startswith("goalrun/")
    assert (place.folder / "pushes").read_text("utf-8") == "x\n"
    assert "waiting for the database" not in place.said("one")


@slow
def test_a_repository_that_never_answers_keeps_no_worker_from_ending(place: Place) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        name = place.submit(goal(f"git://127.0.0.1:{listening.getsockname()[1]}/repo.git", "touch done"))[0]
        worker = place.worker("one")
        with listening.accept()[0]:
            worker.send_signal(signal.SIGTERM)
            assert worker.wait(timeout=30) == 0
    row = place.goal(name)
    assert (row["state"], row["worker"], row["failures"]) == ("queued", None, 0), row
    assert "worker one ends" in row["detail"]


@slow
def test_what_a_killed_worker_left_is_cleared_by_the_next_one_there(place: Place) -> None:
    repo = bare(place.folder / "repo.git", {"a": ""})
    gates = Gates(place.folder / "gates")
    name = place.submit(goal(repo, gates.worker("goal")))[0]
    first = place.worker("one")
    gates.wait("goal")
    first.kill()
    first.wait()
    left = [place.folder / "one/state/goals" / name, place.folder / "one/state-worktrees" / name]
    assert [path.exists() for path in left] == [True, True]
    gates.let_go("goal")
    place.worker("two")
    assert place.wait(name)[0]["takeovers"] == 1
    place.worker("one")
    wait_until(lambda: not any(path.exists() for path in left), "what was left goes")
