"""Workers in Python: real processes, with scripts for agents."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from acting import calls_finished
from flow_project import Flows
from flows.share import MANY, REST
from support import finish, wait_until, write

REFERENCE = """from goalrun import agent, parallel, phase, check
from pydantic import BaseModel


class Bugs(BaseModel):
    bugs: list[str]


async def main(run):
    phase("plan")
    plan = await agent("dev", f"Plan: {run.args.what}", writes=False)
    phase("edit")
    await agent("dev", f"{plan.text}\\n\\nWhat failed last time:\\n{run.feedback}")
    votes = await parallel(*[agent("critic", f"Find {k} bugs", schema=Bugs)
                             for k in ("logic", "security")])
    return [v.json for v in votes if v.ok]      # results, never bare None
"""


@pytest.fixture
def flows(tmp_path: Path) -> Flows:
    return Flows(tmp_path)


def test_the_example_of_the_reference_runs_as_it_stands(flows: Flows) -> None:
    result = flows.run(REFERENCE, "what=quotes")
    assert (result["state"], result["json"]) == ("done", [{"bugs": ["one"]}, {"bugs": ["one"]}])
    assert json.loads(result["output"]) == result["json"]
    assert flows.asked()["Plan: quotes"] == 1
    members = {member["id"]: member["status"] for member in result["steps"]["main"]["members"]}
    assert members == dict.fromkeys(["dev-1", "dev-2", "critic-3", "critic-4"], "done")
    assert "    plan\n" in result["err"]
    assert "    edit\n" in result["err"]


def test_the_example_is_a_goals_worker_and_sees_what_failed(flows: Flows) -> None:
    name = flows.wrote(REFERENCE.replace('f"{plan.text}\\n\\n', 'f"write f {plan.text}\\n\\n'))
    check = "test $(wc -l < f) -ge 2"
    done = flows.program.run("wrap", name, "quotes", "-c", check, "--max-turns", "3", "--stuck-after", "0", "--json")
    assert (done.json["state"], done.json["turns"]) == ("achieved", 2)
    # What neither prompt nor files changed for was not paid for again.
    assert flows.asked()["Plan: quotes"] == 1


def test_a_plain_function_waits_where_it_looks(flows: Flows) -> None:
    code = """from goalrun import agent, log, budget
def main(run):
    a, b = agent("dev", "one"), agent("dev", "write f")
    log("both", a.ok, b.status)
    return {"text": a.text, "diff": b.diff, "spent": budget.spent, "again": agent("dev", "x " + a.text).cached}
"""
    result = flows.run(code)
    assert result["json"]["text"] == "did one"
    assert "+x" in result["json"]["diff"]
    assert (result["json"]["again"], result["json"]["spent"]) == (False, [None, None])
    assert "    both True done\n" in result["err"]


def test_a_failed_call_has_a_reason_and_or_fail_raises(flows: Flows) -> None:
    code = """from goalrun import agent
async def main(run):
    bad = await agent("dev", "fail now")
    assert not bad.ok and "out of sorts" in bad.reason, bad.reason
    try:
        await agent("dev", "fail again").or_fail()
    except Exception as failure:
        assert "out of sorts" in str(failure)
        await bad.or_fail()
