"""Agents through the command line: a user's own, limits, waiting, spend, what is shown."""

import json
import shlex
from pathlib import Path

import pytest
from support import CHECK, GOOD_WORKER, Program, finish, running, script, wait_until, write

READ = """
[agents.{name}.find]
text = "$.text"
session = "$.session"
model = "$.model"
input_tokens = "+$.usage.in"
output_tokens = "+$.usage.out"
usd = "$.usd"
limited = "$.status=429"
reset = "$.reset"
failed = "$.failed"
"""


def agent(program: Program, name: str, body: str, **more: str) -> None:
    """An agent of the user's own, that prints JSON."""
    path = script(program.home.parent / f"{name}.sh", body)
    extra = "".join(f"{key} = {value}\n" for key, value in more.items())
    command = json.dumps(["bash", shlex.split(path)[-1]])
    text = f'[agents.{name}]\ncommand = {command}\nreads = "find"\n{extra}{READ.format(name=name)}'
    file = program.home.parent / "config/goalrun/config.toml"
    before = file.read_text() if file.exists() else ""
    write(file.parent, {file.name: before + text})


def start(*arguments: str, check: str = CHECK) -> list[str]:
    return ["start", "make tests pass", "-c", check, "-j", "none", "--json", *arguments]


SPENT = 'echo \'{"text": "done", "model": "m-1", "session": "s-1", "usage": {"in": 90, "out": 10}}\''


def test_what_an_agent_says_is_in_the_result(program: Program) -> None:
    agent(program, "mine", f"{GOOD_WORKER}; {SPENT}; {SPENT}")
    done = program.run(*start("-w", "mine"))
    assert (done.code, done.json["state"]) == (0, "achieved")
    worker = done.json["turn_records"][0]["worker"]
    assert (worker["agent"], worker["model"], worker["session"]) == ("mine", "m-1", "s-1")
    assert (worker["usage"]["input_tokens"], worker["usage"]["output_tokens"]) == (180, 20)
    assert worker["usage"]["usd"] is None, "a model without a price costs an unknown amount"
    assert "model m-1" in program.run("show").out


def test_one_that_is_installed_stands_in_for_one_that_is_not(program: Program) -> None:
    agent(program, "mine", GOOD_WORKER)
    gone = '[agents.gone]\ncommand = ["no-such-program"]\njudge = ["no-such-program"]\n'
    write(program.cwd, {"goalrun.toml": gone})
    done = program.run(*start("-w", "gone,mine"))
    assert (done.code, done.json["turn_records"][0]["worker"]["agent"]) == (0, "mine")
    assert "gone is not installed" in done.err
    assert "no-such-program is not on PATH" in program.run(*start("-w", "gone")).err
    assert "unknown agent 'nobody'" in program.run(*start("-w", "mine,nobody")).err


def test_a_limit_without_waiting_is_10_and_costs_no_turn(program: Program) -> None:
    agent(program, "mine", 'echo \'{"status": 429, "reset": 4102444800}\'; exit 1')
    done = program.run(*start("-w", "mine", "--no-wait-quota"))
    assert (done.code, done.json["state"], done.json["turns"]) == (10, "rate_limited", 0)
    assert "asked again at 2100-01-01" in done.json["detail"]


def test_a_limit_is_waited_for_seen_and_can_be_stopped(program: Program) -> None:
    agent(program, "mine", 'echo \'{"status": 429, "reset": 4102444800}\'; exit 1')
    process = program.spawn(*start("-w", "mine"))
    wait_until(lambda: [goal for goal in program.goals() if goal["state"] == "rate_limited"], "the goal waits")
    (goal,) = program.goals()
    assert goal["pid"] == process.pid
    assert program.run("stop").code == 0
    done = finish(process)
    assert (done.code, done.json["state"]) == (7, "stopped")


def test_a_goal_that_dies_while_it_waits_for_a_limit_is_interrupted_and_one_that_ended_at_it_is_not(
    program: Program,
) -> None:
    agent(program, "mine", 'echo \'{"status": 429, "reset": 4102444800}\'; exit 1')
    process = program.spawn(*start("-w", "mine"))
    wait_until(lambda: [goal for goal in program.goals() if goal["state"] == "rate_limited"], "the goal waits")
    process.kill()
    process.communicate()
    assert program.goals()[0]["state"] == "interrupted"
    assert program.run("pause").out.startswith("paused")
    assert program.run("resume", "--all").err == "no goal is interrupted\n"
    program.run(*start("-w", "mine", "--no-wait-quota"))
    assert program.goals()[0]["state"] == "rate_limited"


