"""Two commands at once: exactly one wins, and the loser says why. Each race is held at a named point, never timed."""

import json
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from locks.shims import NEEDS_LINUX, REST, held_at
from support import GOOD_WORKER, Program, finish, script, wait_until

from goalrun.adapters.home import MARKER, REMOVED
from goalrun.adapters.journal import records
from goalrun.adapters.views import JOURNAL

pytestmark = NEEDS_LINUX
JUDGE = """import json, os, sys
sys.stdin.read()
print(json.dumps({"nonce": os.environ["GOALRUN_NONCE"], "achieved": True, "reason": "fine"}))
"""
STEPS = [
    ("runner locked", "stop"),
    ("lock held", "pause"),
    ("journal turn_started durable", "stop"),
    ("journal worker_ended durable", "pause"),
]
OTHER_STEPS = [
    (point, verb)
    for point in (
        "runner locked", "lock choosing", "lock claimed", "lock held", "journal run_started before",
        "journal run_started durable", "journal base_taken durable", "journal base_verified before",
        "journal base_verified durable", "journal turn_started before", "journal turn_started durable",
        "journal worker_ended before", "journal worker_ended durable", "journal worker_finished durable",
    )
    for verb in ("stop", "pause")
    if (point, verb) not in STEPS
]  # fmt: skip
"""Where a run is when it is asked; those that are left out by default differ only in the place."""


def kinds(program: Program, goal: str) -> list[str]:
    """The journal's records, by kind; reading them checks the chain of digests."""
    return [record.event.kind for record in records(program.home / "goals" / goal / JOURNAL)]


def only_goal(program: Program) -> dict[str, Any]:
    (goal,) = program.goals()
    return goal


def asked(program: Program, verb: str) -> Callable[[], bool]:
    """Whether a request lies there for the only goal."""
    return lambda: any((program.home / "goals").glob(f"*/control/{verb}"))


def interrupted_goal(program: Program, *options: str, worker: str = GOOD_WORKER) -> str:
    """A goal whose process died as it began: nothing of it has run."""
    with held_at(program, "journal run_started durable", *begin(worker, *options)) as run:
        run.process.kill()
        run.process.communicate()
    goal = only_goal(program)
    assert goal["state"] == "interrupted"
    return str(goal["id"])


def begin(worker: str, *options: str, check: str = "grep -q discount.*100 shop.py") -> tuple[str, ...]:
    return ("start", "make tests pass", "--worker-cmd", worker, "-c", check, "--no-baseline", *options)


# Asking of a run at each of its steps


@pytest.mark.parametrize(("point", "verb"), [*STEPS, *(pytest.param(*each, marks=REST) for each in OTHER_STEPS)])
def test_what_is_asked_of_a_run_counts_at_every_step(point: str, verb: str, program: Program, tmp_path: Path) -> None:
    """Wherever the run is when it is asked, it ends as asked, and one that is resumed goes on and achieves."""
    runs = tmp_path / "runs"
    code, state = (7, "stopped") if verb == "stop" else (130, "paused")
    gate = tmp_path / "gate"
    held = f"until test -e {gate}; do sleep 0.1; done"
    goal = interrupted_goal(program, worker=f"{held}; echo x >> {runs}; {GOOD_WORKER}")
    # At the first point there is nobody to ask yet: it is asked as soon as there is, which the worker waits for.
    if point != "runner locked":
        gate.touch()
    with held_at(program, point, "resume", goal) as run:
        asking = program.spawn(verb, goal)
        if point != "runner locked":
            wait_until(asked(program, verb), "it was asked")
        done = run.finish()
        said = finish(asking)
    gate.touch()
    assert (done.code, said.code, said.out) == (code, 0, f"{state}  {goal}\n"), (done, said)
    assert kinds(program, goal).count("goal_stopped") == 1
    resumed = program.run("resume", goal, "--json")
    assert (resumed.code, resumed.json["turns"]) == (0, 1), resumed.err
    worker_ran = kinds(program, goal).count("worker_ended")
    assert (worker_ran, runs.read_text("ascii")) == (1, "x\n")


@pytest.mark.parametrize("point", ["journal judgement_finished durable", "journal turn_finished before"])
def test_a_goal_that_is_achieved_first_wins_and_stop_says_so(point: str, program: Program, tmp_path: Path) -> None:
    judge = script(tmp_path / "judge.py", JUDGE)
    with held_at(program, point, *begin(GOOD_WORKER, "--judge-cmd", judge)) as run:
        asking = program.spawn("stop")
        wait_until(asked(program, "stop"), "it was asked")
        done, said = run.finish(), finish(asking)
    assert (done.code, only_goal(program)["state"]) == (0, "achieved")
    assert said.code == 2
    assert "was achieved before it could stop" in said.err


