"""Flows at work, as users run them: real processes, which witness the order of things themselves."""

import json
import signal
from pathlib import Path

import pytest
from acting import Stage, calls_finished, statuses
from flows.share import REST
from support import PYTHON, Program, finish, running, script, wait_until


@pytest.fixture
def stage(program: Program, tmp_path: Path) -> Stage:
    return Stage.of(program, tmp_path)


def prompt(name: str, text: str, rest: str = "") -> str:
    """A step that asks the actor."""
    return f'[[step]]\nid = "{name}"\nagent = "actor"\nwrites = false\nprompt = {json.dumps(text)}\n{rest}\n'


# Order


def test_a_step_starts_when_its_own_needs_are_settled_and_not_a_whole_layer(stage: Stage) -> None:
    # slow ends only after the step behind its sibling has run.
    done = stage.run(
        prompt("slow", "await behind\nsay slow")
        + prompt("quick", "say quick")
        + prompt("behind", "mark behind\nsay behind", 'needs = ["quick"]')
    )
    assert done.code == 0, done.err
    assert statuses(done.json) == {"slow": "done", "quick": "done", "behind": "done"}
    assert done.json["output"] == "behind"


def test_any_starts_at_the_first_success_done_waits_for_all_and_all_needs_all(stage: Stage) -> None:
    done = stage.run(
        prompt("good", "say good")
        + prompt("late", "await early\nsay late")
        + prompt("bad", "exit 3", "optional = false")
        + prompt("any", "mark early\nsay any", 'needs = ["bad", "late", "good"]\njoin = "any"')
        + prompt("every", "say every", 'needs = ["bad", "good"]')
        + prompt("settled", "say {steps.bad.status} {steps.late.output}", 'needs = ["late", "bad"]\njoin = "done"')
    )
    assert done.code == 14, done.err
    result = done.json
    assert statuses(result) == {
        "good": "done", "late": "done", "bad": "failed", "any": "done", "every": "skipped", "settled": "done",
    }  # fmt: skip
    assert result["steps"]["every"]["reason"] == "bad is failed"
    assert result["steps"]["settled"]["text"] == "failed late"
    assert result["state"] == "failed"
    assert "bad: " in result["detail"]


def test_skips_cascade_optional_failures_count_as_done_and_the_last_that_is_done_speaks(stage: Stage) -> None:
    done = stage.run(
        prompt("a", "say a")
        + prompt("off", "say off", 'when = "{steps.a.output} == b"')
        + prompt("behind", "say behind", 'needs = ["off"]')
        + prompt("shaky", "exit 1", "optional = true")
        + prompt("after", "say after [{steps.shaky.output}]", "")
        + prompt("end", "say end", 'needs = ["behind"]\nfinal = true')
    )
    assert done.code == 0, done.err
    assert statuses(done.json) == {
        "a": "done", "off": "skipped", "behind": "skipped", "shaky": "failed", "after": "done", "end": "skipped",
    }  # fmt: skip
    assert "guard" in done.json["steps"]["off"]["reason"]
    assert done.json["steps"]["behind"]["reason"] == "off was skipped"
    assert done.json["output"] == "after []"
    assert stage.program.run("flow", "run", "f").out == "after []\n"


def test_a_flow_of_which_nothing_runs_has_failed(stage: Stage) -> None:
    done = stage.run(prompt("a", "say a", 'when = "false"'))
    assert (done.code, done.json["output"], done.json["detail"]) == (14, "(no output)", "no step ran")


# Gates, guards, people


def test_a_gate_that_blocks_stops_what_comes_but_not_what_runs(stage: Stage) -> None:
    done = stage.run(
        prompt("runs", "both pair 2\nsay still here")
        + prompt("gate", "both pair 2\nsay VERDICT: BLOCK no sources", "gate = true")
        + prompt("any", "say any", 'needs = ["runs", "gate"]\njoin = "any"')
    )
    assert done.code == 6, done.err
    result = done.json
    assert result["state"] == "blocked"
    assert result["detail"] == "gate: no sources"
    assert statuses(result)["runs"] == "done"
    assert "no sources" in result["output"]


