"""Limits that end in the middle of a flow: nothing is started beyond them, and a resume pays for nothing twice."""

import json
from pathlib import Path

import pytest
from acting import Stage
from flows.share import ALL
from support import Program, write

MOST = 1_000 if ALL else 3
"""Calls of agents in one run; 1,000 are the most without being told otherwise."""


@pytest.fixture
def stage(program: Program, tmp_path: Path) -> Stage:
    return Stage.of(program, tmp_path)


def items(count: int, keys: str = "") -> str:
    each = json.dumps(list(range(count)))
    prompt = '"mark item-{item}\\nmark all\\nspend 10\\nsay {item}"'
    step = f'[[step]]\nid = "each"\neach = {each}\nagent = "counts"\nwrites = false\nprompt = {prompt}\n'
    return f"concurrency = 2\n{keys}{step}"


def test_one_agent_more_than_a_run_may_ask_is_refused_and_a_higher_cap_goes_on(stage: Stage) -> None:
    cap = "" if ALL else f"max_calls = {MOST}\n"
    first = stage.run(items(MOST + 1, cap))
    assert (first.code, first.json["state"]) == (11, "error"), first.err
    assert f"{MOST} calls of agents are the most in one run of this flow" in first.json["detail"]
    assert "goalrun resume --flow" in first.json["detail"]
    assert stage.marks("all") == MOST
    # The same cap is for the run as a whole, however often it is taken up.
    goal = first.json["id"]
    assert stage.program.run("resume", goal).code == 11
    assert stage.marks("all") == MOST
    stage.flow(items(MOST + 1, f"max_calls = {MOST + 1}\n"))
    done = stage.program.run("resume", goal, "--flow", "--json")
    assert (done.code, done.json["json"]) == (0, [str(number) for number in range(MOST + 1)]), done.err
    assert [stage.marks(f"item-{number}") for number in range(MOST + 1)] == [1] * (MOST + 1)
    assert done.json["usage"]["total_tokens"] == 10 * (MOST + 1)


FOUR = "".join(
    f'[[step]]\nid = "s{number}"\nagent = "counts"\nwrites = false\n'
    + (f'needs = ["s{number - 1}"]\n' if number else "")
    + f'prompt = "mark s{number}\\nspend 100\\n{{act}}say s{number}"\n'
    for number in range(4)
)


@pytest.mark.parametrize("alone", [True, False])
def test_a_limit_of_tokens_in_the_middle_of_a_flow_ends_it_and_a_higher_one_goes_on(
    *, alone: bool, stage: Stage
) -> None:
    flow = FOUR.replace("{act}", "")
    stage.flow(flow)
    words = ("flow", "run", "f") if alone else ("wrap", "f", "x", "-c", "test -e done.txt", "--max-turns", "9")
    first = stage.program.run(*words, "--max-tokens", "250", "--json")
    assert (first.code, first.json["state"]) == (4, "budget_exceeded"), first.err
    made = [stage.marks(f"s{number}") for number in range(4)]
    assert made == [1, 1, 1, 0]
    assert first.json["usage"]["total_tokens"] == 300
    if not alone:
        (stage.program.cwd / "done.txt").write_text("x")
    done = stage.program.run("resume", first.json["id"], "--max-tokens", "1000", "--json")
    assert done.code == 0, done.err
    assert [stage.marks(f"s{number}") for number in range(4)] == [1, 1, 1, 1]
    assert done.json["usage"]["total_tokens"] == 400


def test_a_limit_of_time_in_the_middle_of_a_flow_ends_it_and_more_time_goes_on(stage: Stage) -> None:
    text = FOUR.replace("{act}", "").replace("mark s2\\n", "mark s2\\nawait go\\n")
    stage.flow(text)
    first = stage.program.run("flow", "run", "f", "--max-time", "5s", "--json")
    assert (first.code, first.json["state"]) == (4, "budget_exceeded"), first.err
    # How far it comes by then is the machine's matter; the third one never ends.
    assert stage.marks("s3") == 0
    recorded = [name for name, step in first.json["steps"].items() if step["status"] == "done"]
    stage.mark("go")
    done = stage.program.run("resume", first.json["id"], "--max-time", "10m", "--json")
    assert done.code == 0, done.err
    # What was cut is made again, and what was recorded is not.
    assert [stage.marks(name) for name in recorded] == [1] * len(recorded)


def test_nobody_knows_what_a_command_in_the_place_of_an_agent_spends(stage: Stage) -> None:
    write(stage.program.cwd, {".goalrun/flows/say.toml": '[[step]]\nid = "say"\nprompt = "hello"\n'})
    done = stage.program.run("flow", "run", "say", "--worker-cmd", "cat", "--json")
    assert (done.code, done.json["usage"]["total_tokens"], done.json["usage"]["usd"]) == (0, None, None), done.err
    wrapped = ("wrap", "say", "x", "--worker-cmd", "cat", "-c", "false", "--json")
    limited = stage.program.run(*wrapped, "--max-usd", "1")
    assert (limited.code, limited.json["state"]) == (4, "budget_exceeded"), limited.err
    silent = stage.program.run("flow", "run", "say", "--worker-cmd", "true", "--json")
    assert (silent.code, silent.json["detail"]) == (14, "say: worker_cmd said nothing")