def test_a_goal_that_is_achieved_while_its_run_still_ends_cannot_be_stopped(program: Program) -> None:
    with held_at(program, "journal turn_finished durable", *begin(GOOD_WORKER)) as run:
        said = program.run("stop")
        assert (said.code, "is achieved; there is nothing to stop" in said.err) == (2, True)
        assert run.finish().code == 0


@pytest.mark.parametrize(
    ("role", "verb"),
    [("base", "stop"), ("judge", "pause"),
     *(pytest.param(*each, marks=REST) for each in [("base", "pause"), ("check", "stop"), ("check", "pause"),
                                                    ("judge", "stop")])],
)  # fmt: skip
def test_what_is_asked_while_a_check_or_a_judge_runs_ends_it(
    role: str, verb: str, program: Program, tmp_path: Path
) -> None:
    begun, gate, runs = tmp_path / "begun", tmp_path / "gate", tmp_path / "runs"
    block = f"touch {begun}; while ! test -e {gate}; do sleep 0.02; done"
    judge = script(tmp_path / "judge.py", JUDGE)
    check = {"base": f"{block}; test -e w", "check": f"test -e w || exit 1; {block}", "judge": "test -e w"}[role]
    if role == "judge":
        judge = f"{block}; {judge}"
    run = program.spawn(*begin(f"echo x >> {runs}; touch w", "--judge-cmd", judge, "--sandbox", "process", check=check))
    wait_until(begun.exists, "it began")
    said = program.run(verb)
    assert (said.code, finish(run).code) == (0, 7 if verb == "stop" else 130)
    gate.touch()
    resumed = program.run("resume", "--json")
    assert (resumed.code, resumed.json["turns"], runs.read_text("ascii")) == (0, 1, "x\n"), resumed.err


@pytest.mark.parametrize("verb", ["stop", "pause"])
def test_a_goal_that_is_resumed_and_queues_is_running_and_can_be_ended(verb: str, program: Program) -> None:
    """Its journal says `stopped` all the while, and so does not what is shown."""
    goal = interrupted_goal(program)
    assert program.run("stop", goal).code == 0
    with held_at(program, "lock held", *begin("true")) as other:
        queued = program.spawn("resume", goal)
        wait_until(lambda: "queued: " in program.run("status", goal).out, "it queues")
        assert program.run("status", goal, "--json").json["state"] == "running"
        again = program.run("resume", goal)
        assert (again.code, "is running already" in again.err) == (8, True)
        said = program.run(verb, goal)
        state, code = ("stopped", 7) if verb == "stop" else ("paused", 130)
        assert (said.out, finish(queued).code) == (f"{state}  {goal}\n", code)
        other.process.kill()


def test_a_request_that_nobody_waits_for_is_not_dropped_by_the_run_that_it_was_meant_for(program: Program) -> None:
    """A `step` returns at once; the run is held where it has just shown who runs the goal."""
    goal = interrupted_goal(program, worker="date +%N > n.txt")
    with held_at(program, "lock choosing", "resume", goal) as run:
        assert "pauses after this turn" in program.run("step", goal).err
        done = run.finish()
    assert (done.code, only_goal(program)["state"], only_goal(program)["turns"]) == (130, "paused", 1)


def test_requests_to_an_earlier_run_are_not_for_the_next(program: Program) -> None:
    goal = interrupted_goal(program)
    control = program.home / "goals" / goal / "control"
    for verb in ("stop", "pause", "step"):
        (control / verb).touch()
    assert program.run("resume", goal).code == 0


def test_two_stops_both_say_that_it_is_done(program: Program) -> None:
    goal = interrupted_goal(program)
    with held_at(program, "lock held", "resume", goal) as run:
        stops = [program.spawn("stop", goal) for _ in range(2)]
        wait_until(asked(program, "stop"), "it was asked")
        assert run.finish().code == 7
        ends = [finish(stop) for stop in stops]
    assert [(end.code, end.out) for end in ends] == [(0, f"stopped  {goal}\n")] * 2
    assert kinds(program, goal).count("goal_stopped") == 1


# Two that want to run it


SECONDS = [("resume",), ("resume", "-d"), ("step",), ("restore", "--turn", "0")]