"""
    result = flows.run(code)
    assert (result["code"], result["state"]) == (14, "failed")
    assert "out of sorts" in result["steps"]["main"]["reason"]


def test_an_exception_fails_the_step_with_its_last_line_and_the_traceback_is_kept(flows: Flows) -> None:
    result = flows.run('def main():\n    raise KeyError("no such thing")\n')
    assert (result["code"], result["steps"]["main"]["reason"]) == (14, "KeyError: 'no such thing'")
    kept = flows.program.home / "goals" / result["id"] / "turns" / "turn-1" / "flow-1" / "main" / "stderr"
    assert 'work.py", line 2, in main\n    raise KeyError' in kept.read_text(encoding="utf-8")


def test_a_killed_child_and_one_that_takes_too_long_fail(flows: Flows) -> None:
    killed = flows.run("import os\ndef main():\n    os.kill(os.getpid(), 9)\n")
    assert killed["state"] == "failed"
    assert "before the function was over" in killed["detail"]
    toml = '[[step]]\nid = "s"\npython = "work.py:main"\ntimeout = 2\n'
    late = flows.run("import time\ndef main():\n    time.sleep(600)\n", flow=toml)
    assert (late["state"], late["steps"]["s"]["reason"]) == ("failed", "it took too long")


def test_what_is_no_json_is_refused_clearly(flows: Flows) -> None:
    result = flows.run("def main():\n    return {'a': object()}\n")
    assert "what the function returned is not JSON: a value of type object" in result["detail"]


def test_parallel_keeps_the_order_and_gives_reasons(flows: Flows) -> None:
    code = """from goalrun import agent, parallel
def bad():
    raise ValueError("mine")
async def co():
    return (await agent("dev", "three")).text
async def main():
    got = await parallel(lambda: agent("dev", "one"), bad, co(), co, agent("dev", "fail five"))
    return [got[0].text, got[1].reason, got[2], got[3], got[4].ok]
"""
    result = flows.run(code)
    assert result["json"] == ["did one", "ValueError: mine", "did three", "did three", False], result["detail"]


def test_a_schema_is_told_and_held_against_the_answer(flows: Flows) -> None:
    code = """from goalrun import agent
from pydantic import BaseModel
class Bugs(BaseModel):
    bugs: list[str]
def main():
    good = agent("dev", "find", schema=Bugs)
    assert good.value == Bugs(bugs=["one"]) and good.json == {"bugs": ["one"]}
    bad = agent("dev", "find", schema={"type": "object", "required": ["score"]}, retry=1)
    return [good.status, bad.status, bad.reason]
"""
    result = flows.run(code)
    assert result["json"][:2] == ["done", "failed"], result["detail"]
    assert "'score' is a required property" in result["json"][2]
    assert flows.asked()["find"] == 3


def test_other_flows_run_from_a_function(flows: Flows) -> None:
    toml = """[agents.dev]
use = "dev"
[[step]]
id = "s"
python = "work.py:main"
[flows.inner]
args = { what = { required = true } }
[[flows.inner.step]]
id = "i"
run = ["echo", "{args.what}"]
"""
    write(flows.project, {".goalrun/flows/saved.toml": '[[step]]\nid = "x"\nrun = "echo saved"\n'})
    code = """from goalrun import flow
def main():
    inner = flow("inner", what="{needs} as it is")
    try:
        flow("inner", wrong=1).ok
    except ValueError as failure:
        return [inner.text, flow("saved").text, str(failure)]
"""
    result = flows.run(code, flow=toml)
    assert result["json"] == ["{needs} as it is", "saved", "there is no argument 'wrong'"], result["detail"]


def test_check_verifies_the_workspace_as_it_is_where_nothing_can_change_it(flows: Flows) -> None:
    code = """from goalrun import agent, check
def main():
    agent("dev", "write new").or_fail()
    good, bad = check("test -f new", "touch left"), check("echo seen; exit 3")
    return [good.ok, bad.ok, bad.reason, "seen" in bad.text]
"""
    assert flows.run(code)["json"] == [True, False, "echo seen; exit 3: exit status 3", True]
    assert not (flows.project / "left").exists()


def test_a_person_is_asked_and_the_answer_goes_on_from_there(flows: Flows) -> None:
    code = """from goalrun import agent, ask
def main():
    plan = agent("dev", "plan").text
    first = ask(f"{plan}: go?")
    return [first.text, ask("And how?").text]
