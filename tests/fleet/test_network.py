"""Workers that are cut off, or stopped, for longer than a heartbeat, so that others take over."""

import os
import signal
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from fleet.hosts import network
from fleet.place import PATIENCE, Gates, Place, bare, goal, in_a_fleet, server
from fleet.storm import Plan, Storm, namespaces, stop
from support import git, running, slow, wait_until

from goalrun.fleet.database import SETTINGS

pytestmark = in_a_fleet

TCP_SECONDS = int(SETTINGS["tcp_user_timeout"]) / 1000


@pytest.mark.parametrize(
    "plan",
    [
        Plan(4, 2, 2, 2, kills=0, stops=0, cuts=1, cut=3.0, heartbeat=1.0, longest=2.0, patience=100.0),
        pytest.param(
            Plan(12, 6, 3, 2, kills=0, stops=0, cuts=2, cut=30.0, heartbeat=4.0, longest=3.0, patience=400.0),
            marks=[slow, pytest.mark.timeout(600)],
        ),
    ],
    ids=["3 s", "30 s"],
)
def test_a_cut_loses_nothing_and_doubles_nothing(tmp_path: Path, plan: Plan) -> None:
    with network() as wires, server(wires.address) as made:
        place = Place(tmp_path, made, f"{plan.heartbeat}s")
        storm = Storm(place, plan, namespaces(), wires)
        try:
            history = storm.run()
        finally:
            place.end()
        said = "\n".join([*history.lines, *(log.read_text("utf-8") for log in sorted(tmp_path.glob("*/worker.log")))])
        assert history.wrong == [], said
        # Others had that worker's goals.
        assert len(history.takeovers) == plan.cuts, said
        # A short cut can be over before a connection breaks: then that worker's statement just took longer.
        assert plan.cut < TCP_SECONDS or "waiting for the database" in said


@pytest.fixture
def machines() -> tuple[str, ...]:
    """What makes workers machines of their own: on one machine, whoever takes over ends what was left there."""
    found = namespaces()
    if not found:
        pytest.skip("this machine allows no process namespaces")
    return found


def at_work(machine: Path) -> list[int]:
    """The processes in a worker's clones."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.cwd().startswith(f"{machine}/state-worktrees/"):
                found.append(process.pid)
    return found


def go_on(pids: list[int]) -> None:
    for pid in reversed(pids):
        os.kill(pid, signal.SIGCONT)


def test_a_worker_that_lost_its_goal_writes_nothing_and_leaves(place: Place, machines: tuple[str, ...]) -> None:
    repo = bare(place.folder / "repo.git", {"a": ""})
    here = place.folder
    # Each machine's agent waits for a name of its own.
    wait = f"until test -e {here}/$me.1; do sleep 0.05; done"
    agent = f"me=two; case $PWD in */one/*) me=one;; esac; touch {here}/$me.begun; {wait}; echo $me > done"
    name = place.submit(goal(repo, agent))[0]
    one = place.worker("one", prefix=machines)
    wait_until((here / "one.begun").exists, "the agent begins", PATIENCE)
    stopped = stop(one.pid, whole=False)
    place.worker("two", prefix=machines)
    wait_until((here / "two.begun").exists, "another worker has it", PATIENCE)
    # The agent of the worker that is stopped still runs: nobody could tell it. What it made is not written down.
    assert at_work(here / "one")
    (here / "one.1").touch()
    child = f"goalrun.fleet.child {name}"
    wait_until(lambda: len(running(child)) == 1, "it finds out at its next write, and ends", PATIENCE)
    assert place.sql("SELECT FROM record WHERE goal = %s AND body LIKE %s", name, '%"worker_finished"%') == []
    go_on(stopped)
    left = here / "one/state-worktrees" / name
    wait_until(lambda: not left.exists() and not at_work(here / "one"), "nothing of it is left there", PATIENCE)
    assert (place.goal(name)["worker"], place.goal(name)["takeovers"]) == ("two", 1)
    (here / "two.1").touch()
    row = place.wait(name)[0]
    assert (row["state"], row["turns"]) == ("achieved", 1), row
    assert git(repo, "show", f"goalrun/{name}:done") == "two\n"


@slow
def test_an_agent_of_a_lost_goal_is_ended(place: Place, machines: tuple[str, ...]) -> None:
    repo = bare(place.folder / "repo.git", {"a": ""})
    gates = Gates(place.folder / "gates")
    name = place.submit(goal(repo, gates.worker("goal")))[0]
    one = place.worker("one", prefix=machines)
    gates.wait("goal")
    stopped = stop(one.pid, whole=False)
    place.worker("two", prefix=machines)
    wait_until(lambda: at_work(place.folder / "two"), "another worker has it", PATIENCE)
    assert at_work(place.folder / "one")
    go_on(stopped)
    wait_until(lambda: not at_work(place.folder / "one"), "the agent is ended", PATIENCE)
    assert place.goal(name)["worker"] == "two"