@pytest.mark.parametrize(
    ("point", "command"),
    [("runner locked", SECONDS[0]), ("lock held", SECONDS[1]), ("journal turn_started durable", SECONDS[3]),
     *(pytest.param(point, command, marks=REST)
       for point in ("runner locked", "lock held", "journal turn_started durable") for command in SECONDS)],
)  # fmt: skip
def test_the_second_that_wants_the_goal_is_told_who_has_it(
    point: str, command: tuple[str, ...], program: Program
) -> None:
    """The goal has one turn behind it, so that there is something to restore."""
    assert program.run(*begin("date +%N > n.txt", "--max-turns", "1", check="false")).code == 3
    goal = str(only_goal(program)["id"])
    limit = ("--max-turns", "2") if command[0] == "resume" else ()
    with held_at(program, point, "resume", goal, "--max-turns", "2") as run:
        loser = program.run(command[0], goal, *command[1:], *limit)
        if command[0] == "step" and point != "runner locked":
            assert (loser.code, "pauses after this turn" in loser.err) == (0, True)
        elif command[0] == "step":
            # It has no limit to raise with, and this goal's is used up.
            assert (loser.code, "--max-turns" in loser.err) == (2, True)
        else:
            told = "in the hands of another command" if point == "runner locked" else "is running already"
            assert (loser.code, told in loser.err) == (8, True), loser
        assert run.finish().code in {3, 130}
    assert kinds(program, goal).count("run_started") == 2


def test_a_resume_that_comes_when_the_goal_is_achieved_does_nothing(program: Program) -> None:
    """It had looked at the goal before that, at its journal; the winner ran meanwhile."""
    goal = interrupted_goal(program)
    with held_at(program, "fcntl.flock", "resume", goal) as late:
        assert program.run("resume", goal).code == 0
        loser = late.finish()
    assert (loser.code, "is achieved; there is nothing to resume" in loser.err) == (2, True), loser
    assert kinds(program, goal).count("run_started") == 2


def test_a_start_that_lost_its_goal_to_a_resume_leaves_it_alone(program: Program) -> None:
    """The goal can be seen before `start` has taken it up; somebody's `resume` is faster."""
    with held_at(program, "goal made", *begin("true", check="false")) as start:
        goal = only_goal(program)["id"]
        with held_at(program, "lock held", "resume", goal, "--max-turns", "1") as resumed:
            lost = start.finish()
            assert (lost.code, f"goal {goal} is running already" in lost.err) == (8, True), lost
            assert resumed.finish().code == 3
    assert only_goal(program)["turns"] == 1


# Hints


def test_a_hint_is_taken_in_every_state_but_achieved(program: Program, tmp_path: Path) -> None:
    prompts = tmp_path / "prompts"
    worker = f"cat > {prompts}; {GOOD_WORKER}"
    texts: list[str] = []

    def hint(text: str) -> None:
        done = program.run("hint", goal, text)
        assert (done.code, "the next turn will read it" in done.err) == (0, True), done
        texts.append(text)

    goal = interrupted_goal(program, worker=worker)
    hint("while interrupted")
    assert program.run("stop", goal).code == 0
    hint("while stopped")
    for point in ("runner locked", "journal base_verified durable"):
        with held_at(program, point, "resume", goal) as run:
            hint(f"at {point}")
            run.process.kill()
            run.process.communicate()
    assert program.run("pause", goal).code == 0
    hint("while paused")
    assert program.run("resume", goal, "--hint", "with resume").code == 0
    told = prompts.read_text("utf-8")
    places = [told.index(text) for text in [*texts, "with resume"]]
    assert places == sorted(places)
    refused = program.run("hint", goal, "too late")
    assert (refused.code, "is achieved; nobody would read the hint" in refused.err) == (2, True)


# clean


def achieved_goal(program: Program) -> str:
    assert program.run(*begin(GOOD_WORKER, "--force")).code == 0
    return str(only_goal(program)["id"])


def test_clean_leaves_what_runs_alone_and_a_dry_run_removes_nothing(program: Program) -> None:
    goal = interrupted_goal(program)
    with held_at(program, "journal turn_started durable", "resume", goal) as run:
        assert program.run("clean", "--json").json["removed"] == []
        assert run.finish().code == 0
    dry = program.run("clean", "--dry-run", "--json").json
    assert (dry["removed"], dry["dry_run"]) == ([goal], True)
    assert only_goal(program)["id"] == goal
    assert program.run("clean", "--json").json["removed"] == [goal]
    assert program.goals() == []


