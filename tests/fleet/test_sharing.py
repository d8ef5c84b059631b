"""Who is next, how much at once, and what it may cost: what a fleet shares out, over several workers."""

import json
from pathlib import Path
from typing import Any

from fleet.place import QUICK, Gates, Place, copies, goal, in_a_fleet, robot
from support import slow, wait_until

pytestmark = in_a_fleet
COSTS = 'open(str(time.time_ns()), "w"); print(json.dumps({"tokens": 100, "usd": 0.5}))'
"""An agent that changes something, reports what it spent, and is never done."""


def gated(place: Place, gates: Gates, submitter: str, *wanted: tuple[str, Path, str]) -> None:
    """Submit goals in somebody's name: key, repository, and what else is in the file."""
    text = "".join(goal(repo, gates.worker(key), f'key = "{key}"\n{more}') for key, repo, more in wanted)
    place.submit(text, "--submitter", submitter)


def test_the_highest_priority_is_first_and_then_who_has_least_under_way(place: Place) -> None:
    keys = ("low", "ann-1", "ann-2", "ann-3", "bob-1", "bob-2", "high")
    repos = dict(zip(keys, copies(place.folder, *keys), strict=True))
    gates = Gates(place.folder / "gates")
    gated(place, gates, "cid", ("low", repos["low"], "priority = -5"))
    gated(place, gates, "ann", *((key, repos[key], "") for key in ("ann-1", "ann-2", "ann-3")))
    gated(place, gates, "bob", *((key, repos[key], "") for key in ("bob-1", "bob-2")))
    gated(place, gates, "ann", ("high", repos["high"], "priority = 5"))
    place.worker("one", "--slots", "2")
    # Not the oldest, and not the next of whoever has one already.
    gates.wait("high", "bob-1")
    gates.let_go("high")
    gates.wait("high", "bob-1", "ann-1")
    gates.let_go("ann-1")
    # Ann has none and asked first, bob has one.
    gates.wait("high", "bob-1", "ann-1", "ann-2")
    gates.let_go("bob-1")
    # Bob has none now, and ann one, though she asked first.
    gates.wait("high", "bob-1", "ann-1", "ann-2", "bob-2")


def test_a_goal_whose_branch_is_busy_puts_none_of_its_neighbours_before_others(place: Place) -> None:
    busy, free, other = copies(place.folder, "busy", "free", "other")
    gates = Gates(place.folder / "gates")
    gated(place, gates, "ann", ("first", busy, "priority = 9"), ("second", busy, "priority = 9"), ("third", free, ""))
    gated(place, gates, "bob", ("fourth", other, "priority = 5"))
    place.worker("one", "--slots", "2")
    gates.wait("first", "fourth")
    gates.let_go("first")
    gates.wait("first", "fourth", "second")


def test_so_many_of_a_label_or_account_run_at_once_on_all_workers_together(place: Place) -> None:
    keys = ("gpu-1", "gpu-2", "team-1", "team-2", "last")
    repos = copies(place.folder, *keys)
    gates = Gates(place.folder / "gates")
    assert place.run("limit", "label", "gpu", "--at-once", "1").code == 0
    assert place.run("limit", "account", "team", "--at-once", "1").code == 0
    more = ('labels = ["gpu"]\naccount = "a"', 'labels = ["gpu"]\naccount = "b"', *['account = "team"'] * 2)
    gated(place, gates, "ann", *zip(keys, repos, (*more, "priority = -9"), strict=True))
    for name in ("one", "two"):
        place.worker(name, "--slots", "3", "--labels", "gpu")
    # The last one begins when all others were looked at: the second of each kind was passed over.
    gates.wait("gpu-1", "team-1", "last")
    gates.let_go("gpu-1")
    gates.wait("gpu-1", "team-1", "last", "gpu-2")
    gates.let_go("team-1")
    gates.wait(*keys)


def ends(place: Place, *names: str) -> list[tuple[str, int]]:
    return [(row["state"], row["turns"]) for row in place.wait(*names)]


def spending(place: Place, repos: list[Path], more: str, head: str = "") -> list[str]:
    agent = robot(place.folder, COSTS)
    goals = "".join(f'[[goals]]\nrepo = "{repo}"\nkey = "{place.new_key()}"\n{more}{QUICK}{agent}' for repo in repos)
    return place.submit(head + goals)


def test_goals_submissions_and_accounts_spend_what_they_may_in_usd_or_tokens(place: Place) -> None:
    repos = copies(place.folder, *"abcdef")
    assert place.run("limit", "account", "poor", "--max-usd", "1").code == 0
    assert place.run("limit", "account", "short", "--max-tokens", "100").code == 0
    own_usd = spending(place, repos[:1], 'account = "x"\nlimits = { max_usd = 1.5 }\n')
    own_tokens = spending(place, repos[1:2], 'account = "x"\nlimits = { max_tokens = 300 }\n')
    head = '[submission]\nname = "night"\nmax_tokens = 200\n'
    night = spending(place, repos[2:4], 'account = "y"\n', head)
    poor = spending(place, repos[4:5], 'account = "poor"\nlimits = { stuck_after = 0 }\n')
    short = spending(place, repos[5:], 'account = "short"\n')
    # What is spent at once can overshoot by one turn each: the two of a submission are done by one slot.
    place.worker("one")
    over = "budget_exceeded"
    assert ends(place, *own_usd, *own_tokens, *night) == [(over, 3), (over, 3), (over, 2), (over, 0)]
    assert ends(place, *poor, *short) == [(over, 2), (over, 1)]
    assert "by submission night" in place.goal(night[1])["detail"]
    assert "100 of 100 tokens are spent by account short" in place.goal(short[0])["detail"]
    assert place.run("limit", "account", "poor", "--max-usd", "1.5").code == 0
    assert place.run("resume", poor[0]).code == 0
    assert ends(place, *poor) == [(over, 3)]


