"""Workers that are cut off, or stopped, for longer than a heartbeat, so that others take over."""

import signal
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from fleet.hosts import network
from fleet.place import Gates, Place, bare, goal, needs_postgresql, server
from fleet.storm import Plan, Storm, namespaces
from support import slow, wait_until

pytestmark = needs_postgresql


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
        # It was noticed on both sides: that worker waited, and others had its goals.
        assert len(history.takeovers) == plan.cuts, said
        assert "waiting for the database" in said


def at_work(machine: Path) -> list[int]:
    """The processes in a worker's clones."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.cwd().startswith(f"{machine}/state-worktrees/"):
                found.append(process.pid)
    return found


def test_a_worker_that_lost_its_goal_ends_its_agent_and_leaves_it_alone(place: Place) -> None:
    repo = bare(place.folder / "repo.git", {"a": ""})
    gates = Gates(place.folder / "gates")
    name = place.submit(goal(repo, gates.worker("goal")))[0]
    one = place.worker("one")
    gates.wait("goal")
    assert at_work(place.folder / "one")
    one.send_signal(signal.SIGSTOP)
    place.worker("two")
    wait_until(lambda: at_work(place.folder / "two"), "another worker has it")
    # The agent of the worker that is stopped still runs: nobody could tell it.
    assert at_work(place.folder / "one")
    one.send_signal(signal.SIGCONT)
    wait_until(lambda: not at_work(place.folder / "one"), "the agent is ended")
    wait_until(lambda: not (place.folder / "one/state-worktrees" / name).exists(), "its clone is gone")
    assert (place.goal(name)["worker"], place.goal(name)["takeovers"]) == ("two", 1)
    gates.let_go("goal")
    row = place.wait(name)[0]
    assert (row["state"], row["turns"]) == ("achieved", 1), row