@pytest.mark.parametrize(
    ("said", "unclear", "code"),
    [("well, perhaps", "block", 6), ("well, perhaps", "pass", 0), ("VERDICT: OK", "block", 0)],
)
def test_an_unclear_gate_does_as_it_is_told(stage: Stage, said: str, unclear: str, code: int) -> None:
    done = stage.run(prompt("gate", f"say {said}", f'gate = true\non_unclear = "{unclear}"'))
    assert done.code == code, done.err


ASKS = (
    '[[step]]\nid = "ok"\nask = "Ship {args.what}?"\n'
    + prompt("ship", "mark ship\nsay shipped after {steps.ok.output}")
    + prompt("beside", "mark beside\nsay beside")
    + '[args.what]\ndefault = "it"\n'
)


def test_a_question_waits_while_other_branches_go_on_and_an_answer_goes_on(stage: Stage) -> None:
    first = stage.run(ASKS)
    assert first.code == 9, first.err
    assert first.json["state"] == "waiting"
    assert first.json["detail"] == "Ship it?"
    assert stage.marks("beside") == 1
    assert statuses(first.json) == {"ok": "waiting", "ship": "waiting", "beside": "done"}
    assert first.json["steps"]["ok"]["reason"] == "Ship it?"
    goal = first.json["id"]
    assert stage.program.run("answer", goal, "  ").code == 2
    done = stage.program.run("answer", goal, "yes", "--json")
    assert done.code == 0, done.err
    assert done.json["steps"]["ship"]["text"] == "shipped after (approve)"
    assert done.json["steps"]["beside"]["cached"] is True
    assert (stage.marks("beside"), stage.marks("ship")) == (1, 1)
    again = stage.program.run("answer", goal, "yes")
    assert again.code == 2
    assert "waits for no answer" in again.err


def test_text_is_an_answer_and_a_no_blocks_until_it_is_asked_again(stage: Stage) -> None:
    goal = stage.run(ASKS).json["id"]
    no = stage.program.run("answer", goal, "no: not on a Friday", "--json")
    assert no.code == 6, no.err
    assert no.json["detail"] == "ok: not on a Friday"
    assert no.json["steps"]["ok"]["status"] == "blocked"
    # A resumed block asks again, and does not repeat itself.
    again = stage.program.run("resume", goal, "--json")
    assert again.code == 9, again.err
    done = stage.program.run("answer", goal, "monday it is", "--json")
    assert done.json["steps"]["ship"]["text"] == "shipped after monday it is"
    assert stage.marks("ship") == 1


def test_a_persons_no_ends_the_goal_around_the_flow(stage: Stage) -> None:
    stage.flow(ASKS)
    first = stage.program.run("wrap", "f", "x", "-c", "false", "--json")
    assert first.code == 9, first.err
    no = stage.program.run("answer", first.json["id"], "no", "--json")
    assert (no.code, no.json["state"], no.json["turns"]) == (6, "blocked", 1), no.err


# Retries, expectations, items


def test_an_answer_that_is_not_what_is_expected_is_complained_about(stage: Stage) -> None:
    body = f"{PYTHON} {stage.lab.parent / 'routes.py'}"
    script(
        stage.lab.parent / "routes.py",
        "import sys\nprompt = sys.stdin.read()\nopen(sys.argv[1], 'a').write('x\\n')\n"
        'print(\'{"route": "quick"}\' if \'Your last answer could not be used: expected route\' in prompt else \'hm {"route": "up"}\')\n',
    )
    agent = f"[agents.routes]\nrun = {json.dumps(body + ' ' + str(stage.lab / 'asked'))}\n"
    step = 'agent = "routes"\nprompt = "Which?"\nexpect = { route = ["deep", "quick"] }\n'
    done = stage.run(f'{agent}[[step]]\nid = "a"\n{step}retry = {{ max = 3 }}\n')
    assert done.code == 0, done.err
    assert done.json["json"] == {"route": "quick"}
    assert done.json["steps"]["a"]["attempts"] == stage.marks("asked") == 2
    failed = stage.run(f'{agent}[[step]]\nid = "b"\n{step}')
    assert failed.code == 14
    assert 'not "up"' in failed.json["detail"]