"""
    result = flows.run(code)
    assert (result["code"], result["state"], result["detail"]) == (9, "waiting", "did plan: go?")
    again = flows.program.run("answer", result["id"], "yes", "--json")
    assert (again.code, again.json["detail"]) == (9, "And how?")
    last = flows.program.run("answer", result["id"], "slowly", "--json")
    assert (last.code, last.json["json"]) == (0, ["(approve)", "slowly"])
    assert flows.asked() == {"plan": 1}


def test_a_no_blocks(flows: Flows) -> None:
    result = flows.run("from goalrun import ask\ndef main():\n    ask('Go?').or_fail()\n")
    assert flows.program.run("answer", result["id"], "no: not today").code == 6


def test_outside_of_a_run_it_says_so() -> None:
    code = "import goalrun; goalrun.agent('x', 'y')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "only in a function that goalrun runs" in done.stderr
    light = "import goalrun, sys; print([m for m in sys.modules if m.startswith('goalrun')], 'asyncio' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", light], capture_output=True, text=True, check=False)
    assert done.stdout == "['goalrun'] False\n"


def test_a_kill_in_the_middle_of_twenty_calls_loses_none_that_was_recorded(flows: Flows) -> None:
    code = """from goalrun import agent, parallel
async def main():
    got = await parallel(*[agent("dev", f"write f{n} {'wait' if n > 8 else ''}") for n in range(1, 21)])
    return [each.text for each in got]
"""
    running = flows.program.spawn("flow", "run", flows.wrote(code))
    # The first four that run have nothing to wait for.
    wait_until(lambda: calls_finished(flows.program) >= 4, "some calls are recorded")
    os.kill(running.pid, signal.SIGKILL)
    finish(running)
    recorded = calls_finished(flows.program)
    flows.gate.touch()
    # What the recorded ones did comes back too.
    for path in flows.project.glob("f*"):
        path.unlink()
    result = flows.resumed(flows.program.goals()[0]["id"])
    assert result["state"] == "done", result["detail"]
    assert len(result["json"]) == 20
    assert sum(member["cached"] for member in result["steps"]["main"]["members"]) == recorded
    assert sum(flows.asked().values()) <= 20 + 4
    assert {f"f{n}" for n in range(1, 21)} <= {path.name for path in flows.project.iterdir()}


def test_of_many_calls_the_one_that_failed_runs_again_alone(flows: Flows) -> None:
    code = """from goalrun import agent, parallel
def main():
    work = [agent("dev", f"{'fail' if n == 12 else 'do'} {n}", writes=False) for n in range(MANY)]
    return len([each.or_fail() for each in parallel(*work)])
""".replace("MANY", str(MANY))
    first = flows.run(code)
    assert first["state"] == "failed"
    flows.gate.touch()
    again = flows.resumed(first["id"])
    assert (again["state"], again["json"]) == ("done", MANY)
    assert flows.asked()["fail 12"] == 2
    assert sum(flows.asked().values()) == MANY + 1


@pytest.mark.parametrize(
    "attack",
    [
        "sock.sendall(b'\\x00 garbage\\n')",
        "sock.sendall(b'x' * 50_000_000 + b'\\n')",
        'sock.sendall(b\'{"id": 5, "do": "agent", "agent": [], "prompt": 5}\\n\' * 3)',
        pytest.param('sock.sendall(b\'{"id": 0, "do": "told", "text": {}}\\n\' * 2000)', marks=REST),
        "sock.shutdown(2)",
    ],
)
def test_a_hostile_function_cannot_hang_or_crash_goalrun(flows: Flows, attack: str) -> None:
    code = f"""from goalrun import agent
from goalrun.api.calls import Here
def main():
    sock = Here.line._socket
    {attack}
    return agent("dev", "after").text
"""
    result = flows.run(code)
    assert result["state"] in {"done", "failed"}, result["err"]
    assert result["code"] in {0, 14}


def test_a_flow_that_is_not_there_or_a_function_is_told_before_anything_runs(flows: Flows) -> None:
    name = flows.wrote("from goalrun import flow\ndef main():\n    flow('nope')\n")
    assert "there is no flow 'nope'" in flows.program.run("flow", "check", name).err
    done = flows.program.run("flow", "run", name.replace(":main", ":other"))
    assert (done.code, "has no function 'other'" in done.err) == (2, True)
    assert flows.program.goals() == []
