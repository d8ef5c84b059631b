"""Every state of a goal is reached by its exit code, and `resume` goes on from each."""

import os
import pty
import shlex
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from support import GOOD_WORKER, PYTHON, Program, finish, script, wait_until

JUDGE_HEAD = "import json, os, sys\nbrief = sys.stdin.read()\nnonce = os.environ['GOALRUN_NONCE']\n"
MOVING = "date +%N > note.txt"


def judge(path: Path, body: str) -> str:
    return script(path, JUDGE_HEAD + body)


def answer(achieved: str, reason: str = "because", blocked: str = "False") -> str:
    return (
        f"print(json.dumps({{'nonce': nonce, 'achieved': {achieved}, 'blocked': {blocked}, 'reason': {reason!r}}}))\n"
    )


def test_max_turns_is_3_and_raising_it_goes_on(program: Program) -> None:
    done = program.start("--max-turns", "2", "--stuck-after", "0", "--json", worker=MOVING, check="test -e done.txt")
    assert (done.code, done.json["state"], done.json["turns"]) == (3, "max_turns", 2)
    again = program.run("resume", "--json")
    assert again.code == 2
    assert "--max-turns" in again.err
    more = program.run("resume", "--max-turns", "+1", "--hint", "look at the roof", "--json")
    assert (more.code, more.json["turns"], more.json["limits"]["max_turns"]) == (3, 3, 3)
    assert more.json["turn_records"][:2] == done.json["turn_records"]
    assert more.json["usage"]["seconds"] > done.json["usage"]["seconds"]


def test_a_limit_with_unknown_spend_is_4(program: Program) -> None:
    done = program.start("--max-tokens", "1000", "--json", worker=MOVING, check="false")
    assert (done.code, done.json["state"], done.json["turns"]) == (4, "budget_exceeded", 1)
    assert done.json["usage"]["total_tokens"] is None
    assert "not all tokens were reported" in done.json["detail"]


def test_the_time_limit_is_4_and_ends_the_worker(program: Program) -> None:
    done = program.start("--max-time", "5s", "--json", worker="sleep 1000", check="false")
    assert (done.code, done.json["state"]) == (4, "budget_exceeded")
    assert done.json["turn_records"][0]["worker"]["outcome"] == "timeout"
    assert done.json["turn_records"][0]["worker"]["seconds"] < 20
    resumed = program.run("resume", "--max-time", "+1h", "--max-turns", "2", "--turn-timeout", "1", "--json")
    assert (resumed.code, resumed.json["turns"]) == (3, 2)


def test_stuck_is_5_and_the_worker_was_told_before(program: Program, tmp_path: Path) -> None:
    prompts = tmp_path / "prompts"
    prompts.mkdir()
    done = program.start("--json", worker=f"cat > {prompts}/$GOALRUN_TURN", check="false")
    assert (done.code, done.json["state"], done.json["turns"]) == (5, "stuck", 3)
    assert "You are repeating yourself" in (prompts / "3").read_text()
    assert "You are repeating yourself" not in (prompts / "1").read_text()
    resumed = program.run("resume", "--hint", "try the other door", "--json")
    assert (resumed.code, resumed.json["turns"]) == (5, 6)
    assert "try the other door" in (prompts / "4").read_text()
    assert "try the other door" not in (prompts / "5").read_text()


def test_going_round_is_5(program: Program) -> None:
    worker = "if [ $((GOALRUN_TURN % 2)) = 1 ]; then echo a > n.txt; else echo b > n.txt; fi"
    done = program.start("--json", "--stuck-after", "9", worker=worker, check="date +%N; false")
    assert (done.code, done.json["turns"]) == (5, 4)
    assert "A → B → A" in done.json["detail"]


def test_blocked_by_the_worker_is_6(program: Program) -> None:
    done = program.start("--json", worker="echo some text; echo the key is missing; exit 75", check="false")
    assert (done.code, done.json["state"]) == (6, "blocked")
    assert "the key is missing" in done.json["detail"]
    assert done.json["turn_records"][0]["worker"]["outcome"] == "blocked"
    resumed = program.run("resume", "--json")
    assert (resumed.code, resumed.json["turns"]) == (6, 2)


def test_blocked_by_the_judge_is_6(program: Program, tmp_path: Path) -> None:
    says = judge(tmp_path / "judge.py", answer("False", "no network here", "True"))
    done = program.start("--judge-cmd", says, "--json", worker=GOOD_WORKER)
    assert (done.code, done.json["state"]) == (6, "blocked")
    assert done.json["verdict"] == {"achieved": False, "reason": "no network here"}


