"""Flows go on where they were cut: by content, each call for itself, with the files that it changed."""

import json
import os
import shutil
import signal
from collections.abc import Sequence
from pathlib import Path

import pytest
from acting import Stage, statuses
from flows.share import MANY, REST
from support import Program, finish, running, wait_until


@pytest.fixture
def stage(program: Program, tmp_path: Path) -> Stage:
    return Stage.of(program, tmp_path)


def killed(stage: Stage, happened: str, count: int = 1) -> str:
    """A run of the flow, killed once there are so many marks; its id."""
    process = stage.program.spawn("flow", "run", "f")
    wait_until(lambda: stage.marks(happened) >= count, f"{count} of {happened}")
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    wait_until(lambda: not running(str(stage.lab.parent / "actor.py")), "its agents are gone")
    return str(stage.program.goals()[0]["id"])


TWENTY = (
    f'[[step]]\nid = "each"\neach = {json.dumps(list(range(20)))}\nconcurrency = 3\nagent = "counts"\n'
    'prompt = """\nwrite file-{item}.txt from {item}\nspend 10\nmark did-{item}\nmark did\nboth fifteen 15\nsay got {item}\n"""\n'
)


@pytest.mark.parametrize(
    ("how", "allowed", "begun"),
    [
        # Those that write in the workspace take turns: behind the one that hangs nobody begins.
        ("", range(6), range(7)),
        # With a worktree each, three work at once: two more hang then.
        pytest.param('workspace = "worktree"\n', (*range(6), *range(7, 12)), range(14), marks=REST),
    ],
)
def test_of_twenty_items_every_recorded_one_is_reused_with_its_files_and_none_is_lost(
    how: str, allowed: Sequence[int], begun: range, stage: Stage
) -> None:
    flow = TWENTY.replace("both fifteen 15", "mark over-{item}\nmark over")
    stage.flow(flow.replace("say got", "await go-{item}\nsay got").replace("concurrency", f"{how}concurrency"))
    for number in allowed:
        stage.mark(f"go-{number}")
    process = stage.program.spawn("flow", "run", "f")
    wait_until(lambda: all(stage.marks(f"did-{number}") for number in begun), "all that can have begun")
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    wait_until(lambda: not running(str(stage.lab.parent / "actor.py")), "its agents are gone")
    goal = str(stage.program.goals()[0]["id"])
    # Everything that they wrote is lost.
    for path in stage.program.cwd.glob("file-*.txt"):
        path.unlink()
    for number in range(20):
        stage.mark(f"go-{number}")
    done = stage.program.run("resume", goal, "--json")
    assert done.code == 0, done.err
    assert done.json["json"] == [f"got {number}" for number in range(20)]
    cached = [member["cached"] for member in done.json["steps"]["each"]["members"]]
    assert [number for number in range(20) if cached[number]] == [*allowed]
    assert [number for number in range(20) if stage.marks(f"did-{number}") == 1] == [*allowed, *range(begun.stop, 20)]
    assert all((stage.program.cwd / f"file-{n}.txt").read_text() == f"from {n}\n" for n in range(20))
    # Those that were cut in the middle have spent what is not known, and so is the sum.
    assert done.json["usage"]["total_tokens"] is None


def test_one_failed_of_many_runs_again_alone(stage: Stage) -> None:
    text = (
        f'[[step]]\nid = "each"\neach = {json.dumps(list(range(MANY)))}\nconcurrency = 8\nwrites = false\n'
        f'run = ["bash", "-c", "echo $0 >> {stage.lab}/ran; test $0 != 12 -o -e {stage.lab}/fixed; echo got $0", "{{item}}"]\n'
    ).replace("; test", "; set -e; test")
    first = stage.run(text)
    assert first.code == 14, first.err
    assert first.json["steps"]["each"]["reason"].startswith(f"1 of {MANY}: ")
    stage.mark("fixed")
    done = stage.program.run("resume", first.json["id"], "--json")
    assert done.code == 0, done.err
    assert stage.marks("ran") == MANY + 1
    assert [n for n, member in enumerate(done.json["steps"]["each"]["members"]) if not member["cached"]] == [12]