@slow
def test_a_day_spends_what_it_may_and_the_next_one_again(place: Place) -> None:
    repos = copies(place.folder, *"ab")
    assert place.run("limit", "day", "--max-usd", "1").code == 0
    first = spending(place, repos, "")
    place.worker("one")
    assert sorted(ends(place, *first)) == [("budget_exceeded", 0), ("budget_exceeded", 2)]
    assert "1.0000 of 1.0000 USD are spent today" in place.goal(first[1])["detail"]
    # A day later; what was spent before counts no more.
    place.sql("UPDATE spend SET day = day - 1 RETURNING 1")
    assert place.run("limit", "day", "--max-usd", "9", "--max-tokens", "300").code == 0
    second = spending(place, repos[:1], "limits = { stuck_after = 0 }\n")
    assert ends(place, *second) == [("budget_exceeded", 3)]
    assert "300 of 300 tokens are spent today" in place.goal(second[0])["detail"]
    assert place.run("status", "--json").json["bill"] == {
        "usd": 2.5, "tokens": 500, "runs_without_usd": 0, "runs_without_tokens": 0,
    }  # fmt: skip


@slow
def test_where_nobody_says_what_was_spent_a_bound_is_reached(place: Place) -> None:
    repo, other = copies(place.folder, "a", "b")
    assert place.run("limit", "account", "silent", "--max-usd", "100").code == 0
    silent, free = place.submit(
        goal(repo, "date +%N > n", 'key = "1"\naccount = "silent"')
        + goal(other, "date +%N > n; test $GOALRUN_TURN -lt 2 || touch done", 'key = "2"\naccount = "free"')
    )
    place.worker("one")
    assert ends(place, silent, free) == [("budget_exceeded", 1), ("achieved", 2)]
    assert "is not known, and there is a limit" in place.goal(silent)["detail"]


LIMITED = """
here, key = pathlib.Path({gates!r}), pathlib.Path.cwd().name
(here / (key + ".begun")).touch()
while not (here / (key + ".go")).exists():
    time.sleep(0.05)
open(str(time.time_ns()), "w")
reset = here / "reset"
if key == "first" and not reset.exists():
    reset.write_text(str(time.time() + {seconds}))
    print(json.dumps({{"limited": True, "reset": time.time() + {seconds}, "tokens": 1, "usd": 0.1}}))
    sys.exit(1)
with open(here / "turns", "a") as file:
    file.write(json.dumps([key, time.time()]) + "\\n")
if key == "other" or os.environ["GOALRUN_TURN"] != "1" or key == "third":
    open("done", "w")
print(json.dumps({{"tokens": 1, "usd": 0.1}}))
"""


def test_a_quota_stops_an_account_on_all_machines_and_nobody_else(place: Place) -> None:
    keys = ("first", "second", "third", "other")
    gates = Gates(place.folder / "gates")
    agent = robot(place.folder, LIMITED.format(gates=str(gates.folder), seconds=8))
    repos = copies(place.folder, *keys)
    wanted = [
        f'[[goals]]\nkey = "{key}"\nrepo = "{repo}"\naccount = "{"a" if key == "other" else "team"}"\n{QUICK}{agent}'
        for key, repo in zip(keys, repos, strict=True)
    ]
    first, second = place.submit("".join(wanted[:2]))
    for name in ("one", "two"):
        place.worker(name)
    gates.wait("first", "second")
    assert len({place.goal(name)["worker"] for name in (first, second)}) == 2
    third, other = place.submit("".join(wanted[2:]))
    for key in keys[2:]:
        gates.let_go(key)
    gates.let_go("first")
    wait_until(lambda: place.goal(first)["state"] == "rate_limited", "the first is parked")
    # On the other machine: the turn under way ends, and no other begins.
    gates.let_go("second")
    wait_until(lambda: place.goal(second)["state"] == "rate_limited", "the second is parked")
    assert place.wait(other)[0]["state"] == "achieved"
    rows = place.wait(first, second, third)
    assert [row["state"] for row in rows] == ["achieved"] * 3
    reset = float((gates.folder / "reset").read_text("utf-8"))
    turns: list[Any] = [json.loads(line) for line in (gates.folder / "turns").read_text("utf-8").splitlines()]
    before = [key for key, at in turns if at < reset]
    assert sorted(before) == ["other", "second"], turns
    # What the second had done in its turn is not done again.
    assert sum(key == "second" for key, _ in turns) == rows[1]["turns"] == 2
