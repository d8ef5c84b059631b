"""What a fleet adds to a turn, and what a claim costs however many goals are queued; on loopback."""

import json
import statistics
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

from measure import goalrun, line, records

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
if TYPE_CHECKING:
    from fleet.place import Server

TURN_MS, CLAIM_MS = 100.0, 20.0
"""Targets: beside a turn of the local loop; of one claim with 10,000 goals queued."""
QUEUED, REPOSITORIES, CLAIMS = 10_000, 40, 30


def run(scratch: Path, *, quick: bool) -> None:
    """Both, with a PostgreSQL of their own."""
    try:
        from fleet.place import FOLDERS, server
    except ModuleNotFoundError as missing:
        line(f"skipped: {missing}; pip install 'goalrun[test]'")
        return
    if not FOLDERS:
        line("skipped: there is no PostgreSQL; apt-get install postgresql")
        return
    with server() as made:
        _turns(scratch, made, 5 if quick else 20)
        _claims(scratch, made)


def _turns(scratch: Path, made: "Server", turns: int) -> None:
    from fleet.place import Place, bare
    from support import repository

    worker = f"date +%s%N > n.txt; test $GOALRUN_TURN -lt {turns} || touch done"
    goal = (
        f'objective = "x"\nworker_cmd = {json.dumps(worker)}\nchecks = ["test -e done"]\n'
        f"limits = {{ max_turns = {turns}, stuck_after = 0 }}\n"
    )
    (scratch / "goal.toml").write_text(goal, encoding="utf-8")
    place = Place(scratch, made, "20s")
    local: list[float] = []
    fleet: list[float] = []
    place.worker("one")
    try:
        # In turn, so that what else the machine does hits both.
        for number in range(2):
            home = scratch / f"state-{number}"
            goalrun(["start", "-f", str(scratch / "goal.toml")], repository(scratch / f"own-{number}", {"a": ""}), home)
            local += _each(records(home))
            repo = bare(scratch / f"{number}.git", {"a": ""})
            name = place.submit(f'[[goals]]\nrepo = "{repo}"\n{goal}')[0]
            row = place.wait(name)[0]
            assert row["state"] == "achieved", row["detail"]
            rows = place.sql("SELECT elapsed, body FROM record WHERE goal = %s ORDER BY seq", name)
            fleet += _each([(each["elapsed"], json.loads(each["body"])["kind"]) for each in rows])
    finally:
        place.end()
    alone, there = statistics.median(local), statistics.median(fleet)
    line(f"a turn of the local loop {alone:.0f} ms, on a worker {there:.0f} ms", there - alone, TURN_MS, "ms more")


def _each(found: list[tuple[float, str]]) -> list[float]:
    """From records to milliseconds a turn, the first left out."""
    ends = [elapsed for elapsed, kind in found if kind == "turn_finished"]
    return [(after - before) * 1000 for before, after in pairwise(ends)]


def _claims(scratch: Path, made: "Server") -> None:
    from fleet.place import Place

    for queued, repositories in ((10, 10), (QUEUED, REPOSITORIES), (QUEUED, 1)):
        place = Place(scratch, made, url=made.database(f"of_{queued}_{repositories}"))
        took = list(_claimed(place.url, queued, repositories))
        text = f"{queued} goals queued, of {repositories} branches: a claim takes {statistics.median(took):.1f} ms"
        line(f"{text} (at most {max(took):.1f})", statistics.median(took), CLAIM_MS, "ms")


def _claimed(url: str, queued: int, repositories: int) -> Iterator[float]:
    """Milliseconds for each claim, as a worker makes them: also of one that finds nothing, its branch being busy."""
    from goalrun.adapters.clock import utc_now
    from goalrun.adapters.home import new_id
    from goalrun.fleet import goals, submission
    from goalrun.fleet.database import connect
    from goalrun.fleet.queue import Queue

    tables = [{"key": str(number), "repo": f"/r/{number % repositories}", "objective": "x"} for number in range(queued)]
    queue = Queue(url)
    with connect(url) as db:
        engine = queue.register()
        submitted = submission.made({"goals": tables}, "bench", "ann", "bench")
        goals.submit(db, submitted, lambda: new_id(utc_now()))
        db.execute("ANALYZE")
        for _ in range(min(CLAIMS, queued)):
            began = perf_counter()
            for each in goals.open_queues(db, (), ()):
                taken = queue.fetch([each], engine)
                if taken is not None:
                    goals.claim(db, taken.goal, taken.job, "bench")
                    break
            yield (perf_counter() - began) * 1000
    queue.close()