def test_a_judge_vetoes_green_checks_and_its_reason_is_fed_back(program: Program, tmp_path: Path) -> None:
    prompts, briefs = tmp_path / "prompts", tmp_path / "briefs"
    prompts.mkdir()
    says = judge(
        tmp_path / "judge.py",
        f"open({str(briefs)!r}, 'a').write(brief)\nok = 'extra.txt' in brief\n" + answer("ok", "the roof is missing"),
    )
    worker = f"cat > {prompts}/$GOALRUN_TURN; {GOOD_WORKER}; if [ $GOALRUN_TURN = 2 ]; then echo y > extra.txt; fi"
    done = program.start("--judge-cmd", says, "--json", worker=worker)
    assert (done.code, done.json["turns"]) == (0, 2)
    assert "the roof is missing" in (prompts / "2").read_text()
    assert done.json["turn_records"][0]["judgement"]["achieved"] is False
    assert "total(prices" in briefs.read_text()


def test_a_judge_is_not_asked_about_red_checks(program: Program, tmp_path: Path) -> None:
    asked = tmp_path / "asked"
    says = judge(tmp_path / "judge.py", f"open({str(asked)!r}, 'a').write('x')\n" + answer("True"))
    done = program.start("--judge-cmd", says, "--max-turns", "2", worker=MOVING, check="false")
    assert done.code == 3
    assert not asked.exists()