@pytest.mark.parametrize(("answer", "why"), [("", "actor said nothing"), ("no json here", "expected JSON")])
def test_empty_answers_and_answers_without_json_are_failures(stage: Stage, answer: str, why: str) -> None:
    done = stage.run(prompt("a", f"mark tries\nsay {answer}", 'expect = "json"\nretry = { max = 2 }'))
    assert done.code == 14, done.err
    assert why in done.json["detail"]
    assert stage.marks("tries") == done.json["steps"]["a"]["attempts"] == 3


def test_every_try_is_paid_for_and_counted(stage: Stage) -> None:
    text = '[[step]]\nid = "a"\nagent = "counts"\nprompt = "spend 7\\nexit 1"\nwrites = false\nretry = { max = 2, delay = 0.01, factor = 2 }\n'
    done = stage.run(text.replace("exit 1", 'say {\\"a\\": 2}') + "expect = { a = 1 }\n")
    assert done.code == 14, done.err
    assert done.json["usage"]["total_tokens"] == 21


ITEMS = (
    "[args.list]\nrequired = true\n"
    '[[step]]\nid = "list"\nrun = ["echo", "{args.list}"]\nwrites = false\n'
    '[[step]]\nid = "each"\neach = "{steps.list.json}"\nas = "n"\nagent = "actor"\nwrites = false\nconcurrency = 2\n'
    'prompt = "inside room\\nsay got {n.x}"\n'
)


@pytest.mark.parametrize(
    "key", ["", "items", *(pytest.param(each, marks=REST) for each in ("results", "list", "data", "findings"))]
)
def test_each_takes_lists_and_objects_that_hold_one_in_order_and_only_so_many_at_once(stage: Stage, key: str) -> None:
    items = [{"x": number} for number in range(5)]
    value = {key: items} if key else items
    done = stage.run(ITEMS, json.dumps({"list": json.dumps(value)}))
    assert done.code == 0, done.err
    assert done.json["json"] == [f"got {number}" for number in range(5)]
    assert [member["id"] for member in done.json["steps"]["each"]["members"]] == [f"[{n}]" for n in range(1, 6)]
    assert stage.most("room") <= 2


def test_an_empty_list_is_a_success_with_empty_output_and_no_list_is_a_failure(stage: Stage) -> None:
    empty = stage.run(ITEMS, "list=[]")
    assert (empty.code, empty.json["output"], empty.json["json"]) == (0, "", []), empty.err
    none = stage.run(ITEMS, 'list={"rows": [1]}')
    assert none.code == 14
    assert "without a list under" in none.json["detail"]


def test_one_of_many_that_fails_fails_the_step_and_the_others_are_kept(stage: Stage) -> None:
    done = stage.run(
        '[[step]]\nid = "each"\neach = [0, 4, 0]\nrun = ["bash", "-c", "echo $0; exit $0", "{item}"]\nwrites = false\n'
        '[[step]]\nid = "after"\nrun = ["true"]\nneeds = ["each"]\n'
    )
    assert done.code == 14, done.err
    each = done.json["steps"]["each"]
    assert each["reason"].startswith("1 of 3: ")
    assert [member["status"] for member in each["members"]] == ["done", "failed", "done"]
    assert "### [2/3] command (failed)" in each["text"]
    assert done.json["steps"]["after"]["status"] == "skipped"


def test_calls_at_once_are_never_more_than_the_flow_says(stage: Stage) -> None:
    steps = "".join(prompt(f"s{number}", "inside room\nsay x") for number in range(6))
    done = stage.run("concurrency = 2\n" + steps)
    assert done.code == 0, done.err
    assert stage.most("room") <= 2


def test_items_that_wait_for_a_person_keep_no_other_from_being_done(stage: Stage) -> None:
    stage.flow('[args.it]\n[[step]]\nid = "ok"\nask = "Take {args.it}?"\n', "sub")
    done = stage.run(
        '[[step]]\nid = "each"\neach = ["a", "b"]\nflow = "sub"\nwith = { it = "{item}" }\nconcurrency = 1\n'
    )
    assert done.code == 9, done.err
    assert done.json["detail"] == "Take a?"
    goal = done.json["id"]
    assert stage.program.run("answer", goal, "yes", "--json").json["detail"] == "Take b?"
    last = stage.program.run("answer", goal, "maybe", "--json")
    assert last.code == 0, last.err
    assert last.json["json"] == ["(approve)", "maybe"]


