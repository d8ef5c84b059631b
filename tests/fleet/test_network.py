"""Workers as hosts of their own, whose network is cut: for longer than a heartbeat, so that others take over."""

from pathlib import Path

import pytest
from fleet.hosts import network
from fleet.place import Place, needs_postgresql, server
from fleet.storm import Plan, Storm, namespaces
from support import slow

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
