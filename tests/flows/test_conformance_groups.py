"""The rules of pi-orchestra's workgroups, one test each, named after the rule.

Where goalrun differs on purpose the name says so: success is measured, not reported, and a lead is not asked about
nothing.
"""

from pathlib import Path

from flows.groups import CHECK, RIGHT, group, run, step_of, until
from support import Program, git, running

from goalrun.adapters.isolation import probe
from goalrun.core.flow.model import Member, Result
from goalrun.flows.groups import names_of, nobody

SAYS_BLOCKED = "echo no key; exit 75"


def test_names_are_those_of_agents_numbered_from_the_second_on() -> None:
    members = [Member(agent="a"), Member(agent="b"), Member(), Member(agent="a"), Member(run="true")]
    assert names_of(members, "a") == ["a", "b", "a-2", "a-3", "command"]


def test_without_success_blocked_comes_before_failed_with_each_reason() -> None:
    failed, blocked = Result(status="failed", reason="red"), Result(status="blocked", reason="no key")
    both = nobody([("a", failed), ("b", blocked)])
    assert (both.status, both.reason) == ("blocked", "a: red; b: no key")
    assert nobody([("a", failed), ("b", failed)]).status == "failed"


def test_compete_success_is_measured_not_reported(program: Program) -> None:
    members = {
        "cheat": "mkdir -p tests; echo 'assert True' > tests/test_it.py; touch cheat.txt; echo I did it",
        "idler": "touch idle.txt; echo all done",
        "honest": "touch honest.txt; " + RIGHT,
    }
    done = run(program, group(members, pick="best"))
    step = step_of(done)
    assert (done.code, step["winner"], step["text"]) == (0, "honest", "mine")
    assert step["members"]["cheat"]["status"] == step["members"]["idler"]["status"] == "failed"
    assert CHECK in step["members"]["idler"]["reason"]
    assert (program.cwd / "honest.txt").exists()
    assert git(program.cwd, "status", "--porcelain").split() == ["??", "honest.txt", "??", "result.txt"]


def test_compete_the_first_success_closes_those_that_still_work(program: Program, tmp_path: Path) -> None:
    flag, marker = tmp_path / "flag", "31415.2653"
    # The child of a child: all of the tree has to go.
    slow = f"sleep {marker} & touch slow.txt {flag}; wait"
    done = run(program, group({"slow": slow, "fast": f"{until(flag)}; {RIGHT}"}))
    step = step_of(done)
    assert (done.code, step["winner"]) == (0, "fast")
    assert step["members"]["slow"]["reason"] == "it is not needed any more"
    assert not running(marker)
    assert not (program.cwd / "slow.txt").exists()


def test_compete_without_a_winner_is_blocked_if_a_member_is(program: Program) -> None:
    done = run(program, group({"a": "true", "b": SAYS_BLOCKED}))
    assert done.code == 6
    assert "b: no key" in step_of(done)["reason"]
    assert "a: a check failed" in step_of(done)["reason"]


def test_compete_without_a_winner_is_else_failed_and_takes_no_files(program: Program) -> None:
    done = run(program, group({"a": "echo wrong > result.txt; echo x", "b": "exit 3"}))
    assert (done.code, step_of(done)["status"]) == (14, "failed")
    assert git(program.cwd, "status", "--porcelain") == ""


def test_synthesize_the_lead_gets_the_results_of_all_once_all_are_over(program: Program) -> None:
    members = {"a": "echo wisdom; touch a.txt", "b": "echo oops >&2; exit 3", "boss": "cat; touch boss.txt || true"}
    done = run(program, group(members, strategy="synthesize", check=None, lead="boss"))
    step = step_of(done)
    assert (done.code, step["status"]) == (0, "done")
    for piece in ("Fix it.", "### a (done)", "wisdom", "a.txt", "### b (failed)", "oops", "Reconcile"):
        assert piece in step["text"]
    assert step["members"]["b"]["status"] == "failed"
    # Words are put together, and the lead may not write, where it can be kept from it.
    if not probe():
        assert git(program.cwd, "status", "--porcelain") == ""


def test_synthesize_the_members_words_stand_where_the_lead_prompt_says(program: Program) -> None:
    members = {"a": "echo wisdom", "b": "echo wit", "boss": "cat"}
    flow = group(members, strategy="synthesize", check=None, lead="boss", lead_prompt="Choose from: {needs}. End.")
    text = step_of(run(program, flow))["text"]
    assert text.startswith("Choose from: ### a (done)")
    assert text.rstrip().endswith(". End.")
    assert "wit" in text


def test_synthesize_a_lead_is_not_asked_about_nothing(program: Program, tmp_path: Path) -> None:
    asked = tmp_path / "asked"
    members = {"a": "exit 3", "b": SAYS_BLOCKED, "boss": f"touch {asked}; echo fine"}
    done = run(program, group(members, strategy="synthesize", check=None, lead="boss"))
    assert (done.code, step_of(done)["status"]) == (6, "blocked")
    assert not asked.exists()


def test_launch_nobody_starts_where_one_cannot_and_each_failure_is_listed(program: Program, tmp_path: Path) -> None:
    tools = [tmp_path / name for name in ("one", "two")]
    for tool in tools:
        tool.write_text("#!/bin/sh\necho hi\n")
        tool.chmod(0o755)
    started = tmp_path / "started"
    flow = group({"good": f"touch {started}; {RIGHT}"}, needs="before")
    flow["agents"] |= {tool.name: {"command": [str(tool)]} for tool in tools}
    flow["step"][0]["member"] += [{"agent": tool.name} for tool in tools]
    flow["step"].insert(0, {"id": "before", "run": ["rm", *map(str, tools)]})
    done = run(program, flow)
    assert done.code == 11
    for tool in tools:
        assert f"{tool.name}: {tool} is not on PATH" in done.json["detail"]
    assert not started.exists()