# Budgets


def spends(name: str, tokens: int, rest: str = "") -> str:
    return f'[[step]]\nid = "{name}"\nagent = "counts"\nwrites = false\nprompt = "mark {name}\\nspend {tokens}\\nsay x"\n{rest}\n'


def test_a_budget_is_strictly_exceeded_and_blocks_only_what_it_left_out(stage: Stage) -> None:
    exact = stage.run("budget = { tokens = 10 }\n" + spends("a", 10) + spends("b", 10, 'needs = ["a"]'))
    # The last step may cross it.
    assert exact.code == 0, exact.err
    cut = stage.run("budget = { tokens = 9 }\n" + spends("c", 10) + spends("d", 10, 'needs = ["c"]'))
    assert cut.code == 6, cut.err
    assert cut.json["detail"] == "d: the flow's budget of 9 tokens is used up"
    assert statuses(cut.json) == {"c": "done", "d": "skipped"}
    assert cut.json["usage"]["total_tokens"] == 10
    assert stage.marks("d") == 0
    # What was spent before a resume was spent.
    assert stage.program.run("resume", cut.json["id"], "--json").code == 6


def test_a_budget_cuts_items_short_and_what_is_unknown_is_too_much(stage: Stage) -> None:
    cut = stage.run("budget = { tokens = 15 }\n" + spends("a", 10, "each = [1, 2, 3, 4]\nconcurrency = 1"))
    assert cut.code == 6, cut.err
    assert [each["status"] for each in cut.json["steps"]["a"]["members"]] == ["done", "done", "blocked", "blocked"]
    unknown = stage.run("budget = { usd = 1.0 }\n" + prompt("a", "say x") + prompt("b", "say {steps.a.output}"))
    assert (unknown.code, unknown.json["detail"]) == (6, "b: its cost is unknown")


def test_a_sub_flow_has_a_budget_of_its_own_and_that_of_its_caller(stage: Stage) -> None:
    stage.flow("budget = { tokens = 15 }\n" + spends("in", 10) + spends("in2", 10, 'needs = ["in"]'), "sub")
    sub = '[[step]]\nid = "sub"\nflow = "sub"\nneeds = ["a"]\n'
    own = stage.run(spends("a", 100) + sub)
    # What the caller spent before is not the sub-flow's.
    assert own.code == 0, own.err
    callers = stage.run("budget = { tokens = 105 }\n" + spends("a", 100, 'when = "true"') + sub)
    assert callers.code == 6, callers.err
    assert "budget of 105 tokens" in callers.json["detail"]


# Sub-flows


def test_a_sub_flow_has_its_own_arguments_defaults_and_names(stage: Stage) -> None:
    inner = (
        '[args.what]\nrequired = true\n[args.how]\ndefault = "slowly"\n[agents.dev]\nrun = ["echo", "inner"]\n'
        '[[step]]\nid = "a"\nagent = "dev"\nprompt = "x"\n'
        '[[step]]\nid = "b"\nrun = ["echo", "{args.what} {args.how} {steps.a.output}"]\n'
    )
    stage.flow(inner, "sub")
    done = stage.run(
        '[agents.dev]\nrun = ["echo", "outer"]\n'
        '[[step]]\nid = "a"\nagent = "dev"\nprompt = "x"\n'
        '[[step]]\nid = "sub"\nflow = "sub"\nwith = { what = "walk {steps.a.output}" }\n'
    )
    assert done.code == 0, done.err
    assert done.json["output"].split() == ["walk", "outer", "slowly", "inner"]
    assert [each["id"] for each in done.json["steps"]["sub"]["members"]] == ["a", "b"]


def test_what_fails_in_a_sub_flow_fails_its_step_once_for_each_try(stage: Stage) -> None:
    stage.flow(prompt("a", "mark tries\nexit 1"), "sub")
    done = stage.run('[[step]]\nid = "s"\nflow = "sub"\nretry = { max = 1 }\n')
    assert done.code == 14, done.err
    assert done.json["detail"].startswith("s: a: ")
    assert stage.marks("tries") == 2
    # One of which nothing runs is tried no more often.
    stage.flow(prompt("a", "say x", 'when = "false"'), "sub")
    none = stage.run('[[step]]\nid = "s"\nflow = "sub"\nretry = { max = 1 }\n')
    assert (none.code, none.json["detail"]) == (14, "s: no step ran")