PLAN = (
    '[[step]]\nid = "plan"\nagent = "counts"\n{how}\nprompt = "mark plan\\nspend 100\\nsay plan {goal.objective}"\n'
    '[[step]]\nid = "edit"\nagent = "counts"\n'
    'prompt = "mark edit\\nspend 10\\nwrite turn.txt {goal.turn}\\nsay {steps.plan.output} told {goal.feedback}"\n'
    '[[step]]\nid = "review"\nagent = "counts"\ngate = true\nwrites = false\n'
    'prompt = "mark review\\nspend 1\\nsay VERDICT: PASS {steps.edit.diff}"\n'
    '[[step]]\nid = "note"\nneeds = ["review"]\nrun = ["true"]\noptional = true\n'
)


@pytest.mark.parametrize(
    "how",
    [
        "writes = false",
        pytest.param("writes = false\ncache_tree = false", marks=REST),
        pytest.param("cache_tree = false", marks=REST),
    ],
)
def test_a_goal_of_three_turns_around_four_steps_pays_for_its_plan_once(stage: Stage, how: str) -> None:
    stage.flow(PLAN.replace("{how}", how))
    done = stage.program.run("wrap", "f", "three", "-c", "grep -q 3 turn.txt", "--json")
    assert done.code == 0, done.err
    assert done.json["turns"] == 3
    assert (stage.marks("plan"), stage.marks("edit"), stage.marks("review")) == (1, 3, 3)
    assert done.json["usage"]["total_tokens"] == 100 + 3 * 11
    shown = stage.program.run("show", done.json["id"]).out
    assert "done plan" in shown
    assert "reused" in shown


def test_a_plan_that_may_write_is_made_anew_for_other_files_and_reused_for_the_same(stage: Stage) -> None:
    stage.flow(PLAN.replace("{how}", ""))
    done = stage.program.run("wrap", "f", "two", "-c", "grep -q 2 turn.txt", "--json")
    assert done.code == 0, done.err
    assert stage.marks("plan") == 2


def test_a_hit_brings_its_files_back_and_one_that_does_not_fit_is_made_anew(stage: Stage) -> None:
    text = (
        '[[step]]\nid = "a"\nagent = "actor"\nprompt = "mark a\\nwrite a.txt from a\\nsay a"\n'
        '[[step]]\nid = "b"\nagent = "actor"\nprompt = "mark b\\nwrite b.txt from b\\nsay b"\nneeds = ["a"]\n'
        '[[step]]\nid = "c"\nagent = "actor"\nprompt = "await go\\nsay c"\nneeds = ["b"]\n'
    )
    stage.flow(text.replace("await go", "mark c\\nawait go"))
    goal = killed(stage, "c")
    project = stage.program.cwd
    (project / "a.txt").unlink()
    (project / "b.txt").write_text("somebody else's\n")
    stage.mark("go")
    done = stage.program.run("resume", goal, "--json")
    assert done.code == 0, done.err
    steps = done.json["steps"]
    assert (steps["a"]["cached"], steps["b"]["cached"]) == (True, False)
    assert "its files do not fit" in steps["b"]["why"]
    assert (project / "a.txt").read_text() == "from a\n"
    assert (stage.marks("a"), stage.marks("b")) == (1, 2)
    assert "its files do not fit" in stage.program.run("show", goal).out


ONCE = (
    '[[step]]\nid = "deploy"\nagent = "actor"\ncache = false\nprompt = "mark deploy\\nawait go\\nsay deployed"\n'
    '[[step]]\nid = "after"\nneeds = ["deploy"]\nrun = ["bash", "-c", "test -e {lab}/fixed"]\n'
)


def test_what_must_not_be_repeated_asks_a_person_after_each_cut_and_is_never_done_twice(stage: Stage) -> None:
    stage.flow(ONCE.replace("{lab}", str(stage.lab)))
    goal = killed(stage, "deploy")
    asked = stage.program.run("resume", goal, "--json")
    assert (asked.code, asked.json["state"]) == (9, "waiting"), asked.err
    assert "deploy was cut in the middle" in asked.json["detail"]
    assert stage.marks("deploy") == 1
    no = stage.program.run("answer", goal, "no: it is out", "--json")
    assert (no.code, no.json["detail"]) == (6, "deploy: it is out"), no.err
    assert stage.program.run("resume", goal).code == 9
    # A yes is for one cut, not for the next one.
    process = stage.program.spawn("answer", goal, "yes")
    wait_until(lambda: stage.marks("deploy") == 2, "it runs again")
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert stage.program.run("resume", goal).code == 9
    stage.mark("go")
    failed = stage.program.run("answer", goal, "yes", "--json")
    assert failed.code == 14, failed.err
    assert stage.marks("deploy") == 3
    # Done is done: what failed behind it runs again, it does not.
    stage.mark("fixed")
    done = stage.program.run("resume", goal, "--json")
    assert done.code == 0, done.err
    assert stage.marks("deploy") == 3


