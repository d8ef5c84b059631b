"""The rules of workflows that are programs, as far as they were kept: one test each, named after the rule."""

from pathlib import Path

import pytest
from flow_project import Flows


@pytest.fixture
def flows(tmp_path: Path) -> Flows:
    return Flows(tmp_path)


def test_parallel_takes_functions_and_keeps_the_order_of_its_input(flows: Flows) -> None:
    code = """from goalrun import agent, parallel
def main():
    work = [lambda n=n: agent("dev", f"n{n}") for n in range(6)]
    return [each.text for each in parallel(*work)] + [each.text for each in parallel(work)]
"""
    assert flows.run(code)["json"] == [f"did n{n}" for n in range(6)] * 2


def test_a_stage_gets_what_the_one_before_gave_the_item_and_its_number(flows: Flows) -> None:
    code = """from goalrun import agent, pipeline
async def second(previous, original, index):
    return f"{previous.text}/{original}/{index}"
async def main():
    return await pipeline(["a", "b"], lambda item: agent("dev", item), second, lambda previous: previous.upper())
"""
    assert flows.run(code)["json"] == ["DID A/A/0", "DID B/B/1"]


def test_items_of_a_pipeline_do_not_wait_for_one_another(flows: Flows) -> None:
    # The first item cannot leave its first stage before the second one has been through all.
    code = f"""from pathlib import Path
from goalrun import agent, pipeline
def last(previous, original):
    if original == "quick":
        Path({str(flows.gate)!r}).touch()
    return previous.text
def main():
    return list(pipeline(["wait", "quick"], lambda item: agent("dev", item, writes=False), last))
"""
    assert flows.run(code)["json"] == ["did wait", "did quick"]


def test_an_item_that_failed_goes_no_further_and_says_why(flows: Flows) -> None:
    code = """from goalrun import agent, pipeline
def main():
    got = pipeline(["fail 1", "two"], lambda item: agent("dev", item), lambda previous: previous.text)
    return [got[0].status, got[0].reason, got[1]]
"""
    status, reason, other = flows.run(code)["json"]
    assert (status, other) == ("failed", "did two")
    assert "out of sorts" in reason


def test_a_failed_call_is_a_result_and_no_null(flows: Flows) -> None:
    code = """from goalrun import agent
def main():
    return [agent("dev", "fail"), agent("dev", "fine")]
"""
    bad, good = flows.run(code)["json"]
    assert (bad["status"], good["status"], good["text"]) == ("failed", "done", "did fine")


def test_a_returned_call_that_failed_is_no_success(flows: Flows) -> None:
    result = flows.run("from goalrun import agent\ndef main():\n    return agent('dev', 'fail')\n")
    assert (result["state"], "out of sorts" in result["detail"]) == ("failed", True)


def test_calls_are_recognised_in_any_order(flows: Flows) -> None:
    code = """import os
from goalrun import agent, parallel
def main():
    order = [1, 2, 3, 4]
    if os.path.exists(GATE):
        order.reverse()
    got = [agent("dev", f"{'fail ' if n == 4 else ''}n{n}", writes=False) for n in order]
    return [each.or_fail().cached for each in got]
"""
    first = flows.run(code.replace("GATE", repr(str(flows.gate))))
    assert first["state"] == "failed"
    flows.gate.touch()
    assert flows.resumed(first["id"])["json"] == [False, True, True, True]


def test_what_changed_in_the_files_changes_what_comes_after_and_nothing_else(flows: Flows) -> None:
    code = """from goalrun import agent
def main():
    a = agent("dev", "write a").or_fail()
    b = agent("dev", "write b").or_fail()
    return [a.cached, b.cached, agent("dev", "fail c").or_fail().cached]
"""
    first = flows.run(code)
    flows.gate.touch()
    assert flows.resumed(first["id"])["json"] == [True, True, False]
    assert (flows.project / "a").read_text(encoding="utf-8") == "x\n"


def test_an_unstable_prompt_merely_misses(flows: Flows) -> None:
    code = """import time
from goalrun import agent
def main():
    agent("dev", f"now {time.time_ns()}").or_fail()
    return agent("dev", "fail then").or_fail().text
"""
    first = flows.run(code)
    flows.gate.touch()
    assert flows.resumed(first["id"])["json"] == "did fail then"
    assert len(flows.asked()) == 3


def test_the_budget_of_a_flow_ends_its_calls(flows: Flows) -> None:
    toml = 'budget = { tokens = 5 }\n[[step]]\nid = "s"\npython = "work.py:main"\n'
    code = """from goalrun import agent, budget
def main():
    left = budget.left.tokens
    agent("dev", "one").or_fail()
    second = agent("dev", "two")
    return [left, second.status, second.reason]
"""
    # A plain command tells nobody what it spends.
    result = flows.run(code, flow=toml)
    assert result["steps"]["s"]["json"] == [5, "blocked", "its tokens are unknown"]


def test_a_call_that_is_not_waited_for_is_finished_all_the_same(flows: Flows) -> None:
    result = flows.run("from goalrun import agent\ndef main():\n    agent('dev', 'write late')\n")
    assert result["state"] == "done"
    assert (flows.project / "late").exists()