# Limits of providers, and ends from outside


LIMITED = (
    '[[step]]\nid = "first"\nagent = "counts"\nwrites = false\nprompt = "mark first\\nspend 5\\nsay x"\n'
    '[[step]]\nid = "second"\nagent = "counts"\nwrites = false\nneeds = ["first"]\nprompt = "mark second\\nspend 3\\nlimited-once\\nsay y"\n'
    '[[step]]\nid = "beside"\nagent = "counts"\nwrites = false\nneeds = ["first"]\nprompt = "await go\\nspend 2\\nsay beside"\n'
    '[[step]]\nid = "third"\nagent = "counts"\nwrites = false\nneeds = ["beside"]\nprompt = "mark third\\nspend 1\\nsay z"\n'
)


def test_a_providers_limit_pauses_the_run_and_what_is_done_is_not_paid_for_again(stage: Stage) -> None:
    config = stage.program.cwd / "goalrun.toml"
    config.write_text("wait_quota = false\n" + config.read_text(encoding="utf-8"), encoding="utf-8")
    stage.flow(LIMITED)
    process = stage.program.spawn("flow", "run", "f", "--json")
    wait_until(lambda: calls_finished(stage.program) == 2, "the limit is recorded")
    stage.mark("go")
    first = finish(process)
    assert first.code == 10, first.err
    assert first.json["state"] == "rate_limited"
    assert "limit" in first.json["detail"]
    # Nobody was asked after it, and every call was counted once.
    assert (stage.marks("first"), stage.marks("second"), stage.marks("third")) == (1, 1, 0)
    assert first.json["usage"]["total_tokens"] == 5 + 3 + 2
    done = stage.program.run("resume", first.json["id"], "--json")
    # The limit that nobody told the end of still stands for a minute.
    assert done.code == 10, done.err


def test_refused_credentials_end_the_run_in_error(stage: Stage, tmp_path: Path) -> None:
    said = {"type": "result", "is_error": True, "api_error_status": 401, "result": "Invalid API key"}
    (tmp_path / "said.json").write_text(json.dumps(said), encoding="utf-8")
    text = f'[agents.c]\ncommand = ["cat", "{tmp_path}/said.json"]\nreads = "claude"\n'
    done = stage.run(
        text
        + '[[step]]\nid = "a"\nagent = "c"\nprompt = "x"\n[[step]]\nid = "b"\nrun = ["true"]\nneeds = ["a"]\njoin = "done"\n'
    )
    assert done.code == 11, done.err
    assert done.json["state"] == "error"
    assert "c: " in done.json["detail"]


@pytest.mark.parametrize(("verb", "code"), [("stop", 7), ("pause", 130)])
def test_an_end_from_outside_ends_all_that_runs_side_by_side(stage: Stage, verb: str, code: int) -> None:
    stage.flow("".join(prompt(f"s{number}", "hang") for number in range(3)))
    process = stage.program.spawn("flow", "run", "f", "--json")
    wait_until(lambda: stage.marks("hangs") == 3, "three agents hang")
    assert stage.program.run(verb).code == 0
    done = finish(process)
    assert (done.code, done.json["state"]) == (code, {"stop": "stopped", "pause": "paused"}[verb]), done.err
    assert running(str(stage.lab.parent / "actor.py")) == []
    # An agent was cut in the middle: nobody knows what it spent.
    assert done.json["usage"]["total_tokens"] is None


def test_a_signal_pauses_a_flow(stage: Stage) -> None:
    stage.flow(prompt("a", "hang") + '[[step]]\nid = "b"\nrun = ["sleep", "600"]\n')
    process = stage.program.spawn("flow", "run", "f")
    wait_until(lambda: stage.marks("hangs") == 1, "an agent hangs")
    process.send_signal(signal.SIGTERM)
    assert finish(process).code == 130
    assert running(str(stage.lab.parent / "actor.py")) == []