def test_another_agent_stands_in(program: Program) -> None:
    agent(program, "mine", 'echo \'{"status": 429, "reset": 4102444800}\'; exit 1')
    agent(program, "other", f"{GOOD_WORKER}; {SPENT}")
    done = program.run(*start("-w", "mine,other"))
    assert (done.code, done.json["turns"]) == (0, 1)
    assert done.json["turn_records"][0]["worker"]["agent"] == "other"
    assert "worker mine, else other" in done.err


def test_a_wait_for_something_outside_burns_no_turn(program: Program, tmp_path: Path) -> None:
    flag = tmp_path / "deployed"
    wait = f"echo GOALRUN WAIT: test -e {flag}"
    body = f"if test -e asked; then {GOOD_WORKER}; rm asked; else touch asked; {wait}; fi"
    process = program.spawn("start", "x", "--worker-cmd", body, "-c", CHECK, "--max-turns", "1", "--json")
    wait_until(lambda: "waits for" in (program.goals() or [{"detail": ""}])[0]["detail"], "the worker waits")
    flag.touch()
    done = finish(process)
    assert (done.code, done.json["state"], done.json["turns"]) == (0, "achieved", 1)


def test_a_spend_limit_ends_the_goal_and_can_be_raised(program: Program) -> None:
    agent(program, "mine", 'date +%N > moving; echo \'{"usage": {"in": 90, "out": 10}, "usd": 0.5}\'')
    done = program.run(*start("-w", "mine", "--max-usd", "1.2", "--stuck-after", "0", check="false"))
    assert (done.code, done.json["state"], done.json["turns"]) == (4, "budget_exceeded", 3)
    assert done.json["usage"]["usd"] == pytest.approx(1.5)
    again = program.run("resume", "--max-usd", "+1", "--json")
    assert (again.code, again.json["turns"]) == (4, 5)


def test_an_unknown_agent_reader_or_path_is_refused_before_anything_is_spent(program: Program) -> None:
    config = program.home.parent / "config/goalrun/config.toml"
    step = '[[step]]\nid = "a"\nagent = "mine"\nprompt = "x"\n'
    flow = write(program.home.parent, {"one.toml": step}) / "one.toml"
    for text, words in (
        ('reads = "claud"', ["nobody knows", "claude"]),
        ('reads = "find"\nfind = { txt = "$.a" }', ["txt"]),
        ('reads = "find"\nfind = { text = "(" }', ["text"]),
    ):
        write(config.parent, {config.name: f'[agents.mine]\ncommand = ["true"]\n{text}\n'})
        flow = (
            write(program.home.parent, {"one.toml": '[[step]]\nid = "a"\nagent = "mine"\nprompt = "x"\n'}) / "one.toml"
        )
        for asked in (start("-w", "mine"), ("flow", "run", str(flow)), ("agents", "test", "mine")):
            done = program.run(*asked)
            assert done.code == 2, done.err
            assert all(word in done.err for word in words), done.err
        assert "mine" in program.run("agents").out
    assert program.goals() == []


def test_the_list_of_agents_says_what_is_there(program: Program) -> None:
    agent(program, "mine", SPENT)
    found = {each["name"]: each for each in program.run("agents", "--json").json["agents"]}
    assert found["mine"]["program"].endswith("bash")
    assert set(found["mine"]["reports"]) == {"tokens", "cost", "session", "quota"}
    assert found["claude"]["command"][0] == "claude"
    assert "mine" in program.run("agents").out


def test_a_trial_of_an_agent_says_what_works(program: Program) -> None:
    agent(program, "mine", f"echo done > goalrun-was-here.txt; {SPENT}")
    done = program.run("agents", "test", "mine", "--json")
    assert done.code == 0, done.err
    assert (done.json["edit"], done.json["usage"], done.json["session"]) == ("works", "100 tokens", "s-1")
    agent(program, "idle", SPENT)
    assert program.run("agents", "test", "idle").code == 11
    assert program.run("agents", "test", "nobody").code == 2
    assert running("goalrun-was-here") == []