def test_clean_keeps_a_goal_whose_run_is_about_to_end_and_says_so(program: Program) -> None:
    goal = interrupted_goal(program)
    with held_at(program, "journal turn_finished durable", "resume", goal, "--json") as run:
        assert only_goal(program)["state"] == "achieved"
        cleaned = program.run("clean", "--json")
        assert (cleaned.json["removed"], cleaned.json["kept"]) == ([], 1)
        assert f"{goal} is kept: another command has it in its hands" in cleaned.err
        done = run.finish()
    assert (done.code, done.json["state"]) == (0, "achieved")


def test_clean_keeps_a_goal_that_is_being_restored(program: Program) -> None:
    goal = achieved_goal(program)
    with held_at(program, "lock held", "restore", goal, "--turn", "1") as restore:
        assert program.run("clean", "--json").json["removed"] == []
        assert restore.finish().code == 0
    assert program.run("clean", "--json").json["removed"] == [goal]


@pytest.mark.parametrize(
    "command", [("restore", "--turn", "1"), *(pytest.param((name,), marks=REST) for name in ("show", "stop"))]
)
def test_what_is_asked_of_a_goal_that_clean_is_removing(command: tuple[str, ...], program: Program) -> None:
    goal = achieved_goal(program)
    with held_at(program, "goal removed", "clean", "--json") as clean:
        late = program.run(command[0], goal, *command[1:])
        assert late.code == 2, late
        assert f"there is no goal '{goal}'" in late.err
        assert program.goals() == []
        assert clean.finish().json["removed"] == [goal]
    assert sorted(path.name for path in (program.home / "goals").iterdir()) == []


@pytest.mark.parametrize("command", [("show",), ("restore", "--turn", "1")])
def test_a_command_whose_goal_is_removed_under_it_says_so(command: tuple[str, ...], program: Program) -> None:
    """It has found the goal, and is held; opening the journal is the event that it is held at."""
    goal = achieved_goal(program)
    point = "sqlite3.connect"
    with held_at(program, point, command[0], goal, *command[1:]) as late:
        assert program.run("clean").code == 0
        said = late.finish()
    assert (said.code, f"goal {goal} was removed" in said.err) == (2, True), said


def test_a_removal_that_was_cut_is_finished_by_the_next(program: Program) -> None:
    goal = achieved_goal(program)
    with held_at(program, "goal removed", "clean") as clean:
        clean.process.kill()
        clean.process.communicate()
    assert (program.home / "goals" / f"{REMOVED}{goal}").exists()
    assert program.goals() == []
    assert program.run("clean").code == 0
    assert list((program.home / "goals").iterdir()) == []


# Another format of the state


def test_a_state_folder_that_a_newer_goalrun_upgraded_is_left_alone_and_a_run_ends_well(program: Program) -> None:
    goal = interrupted_goal(program)
    with held_at(program, "journal turn_started durable", "resume", goal) as run:
        (program.home / MARKER).write_text("2\n", "ascii")
        before = (program.home / "goals" / goal / JOURNAL).stat()
        for command in (("status", goal), ("list",), ("show", goal), ("logs", goal), ("stop", goal), ("resume", goal),
                        ("hint", goal, "x"), ("clean",), ("resume", "--all"), ("diff", goal)):  # fmt: skip
            refused = program.run(*command)
            assert refused.code == 2, (command, refused)
            assert "was made by a newer goalrun (format '2')" in refused.err
        assert (program.home / "goals" / goal / JOURNAL).stat() == before
        assert list((program.home / "goals" / goal / "control").iterdir()) == []
        assert run.finish().code == 0


def test_a_journal_that_a_newer_goalrun_upgraded_under_a_run_is_not_added_to(program: Program) -> None:
    goal = interrupted_goal(program)
    path = program.home / "goals" / goal / JOURNAL
    with held_at(program, "journal worker_ended before", "resume", goal) as run:
        count = len(kinds(program, goal))
        db = sqlite3.connect(path)
        db.execute("PRAGMA user_version = 2")
        db.close()
        done = run.finish()
    assert done.code == 2
    complaint = [line for line in done.err.splitlines() if line.startswith("goalrun: ")]
    assert len(complaint) == 1
    assert "was written by a newer goalrun (format 2" in complaint[0]
    assert program.run("resume", goal).code == 2
    db = sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)
    assert db.execute("SELECT count(*) FROM record").fetchone()[0] == count
    db.close()
    assert json.dumps(program.goals()[0]["unreadable"]) == "true"