def test_a_judge_that_cannot_be_read_is_11_and_resume_asks_it_again(program: Program, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    says = judge(tmp_path / "judge.py", "print('Sure! ', json.dumps({'nonce': nonce, 'achieved': True, 'reason': ''}))")
    done = program.start("--judge-cmd", says, "--json", worker=f"echo x >> {runs}; {GOOD_WORKER}")
    assert (done.code, done.json["state"], done.json["turns"]) == (11, "error", 0)
    assert "judge" in done.json["detail"]
    judge(tmp_path / "judge.py", answer("True"))
    resumed = program.run("resume", "--json")
    assert (resumed.code, resumed.json["turns"]) == (0, 1)
    assert runs.read_text() == "x\n"


def test_judge_only_goals_have_no_checks(program: Program, tmp_path: Path) -> None:
    says = judge(tmp_path / "judge.py", answer("'+hello' in brief", "no greeting"))
    done = program.run(
        "start", "greet", "--worker-cmd", "if [ $GOALRUN_TURN = 2 ]; then echo hello > hi.txt; fi", "--judge-cmd", says,
        "--judge-only", "--json",
    )  # fmt: skip
    assert (done.code, done.json["turns"]) == (0, 2)
    assert "no checks; judge command agrees" in done.json["detail"]


def test_a_worker_that_is_not_there_is_11_without_using_a_turn(program: Program) -> None:
    done = program.start("--json", worker="no-such-agent --go", check="false")
    assert (done.code, done.json["state"], done.json["turns"]) == (11, "error", 0)
    assert "no-such-agent" in done.json["detail"]
    assert program.run("resume", "--json").code == 11


def test_a_worker_that_fails_after_editing_has_had_its_turn(program: Program) -> None:
    done = program.start("--json", worker=f"{GOOD_WORKER}; exit 3")
    assert (done.code, done.json["turns"]) == (0, 1)
    assert done.json["turn_records"][0]["worker"]["outcome"] == "failed"
    assert done.json["turn_records"][0]["worker"]["exit_code"] == 3


def test_stopped_is_7_and_can_be_resumed(program: Program, tmp_path: Path) -> None:
    begun = tmp_path / "begun"
    process = program.spawn(
        "start", "x", "--worker-cmd", f"touch {begun}; sleep 1000", "-c", "test -e done.txt", "--json",
        "--turn-timeout", "1000",
    )  # fmt: skip
    wait_until(begun.exists, "the worker began")
    assert program.run("stop").code == 0
    assert finish(process).code == 7
    assert program.run("status", "--json").json["state"] == "stopped"
    (program.cwd / "done.txt").touch()
    resumed = program.run("resume", "--turn-timeout", "1", "--json")
    assert (resumed.code, resumed.json["turns"]) == (0, 1)


def test_pause_is_130_and_stop_turns_a_paused_goal_into_a_stopped_one(program: Program, tmp_path: Path) -> None:
    begun = tmp_path / "begun"
    process = program.spawn("start", "x", "--worker-cmd", f"touch {begun}; sleep 1000", "-c", "false", "--json")
    wait_until(begun.exists, "the worker began")
    assert program.run("pause", "--json").json["state"] == "paused"
    assert finish(process).code == 130
    assert program.run("pause").code == 0
    assert program.run("stop", "--json").json["state"] == "stopped"


def test_pausing_during_a_check_resumes_at_the_check(program: Program, tmp_path: Path) -> None:
    begun, gate, runs = tmp_path / "begun", tmp_path / "gate", tmp_path / "runs"
    check = f"test -e w.txt || exit 1; touch {begun}; while [ ! -e {gate} ]; do sleep 0.02; done"
    worker = f"echo x >> {runs}; touch w.txt"
    process = program.spawn("start", "x", "--worker-cmd", worker, "-c", check, "--json", "--sandbox", "process")
    wait_until(begun.exists, "the check began")
    assert program.run("pause").code == 0
    assert finish(process).code == 130
    gate.touch()
    resumed = program.run("resume", "--json")
    assert (resumed.code, resumed.json["turns"]) == (0, 1)
    assert runs.read_text() == "x\n"


def test_step_runs_one_turn_and_pauses(program: Program) -> None:
    program.environment = {}
    first = program.start("--max-turns", "1", "--json", worker=MOVING, check="test -e done.txt")
    assert first.code == 3
    program.run("resume", "--max-turns", "+5", "--json")
    goal = program.goals()[0]
    stepped = program.run("step", goal["id"], "--json")
    assert (stepped.code, stepped.json["state"]) in [(130, "paused"), (5, "stuck")]
    assert stepped.json["turns"] == goal["turns"] + 1


def test_step_on_a_running_goal_pauses_it_after_its_turn(program: Program, tmp_path: Path) -> None:
    begun, gate = tmp_path / "begun", tmp_path / "gate"
    worker = f"touch {begun}; while [ ! -e {gate} ]; do sleep 0.02; done; {MOVING}"
    process = program.spawn("start", "x", "--worker-cmd", worker, "-c", "false", "--json")
    wait_until(begun.exists, "the worker began")
    assert program.run("step").code == 0
    gate.touch()
    done = finish(process)
    assert (done.code, done.json["state"], done.json["turns"]) == (130, "paused", 1)


def test_a_hint_reaches_the_next_turn_of_a_running_goal(program: Program, tmp_path: Path) -> None:
    begun, gate, prompts = tmp_path / "begun", tmp_path / "gate", tmp_path / "prompts"
    prompts.mkdir()
    worker = f"cat > {prompts}/$GOALRUN_TURN; touch {begun}; while [ ! -e {gate} ]; do sleep 0.02; done; {MOVING}"
    process = program.spawn("start", "x", "--worker-cmd", worker, "-c", "false", "--max-turns", "2", "--json")
    wait_until(begun.exists, "the worker began")
    goal = program.goals()[0]["id"]
    assert program.run("hint", goal, "mind the gap").code == 0
    assert program.run("hint", "second hint").code == 0
    gate.touch()
    assert finish(process).code == 3
    assert "mind the gap" not in (prompts / "1").read_text()
    told = (prompts / "2").read_text()
    assert told.index("mind the gap") < told.index("second hint")


def test_a_detached_goal_runs_on_and_can_be_followed(program: Program, tmp_path: Path) -> None:
    begun, gate = tmp_path / "begun", tmp_path / "gate"
    worker = f"echo hello from the worker; touch {begun}; while [ ! -e {gate} ]; do sleep 0.02; done; {GOOD_WORKER}"
    started = program.start("--detach", "--json", worker=worker)
    assert started.code == 0
    assert started.json["state"] == "running"
    assert started.json["pid"] is not None
    wait_until(begun.exists, "the worker began")
    following = program.spawn("logs", "--follow", started.json["id"])
    assert program.run("status", "--json").json["pid"] == started.json["pid"]
    gate.touch()
    followed = finish(following)
    assert followed.code == 0
    assert "hello from the worker" in followed.out
    wait_until(lambda: program.run("status", "--json").json["state"] == "achieved", "it is achieved")
    plain = program.start("-d", worker="true", check="true")
    assert plain.out.strip() in {goal["id"] for goal in program.goals()}


def test_two_resumes_at_once_one_wins_and_the_other_says_why(program: Program, tmp_path: Path) -> None:
    begun = tmp_path / "begun"
    process = program.spawn("start", "x", "--worker-cmd", f"touch {begun}; sleep 1000", "-c", "false")
    wait_until(begun.exists, "the worker began")
    second = program.run("resume")
    assert second.code == 8
    assert "running already" in second.err
    process.send_signal(signal.SIGINT)
    assert finish(process).code == 130


def test_an_achieved_goal_cannot_be_resumed_or_stopped(program: Program) -> None:
    assert program.start(worker="true", check="true").code == 0
    for verb in ("resume", "step", "stop", "pause"):
        done = program.run(verb)
        assert done.code == 2, verb
        assert "achieved" in done.err


def test_restore_brings_the_best_turn_back_and_refuses_over_unsaved_work(program: Program, project: Path) -> None:
    worker = f"if [ $GOALRUN_TURN = 1 ]; then {GOOD_WORKER}; else echo broken > shop.py; fi"
    check = f"{PYTHON} -m unittest discover -s tests; test -e never.txt"
    done = program.start(
        "-c", "python3 -m unittest discover -s tests", "--max-turns", "2", "--json", worker=worker, check=check
    )
    assert (done.code, done.json["best_turn"]) == (3, 1)
    (project / "mine.txt").write_text("unsaved")
    refused = program.run("restore", "--turn", "best")
    assert refused.code == 2
    assert "no snapshot" in refused.err
    assert (project / "shop.py").read_text() == "broken\n"
    (project / "mine.txt").unlink()
    assert program.run("restore", "--turn", "best").code == 0
    assert "discount" in (project / "shop.py").read_text()
    assert program.run("restore", "--turn", "0").code == 0
    assert "100 - discount" not in (project / "shop.py").read_text()
    assert program.run("restore", "--turn", "7").code == 2


def test_diff_shows_the_goal_and_one_turn(program: Program) -> None:
    program.start("--max-turns", "2", worker="echo $GOALRUN_TURN >> n.txt", check="false")
    assert "+1\n+2\n" in program.run("diff").out
    assert "+2\n" in program.run("diff", "--turn", "2").out
    assert "+1\n" not in program.run("diff", "--turn", "2").out


def test_a_journal_of_a_newer_goalrun_is_left_alone(program: Program) -> None:
    program.start("--max-turns", "1", worker=MOVING, check="false")
    goal = program.goals()[0]["id"]
    path = program.home / "goals" / goal / "journal.db"
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 99")
    done = program.run("resume", goal, "--max-turns", "+1")
    assert done.code == 2
    assert "newer goalrun" in done.err
    listed = program.run("list", "--json")
    assert listed.code == 0
    assert listed.json["goals"][0]["unreadable"] is True


def test_start_in_a_terminal_proposes_checks_and_asks(program: Program) -> None:
    """A real terminal: the question is answered by a person who presses return twice."""
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "goalrun", "start", "x", "--worker-cmd", GOOD_WORKER],
        cwd=program.cwd, env=program.env(), stdin=slave, stdout=slave, stderr=slave, start_new_session=True,
    )  # fmt: skip
    os.close(slave)
    os.write(master, b"\n\n")
    said = b""
    try:
        while data := os.read(master, 4096):
            said += data
    except OSError:
        pass
    os.close(master)
    assert process.wait(timeout=60) == 0, said.decode()
    assert b"found here: " in said
    assert b"achieved" in said


@pytest.mark.parametrize("verb", ["show", "status", "logs", "diff"])
def test_reading_commands_speak_json(program: Program, verb: str) -> None:
    program.start("--max-turns", "1", worker=MOVING, check="false")
    done = program.run(verb, "--json")
    assert done.code == 0
    assert done.out.startswith("{")


def test_the_same_object_is_printed_everywhere(program: Program) -> None:
    started = program.start("--max-turns", "1", "--json", worker=MOVING, check="false").json
    assert program.run("show", "--json").json == started
    assert program.run("status", "--json").json == started
    assert program.goals() == [started]
    assert shlex.quote(started["id"]) == started["id"]


def test_a_detached_goal_that_may_not_wait_for_a_busy_workspace_leaves_nothing(
    program: Program, tmp_path: Path
) -> None:
    begun = tmp_path / "begun"
    first = program.spawn("start", "x", "--worker-cmd", f"touch {begun}; sleep 1000", "-c", "false")
    wait_until(begun.exists, "the first worker began")
    second = program.start("-d", "--no-wait", worker="true", check="false")
    assert second.code == 8, second.err
    assert "busy" in second.err
    assert len(program.goals()) == 1
    assert program.run("stop").code == 0
    assert finish(first).code == 7
