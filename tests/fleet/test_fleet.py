"""A fleet with a real PostgreSQL, real repositories and real workers. A storm of any size: tests/fleet/suite.py."""

import json
import os
import signal
from pathlib import Path

from fleet.place import QUICK, Place, bare, goal, in_a_fleet, server
from fleet.storm import Plan, Storm, namespaces
from support import CHECK, CODE, GOOD_WORKER, TESTS, git, slow, wait_until

from goalrun.fleet.database import MIGRATIONS

pytestmark = in_a_fleet
FILES = {"shop.py": CODE, "tests/test_shop.py": TESTS}


def test_goals_of_a_file_are_achieved_and_delivered_as_one_branch_each(place: Place) -> None:
    repos = [bare(place.folder / f"shop-{n}.git", FILES) for n in (1, 2)]
    text = (
        f'[submission]\nname = "night"\n[[goals]]\nkey = "shop"\nrepos = {json.dumps([str(repo) for repo in repos])}\n'
        f'objective = "make tests pass"\nworker_cmd = {json.dumps(GOOD_WORKER)}\nchecks = [{json.dumps(CHECK)}]\n'
    )
    assert place.submit(text, "--dry-run") == [None, None]
    assert place.run("list", "--json").json["goals"] == []
    ids = place.submit(text)
    again = place.run("submit", str(place.folder / "submission-1.toml"))
    assert again.code == 2
    assert "submitted before" in again.err
    queued = place.run("status", ids[0], "--json").json
    assert (queued["state"], queued["turns"], queued["fleet"]["key"]) == ("queued", 0, f"shop@{repos[0]}")
    assert "no worker lives" in queued["detail"]
    place.worker("one", "--slots", "2")
    watched = place.run("watch", "--submission", "night")
    assert watched.code == 0, place.said("one")
    for name, repo in zip(ids, repos, strict=True):
        heads = set(git(repo, "for-each-ref", "--format=%(refname)").split())
        assert heads == {"refs/heads/main", f"refs/heads/goalrun/{name}"}
        assert git(repo, "log", "--format=%s", f"goalrun/{name}").splitlines() == [f"goalrun {name}", "first"]
        assert "discount) / 100" in git(repo, "show", f"goalrun/{name}:shop.py")
    shown = place.run("show", ids[0], "--json").json
    local = {
        "schema",
        "id",
        "state",
        "detail",
        "objective",
        "workspace",
        "turns",
        "limits",
        "usage",
        "sandbox",
        "verdict",
    }
    assert local | {"pid", "base", "snapshot", "best_turn", "turn_records", "fleet"} <= shown.keys()
    assert shown["turn_records"][0]["verification"]["outcome"] == "pass"
    assert place.run("status", "--json").json["states"] == {"achieved": 2}
    assert "turn 1 of 20" in place.run("logs", ids[0]).out


@slow
def test_a_storm(place: Place) -> None:
    storm = Storm(place, Plan(6, 3, 2, 2, kills=1, stops=1, heartbeat=1.0, longest=0.5, patience=100.0), namespaces())
    assert storm.run().wrong == [], "\n".join(storm.history.lines)


def test_a_server_that_restarts_is_waited_for(tmp_path: Path) -> None:
    with server() as made:
        place = Place(tmp_path, made)
        try:
            plan = Plan(3, 3, 1, 2, kills=0, stops=0, restarts=1, heartbeat=1.0, longest=0.5, patience=100.0)
            storm = Storm(place, plan)
            assert storm.run().wrong == [], "\n".join(storm.history.lines)
        finally:
            place.end()


def test_goals_that_no_worker_can_do_are_left_and_said_so(place: Place) -> None:
    repo = bare(place.folder / "repo.git", {"a": ""})
    labelled, agent = place.submit(
        goal(repo, "touch done", 'labels = ["gpu"]') + f'[[goals]]\nrepo = "{repo}"\n{QUICK}worker = "goose"\n'
    )
    plain = place.submit(goal(repo, "touch done", 'key = "plain"'))[0]
    place.worker("one")
    assert place.wait(plain)[0]["state"] == "achieved"
    assert "labels gpu" in place.run("status", labelled).out
    assert "no worker that lives has the agent goose" in place.run("status", agent).out
    place.worker("two", "--labels", "gpu,big")
    assert place.wait(labelled)[0]["state"] == "achieved"
    assert place.goal(agent)["attempt"] == 0


def test_goals_are_stopped_paused_resumed_and_tried_again(place: Place) -> None:
    repo, other = (bare(place.folder / f"{name}.git", {"a": ""}) for name in ("repo", "other"))
    worker = f"touch {place.folder}/begun; while ! test -e {place.folder}/go; do sleep 0.1; done; touch done"
    running, waiting = place.submit(goal(repo, worker, 'key = "running"') + goal(repo, worker, 'key = "waiting"'))
    place.worker("one", "--slots", "2")
    wait_until((place.folder / "begun").exists, "the agent begins")
    # One at a time for each repository and branch: the other one has not begun.
    assert place.goal(waiting)["state"] == "queued"
    assert place.run("stop", waiting).out.split() == [waiting, "stopped"]
    assert "asked to pause" in place.run("pause", "running").out
    assert place.wait(running)[0]["state"] == "paused"
    assert place.run("watch", "running").code == 130
    assert git(repo, "branch", "--list", "goalrun/*") == ""
    (place.folder / "go").touch()
    assert place.run("resume", "running", "--max-turns", "+1").code == 0
    done = place.wait(running)[0]
    assert (done["state"], done["result"]["limits"]["max_turns"]) == ("achieved", 21)
    again = place.run("retry", "waiting", "--json").json["id"]
    assert place.wait(again)[0]["state"] == "achieved"
    assert place.goal(waiting)["state"] == "stopped"
    assert "nothing to resume" in place.run("resume", "running").err
    assert place.run("drain", "one").code == 0
    assert place.workers[0].wait(timeout=30) == 0
    late = place.submit(goal(other, "touch done"))[0]
    assert place.goal(late)["state"] == "queued"