def test_a_resumed_block_asks_its_gate_again(stage: Stage) -> None:
    gate = f"echo x >> {stage.lab}/gate; test -e {stage.lab}/good && echo VERDICT: PASS || echo VERDICT: BLOCK not yet"
    first = stage.run(
        '[[step]]\nid = "work"\nagent = "actor"\nprompt = "mark work\\nsay w"\n'
        f'[[step]]\nid = "gate"\ngate = true\nneeds = ["work"]\nrun = ["bash", "-c", {json.dumps(gate)}]\n'
    )
    assert (first.code, first.json["detail"]) == (6, "gate: not yet"), first.err
    stage.mark("good")
    done = stage.program.run("resume", first.json["id"], "--json")
    assert done.code == 0, done.err
    assert (stage.marks("work"), stage.marks("gate")) == (1, 2)


def test_an_edited_flow_runs_again_only_what_is_changed_and_what_follows_from_it(stage: Stage) -> None:
    text = (
        '[args.who]\n[[step]]\nid = "a"\nagent = "actor"\nprompt = "mark a\\nsay a {args.who}"\n'
        '[[step]]\nid = "b"\nagent = "actor"\nprompt = "mark b\\nsay b"\n'
        '[[step]]\nid = "c"\nagent = "actor"\nprompt = "mark c\\nsay c {steps.b.output}"\n'
        '[[step]]\nid = "d"\nrun = ["false"]\nneeds = ["c"]\n'
    )
    first = stage.run(text, "who=me")
    assert first.code == 14, first.err
    goal = first.json["id"]
    stage.flow(text.replace('"false"', '"true"').replace("say b", "say new"))
    # Without being asked to, a goal keeps the flow that it was started with.
    assert stage.program.run("resume", goal).code == 14
    done = stage.program.run("resume", goal, "--flow", "--json")
    assert done.code == 0, done.err
    assert {name: step["cached"] for name, step in done.json["steps"].items()} == {
        "a": True, "b": False, "c": False, "d": False,
    }  # fmt: skip
    assert (stage.marks("a"), stage.marks("b"), stage.marks("c")) == (1, 2, 2)
    assert done.json["steps"]["c"]["text"] == "c new"


def test_a_flow_that_is_wrong_now_is_refused_and_the_old_one_stays(stage: Stage) -> None:
    first = stage.run('[[step]]\nid = "a"\nrun = ["false"]\n')
    stage.flow('[[step]]\nid = "a"\nrun = ["true"]\nneeds = ["b"]\n')
    refused = stage.program.run("resume", first.json["id"], "--flow")
    assert refused.code == 2
    assert "unknown step" in refused.err or "'b'" in refused.err
    assert stage.program.run("resume", first.json["id"]).code == 14


def test_a_flow_of_a_run_that_was_cut_while_it_was_recorded_goes_on(stage: Stage) -> None:
    # A turn that is cut keeps what its calls spent, call by call.
    stage.flow(
        '[[step]]\nid = "a"\nagent = "counts"\nprompt = "spend 5\\nsay a"\n'
        f'[[step]]\nid = "b"\nrun = ["{shutil.which("bash")}", "-c", "echo x >> {stage.lab}/b; '
        f'while ! test -e {stage.lab}/go; do sleep 0.05; done"]\nneeds = ["a"]\n'
    )
    goal = killed(stage, "b")
    stage.mark("go")
    done = stage.program.run("resume", goal, "--json")
    assert done.code == 0, done.err
    # Only a command was cut: nothing unknown was spent.
    assert done.json["usage"]["total_tokens"] == 5
    assert statuses(done.json) == {"a": "done", "b": "done"}
    assert finish(stage.program.spawn("resume", goal)).code == 2