def test_a_detached_run_is_told_as_what_it_is_and_goes_on_alone(stage: Stage) -> None:
    stage.flow(prompt("a", "await go\nsay done"))
    started = stage.program.run("flow", "run", "f", "-d", "--json")
    assert started.code == 0, started.err
    assert started.json["id"].startswith("f-")
    assert started.json["flow"] == "f"
    stage.mark("go")
    wait_until(lambda: stage.program.run("status", started.json["id"], "--json").json["state"] == "done", "it is done")
    assert "a" in stage.program.run("show", started.json["id"]).out


def test_agents_of_two_goals_share_the_places_of_the_machine(stage: Stage, tmp_path: Path) -> None:
    config = stage.program.cwd / "goalrun.toml"
    other = tmp_path / "other"
    (other / ".goalrun" / "flows").mkdir(parents=True)
    config.write_text("max_agents = 2\n" + config.read_text(encoding="utf-8"), encoding="utf-8")
    (other / "goalrun.toml").write_text(config.read_text(encoding="utf-8"), encoding="utf-8")
    text = "".join(prompt(f"s{number}", "inside room\nsay x") for number in range(4))
    stage.flow(text)
    (other / ".goalrun" / "flows" / "f.toml").write_text(text, encoding="utf-8")
    both = [stage.program.spawn("flow", "run", "f", cwd=folder) for folder in (stage.program.cwd, other)]
    assert [finish(each).code for each in both] == [0, 0]
    assert stage.marks("room") == 16
    assert stage.most("room") <= 2


# Goals around flows


def test_a_gate_that_blocks_inside_ends_the_turn_and_its_reason_is_the_next_ones_feedback(stage: Stage) -> None:
    stage.flow(
        prompt("plan", "mark plan\nsay a plan")
        + '[[step]]\nid = "edit"\nagent = "actor"\nprompt = "mark edit\\nwrite note.txt {goal.turn}\\nsay told: {goal.feedback}"\nneeds = ["plan"]\n'
        + '[[step]]\nid = "gate"\ngate = true\nneeds = ["edit"]\n'
        + 'run = ["bash", "-c", "grep -q 2 note.txt && echo VERDICT: PASS || echo VERDICT: BLOCK too few notes"]\n'
    )
    done = stage.program.run("wrap", "f", "two notes", "-c", "test -f note.txt", "--json")
    assert done.code == 0, done.err
    result = done.json
    # The check passed in the first turn already; the gate did not.
    assert [turn["decision"] for turn in result["turn_records"]] == ["continue", "achieved"]
    assert "too few notes" in result["turn_records"][0]["reason"]
    assert (stage.marks("plan"), stage.marks("edit")) == (1, 2)
    shown = stage.program.run("show", result["id"]).out
    assert "too few notes" in shown
    logs = stage.program.run("logs", result["id"], "--json").out.splitlines()
    told = [json.loads(line) for line in logs]
    finished = [each["event"] for each in told if each.get("event", {}).get("kind") == "call_finished"]
    second = [each for each in finished if each["path"] == "edit"][1]
    assert "too few notes" in json.loads(second["call"]["kept"])["text"]
    processes = [each for each in told if each.get("event", {}).get("kind") == "process_started"]
    assert sum(each["event"]["role"] == "worker" for each in processes) == len(finished) == 5


def test_a_flow_with_a_gate_that_nobody_asked_does_not_achieve(stage: Stage) -> None:
    stage.flow(
        prompt("bad", "exit 1")
        + prompt("gate", "say VERDICT: PASS {steps.bad.output}", "gate = true")
        + '[[step]]\nid = "edit"\nrun = ["touch", "note.txt"]\n'
    )
    done = stage.program.run("wrap", "f", "a note", "-c", "test -f note.txt", "--max-turns", "1", "--json")
    assert (done.code, done.json["state"]) == (3, "max_turns"), done.err