def test_a_worker_that_may_not_push_delivers_a_bundle_and_a_ref_that_moved_is_told(place: Place) -> None:
    repo = bare(place.folder / "repo.git", {"a": ""})
    commit = "git -c user.name=x -c user.email=x commit -q --allow-empty -m b"
    move = f"cd $(mktemp -d) && git clone -q {repo} . && {commit} && git push -q"
    name = place.submit(goal(repo, f"touch done; ({move})"))[0]
    place.worker("one", "--no-push")
    row = place.wait(name)[0]
    assert row["state"] == "achieved", row
    assert "main has moved since" in row["detail"]
    assert git(repo, "branch", "--list", "goalrun/*") == ""
    file = place.folder / "result.bundle"
    assert place.run("show", name, "--bundle", str(file)).code == 0
    git(repo, "fetch", "--quiet", str(file), f"goalrun/{name}:result")
    assert git(repo, "ls-tree", "--name-only", "result").split() == ["a", "done"]
    assert git(repo, "rev-parse", "result^").strip() == row["base"]


def test_a_repository_that_vanished_ends_its_goal_in_error(place: Place) -> None:
    name = place.submit(goal(place.folder / "nowhere.git", "touch done"))[0]
    place.worker("one")
    row = place.wait(name)[0]
    assert (row["state"], row["failures"]) == ("error", 5)
    assert "nowhere.git" in row["detail"]


def test_a_worker_that_is_told_to_end_gives_its_goals_back(place: Place) -> None:
    repo = bare(place.folder / "repo.git", {"a": ""})
    name = place.submit(goal(repo, f"touch {place.folder}/begun; sleep 1000"))[0]
    first = place.worker("one")
    wait_until((place.folder / "begun").exists, "the agent begins")
    os.kill(first.pid, signal.SIGTERM)
    assert first.wait(timeout=30) == 0
    row = place.goal(name)
    assert (row["state"], row["worker"]) == ("queued", None)
    assert "worker one ends" in row["detail"]


def test_what_a_repository_says_runs_with_no_secret_of_the_fleet(place: Place) -> None:
    repo = bare(place.folder / "repo.git", {"a": ""})
    seen = place.folder / "seen"
    look = f"(env; git remote -v; cat {place.folder}/one/state/goals/*/fleet.json) > {seen}; touch done"
    name = place.submit(goal(repo, look))[0]
    place.worker("one")
    assert place.wait(name)[0]["state"] == "achieved"
    text = seen.read_text(encoding="utf-8")
    assert "GOALRUN_GOAL_ID" in text
    assert "right" not in text
    assert "postgresql://" not in text


BAD = [
    (("list", "--database", "postgresql://127.0.0.1:1/fleet"), "the database cannot be used"),
    (("list", "--database", "nonsense://x"), "the database's URL cannot be read"),
    (("submit", "--repo", "ext::sh -c id", "--objective", "x"), "no address of a repository"),
    (("submit", "--repo", "/x", "--ref=--upload-pack=id", "--objective", "x"), "no branch, tag or commit"),
    (("submit", "--repo", "/x"), "objective"),
    (("submit", "/no/such.toml"), "cannot read /no/such.toml"),
    (("status", "g-nothing"), "the fleet has no goal"),
    (("limit", "day", "--at-once", "3"), "for an account or a label"),
    (("limit", "day", "--max-usd", "nan"), "no number from 0 on"),
    (("worker", "--database", "postgresql://127.0.0.1:1/fleet"), "the database cannot be used"),
    (("worker", "--credentials", "/no/such"), "there is no file /no/such"),
]


def test_bad_input_is_told_in_one_line(place: Place) -> None:
    for words, told in BAD:
        done = place.run(*words)
        assert done.code in {2, 11}, words
        assert told in done.err.splitlines()[0], words
        assert done.out == "", words


def test_a_wrong_password_and_tables_of_another_goalrun_are_refused(place: Place) -> None:
    wrong = place.run("status", "--database", place.url.replace("right", "wrong"))
    assert (wrong.code, "password authentication failed" in wrong.err) == (11, True)
    place.sql("UPDATE fleet SET format = format + 1 RETURNING 1")
    newer = place.run("worker")
    assert (newer.code, "newer goalrun" in newer.err) == (2, True)
    place.sql("UPDATE fleet SET format = 0 RETURNING 1")
    older = place.run("list")
    assert (older.code, "older goalrun" in older.err) == (2, True)
    place.sql("UPDATE fleet SET format = %s RETURNING 1", len(MIGRATIONS))
    assert place.run("init").out == "the fleet is up to date\n"
    empty = place.run("list", "--database", place.server.database(f"{place.url.rpartition('/')[2]}_empty"))
    assert (empty.code, "there is no fleet in this database" in empty.err) == (2, True)