def test_steps_that_write_the_same_files_take_turns_and_each_has_its_own_changes_while_readers_run(
    stage: Stage,
) -> None:
    # The reader ends once both writers have written, and the first writer once the reader has begun.
    text = (
        '[[step]]\nid = "reads"\nagent = "actor"\nwrites = false\nprompt = "mark reads\\nawait second\\nsay r"\n'
        '[[step]]\nid = "one"\nagent = "actor"\n'
        'prompt = "inside in\\nwrite one.txt half\\nawait reads\\nwrite one.txt whole\\nsay 1"\n'
        '[[step]]\nid = "two"\nagent = "actor"\nprompt = "inside in\\nwrite two.txt whole\\nmark second\\nsay 2"\n'
        '[[step]]\nid = "told"\nrun = ["printf", "%s@@@@@%s", "{steps.one.diff}", "{steps.two.diff}"]\nneeds = ["reads"]\n'
    )
    done = stage.run(text)
    assert done.code == 0, done.err
    one, two = done.json["output"].split("@@@@@")
    assert ("+whole" in one, "one.txt" in one, "two.txt" in one) == (True, True, False)
    assert ("two.txt" in two, "one.txt" in two) == (True, False)
    assert max(int(each) for each in (stage.lab / "in").read_text().split()) == 1


CLEANS = (
    '[[step]]\nid = "clean"\nfinally = true\n'
    'run = ["bash", "-c", "echo $0 >> {lab}/cleaned; test ! -e {lab}/dirty", "{{steps.work.status}}"]\n'
    '[[step]]\nid = "work"\nrun = ["bash", "-c", "{work}"]\n'
    '[[step]]\nid = "more"\nneeds = ["work"]\nrun = ["echo", "more"]\n'
)


@pytest.mark.parametrize(
    ("work", "code", "status"), [("echo work", 0, "done"), ("exit 3", 14, "failed"), ("exit 75", 6, "blocked")]
)
def test_what_runs_finally_runs_after_every_end_and_changes_none(
    work: str, code: int, status: str, stage: Stage
) -> None:
    done = stage.run(
        CLEANS.replace("{lab}", str(stage.lab)).replace("{{", "{").replace("}}", "}").replace("{work}", work)
    )
    assert (done.code, done.json["steps"]["clean"]["status"]) == (code, "done"), done.err
    assert (stage.lab / "cleaned").read_text().split() == [status]
    if code:
        # A run that is taken up again ends again.
        assert stage.program.run("resume", done.json["id"]).code == code
        assert (stage.lab / "cleaned").read_text().split() == [status] * 2
    else:
        assert (done.json["output"], done.json["source"]) == ("more", "more")


def test_what_runs_finally_and_fails_is_told_and_the_flow_is_done_all_the_same(stage: Stage) -> None:
    stage.mark("dirty")
    done = stage.run(
        CLEANS.replace("{lab}", str(stage.lab)).replace("{{", "{").replace("}}", "}").replace("{work}", "true")
    )
    assert (done.code, done.json["output"]) == (0, "more"), done.err
    assert done.json["steps"]["clean"]["status"] == "failed"
    assert "finally, clean is failed: " in done.json["detail"]


def test_a_step_that_prints_nothing_for_too_long_is_ended_and_says_so(stage: Stage) -> None:
    done = stage.run('[[step]]\nid = "s"\nidle_timeout = "1s"\nrun = ["bash", "-c", "echo begun; sleep 600"]\n')
    assert (done.code, done.json["steps"]["s"]["text"]) == (14, "begun"), done.err
    assert done.json["steps"]["s"]["reason"] == "it printed nothing for too long"


def test_a_result_counts_steps_and_workers_and_names_the_step_of_the_output(stage: Stage) -> None:
    first = stage.run(
        '[[step]]\nid = "a"\nrun = ["echo", "from a"]\nwrites = false\n'
        f'[[step]]\nid = "each"\neach = [1, 2, 3]\nrun = ["bash", "-c", "test $0 != 2 -o -e {stage.lab}/ok", "{{item}}"]\n'
        '[[step]]\nid = "last"\nneeds = ["each"]\nrun = ["true"]\n'
    )
    assert first.code == 14, first.err
    assert first.json["counts"] == {
        "steps": {"done": 1, "failed": 1, "skipped": 1, "cached": 0},
        "workers": {"done": 3, "failed": 1, "skipped": 1, "cached": 0},
    }
    assert (first.json["output"], first.json["source"]) == ("from a", "a")
    stage.mark("ok")
    done = stage.program.run("resume", first.json["id"], "--json")
    assert (done.code, done.json["source"]) == (0, "last"), done.err
    assert done.json["counts"]["workers"] == {"done": 5, "cached": 3}
    shown = stage.program.run("show", first.json["id"]).out
    assert "  workers     5 done, 3 cached\n  output      of last\n" in shown
